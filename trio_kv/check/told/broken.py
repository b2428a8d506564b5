"""What these judges raise, and what they look at."""

from collections.abc import Sequence
from typing import Protocol

from trio_kv.check.violation import Violation
from trio_kv.raft.events import Event


class Record(Protocol):
    """An event, and who told it: what `trace.trace.Record` is, too."""

    @property
    def seq(self) -> int:
        """Counts the events of one process."""

    @property
    def event(self) -> Event:
        """What happened."""

    @property
    def node(self) -> int | None:
        """To which node, if to one."""

    @property
    def term(self) -> int | None:
        """Which term it was in."""

    @property
    def role(self) -> str | None:
        """What it was."""

    @property
    def process(self) -> int | None:
        """Which process told it, where the traces of several were merged."""


class Broken(Violation):
    """A property does not hold.

    Args:
        name: of the property.
        words: what is wrong, for people.
        index: of the log, if it is about one.
        term: if it is about one.
        earlier: records that contradict this one.

    """

    def __init__(
        self,
        name: str,
        words: str,
        *,
        index: int | None = None,
        term: int | None = None,
        earlier: Sequence[Record] = (),
    ) -> None:
        """See the class."""
        super().__init__(f"{name}: {words}")
        self.name = name
        self.words = words
        self.index = index
        self.term = term
        self.earlier = earlier
        self.record: Record | None = None
        """The event that broke it."""
        self.chain: Sequence[Record] = ()
        """The events that led to it, in order."""
