"""What the state machine is given: entries of the log, and queries in the midst of them."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from trio_kv.kv.operations import AnyQuery
from trio_kv.kv.reply import Reply


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


class Asked(msgspec.Struct, frozen=True):
    """Queries in the midst of entries."""

    index: int
    """They are answered from the state after the entry with this index."""
    queries: Sequence[AnyQuery]
    replies: list[Reply]
    """Their replies are added to this."""
