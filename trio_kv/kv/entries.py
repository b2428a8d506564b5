"""What the state machine is given: entries of the log."""

from typing import Any, Protocol


class LogEntry(Protocol):
    """What the state machine needs to know of an entry; `raft.entry.Entry` is one."""

    @property
    def index(self) -> int:
        """Place in the log; the first is 1."""

    @property
    def term(self) -> int:
        """Term of the leader that proposed it."""

    @property
    def time_us(self) -> int:
        """Cluster time in microseconds."""

    @property
    def command(self) -> Any:
        """A command of `kv.commands`, or None."""

    @property
    def encoded(self) -> bytes:
        """The entry's bytes."""
