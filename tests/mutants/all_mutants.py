"""All mutants of the list, registered by importing their rooms."""

from tests.mutants import clients, disks, doors, elections, log, reads, sessions, snapshots, storage, whole
from tests.mutants.registry import MUTANTS

__all__ = [
    "MUTANTS",
    "clients",
    "disks",
    "doors",
    "elections",
    "log",
    "reads",
    "sessions",
    "snapshots",
    "storage",
    "whole",
]
