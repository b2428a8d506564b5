"""Searching for a seed that finds a mutant, in a process of its own or not."""

from tests.mutants.all_mutants import MUTANTS
from tests.mutants.kills import BrokenMutantError, Kill, kill_by_seeds

SEEDS_MAX = 1000
"""A mutant that outlives so many seeds has survived."""


def search(seeds_max: int, name: str) -> Kill | str | None:
    """Return how the seeds from 1 on find a mutant; None if it survives them, a text if it is broken."""
    try:
        return kill_by_seeds(MUTANTS[name], range(1, seeds_max + 1))
    except BrokenMutantError as error:
        return str(error)
