"""Space on a full disk: zero-filled log that was made before the disk was full, and what may still go there."""

from trio_kv.raft.entry import Entry

WRITE_BYTES_EXTRA = 1024
"""What a write may need on the disk beyond the bytes of its entries."""


def fitting(entries: tuple[Entry, ...], free_log_bytes: int) -> tuple[Entry, ...]:
    """Return the first ones of these entries, as many as there is space for."""
    for count, entry in enumerate(entries):
        free_log_bytes -= len(entry.encoded)
        # A no-op may use the space that is kept for votes. Without a no-op a new leader could not even answer reads.
        if free_log_bytes < 0 and entry.command is not None:
            return entries[:count]
    return entries
