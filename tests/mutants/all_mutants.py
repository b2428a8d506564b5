"""All mutants of the list, registered by importing their rooms."""

from tests.mutants import (
    client_sessions,
    clients,
    directories,
    disks,
    doors,
    elections,
    expiry,
    hangs,
    log,
    passes,
    reads,
    sessions,
    sharing,
    snapshots,
    storage,
    whole,
)
from tests.mutants.registry import MUTANTS

__all__ = [
    "MUTANTS",
    "client_sessions",
    "clients",
    "directories",
    "disks",
    "doors",
    "elections",
    "expiry",
    "hangs",
    "log",
    "passes",
    "reads",
    "sessions",
    "sharing",
    "snapshots",
    "storage",
    "whole",
]
