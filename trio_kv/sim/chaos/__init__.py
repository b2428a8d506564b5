"""Chaos on a live cluster: real sockets, processes and disks, seeded clients and faults, and a verdict."""
