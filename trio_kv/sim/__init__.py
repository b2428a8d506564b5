"""Seeded worlds: the real code under faults that can be replayed."""
