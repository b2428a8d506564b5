"""Judges: each watches one property of a running cluster and raises `Violation` when it is broken."""
