"""All mutants of the list, registered by importing their rooms."""

from tests.mutants import (
    client_sessions,
    clients,
    directories,
    disks,
    doors,
    elections,
    hangs,
    log,
    operations,
    passes,
    reads,
    sessions,
    sharing,
    snapshots,
    storage,
    watches,
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
    "hangs",
    "log",
    "operations",
    "passes",
    "reads",
    "sessions",
    "sharing",
    "snapshots",
    "storage",
    "watches",
    "whole",
]
