"""What is under way at the gateway: runs of writes, runs of reads, and the opening of a session."""

from collections.abc import Sequence

import attrs
import msgspec

from trio_kv.gateway.client_sessions import Asked
from trio_kv.gateway.runs import Run
from trio_kv.gateway.store import OnAnswer, View
from trio_kv.kv.commands import Command
from trio_kv.kv.operations import AnyQuery

PAGE_HEDGE_S = 1.0
"""After so much longer than other reads one with a page is also given to another node."""


class PendingRead(msgspec.Struct, eq=False):
    """A run of reads under way."""

    number: int
    queries: Sequence[AnyQuery]
    deadline: float
    done: OnAnswer
    is_stale: bool
    applied_min: int
    view: View
    hedge_at: float
    asked: list[int] = []
    had_time: bool = False
    """Whether it was given more time than others."""

    def is_given_time(self, now: float) -> bool:
        """Return whether it may take longer than others before another node is asked; then it is noted until when.

        Before a page is made the keys may have to be put in order: another node would have to do that, too.
        """
        if self.had_time or not any(query.has_page for query in self.queries):
            return False
        self.had_time, self.hedge_at = True, now + PAGE_HEDGE_S
        return True


class PendingWrite(msgspec.Struct, eq=False):
    """A run with writes under way, or the opening of a session."""

    number: int
    run: Run
    """Empty if it opens a session."""
    deadline: float
    done: OnAnswer | None
    """None for the opening of a session."""
    commands: Sequence[Command] = ()
    """Empty as long as it waits for a session."""
    of_clients: list[Asked] = []
    """What clients ask under sessions of their own."""
    session: int | None = None
    """Whose seqs these are; None of a run that opens one, or has only what is under sessions of clients."""
    first: int = 0
    """The run's first seq."""
    used_at: float = 0.0
    """When it began to use its session."""
    handed_to: tuple[int, int] | None = None
    """(node, term) of the attempt that may still be answered."""
    retry_at: float = 0.0
    """When it is handed over again, if the leader is still the same and there is no answer."""
    unresolved: int = 0
    """Attempts that may take effect, for all we know."""
    reads: PendingRead | None = None
    """Its queries, once they go on alone."""


@attrs.define(eq=False, slots=True)
class Opening:
    """The opening of a session, and the runs that wait for it."""

    used_at: float
    waiting: dict[int, PendingWrite] = attrs.field(factory=dict)
