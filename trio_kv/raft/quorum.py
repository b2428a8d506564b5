"""The arithmetic of majorities."""

from collections.abc import Iterable
from typing import TypeVar

Ordered = TypeVar("Ordered", int, float)


def majority_size(members: int) -> int:
    """Return how many of so many members are a majority."""
    return members // 2 + 1


def quorum_value(values: Iterable[Ordered]) -> Ordered:
    """Return the greatest value that a majority of the members has reached, one value a member."""
    ranked = sorted(values, reverse=True)
    return ranked[majority_size(len(ranked)) - 1]
