"""The reads of a store that a cluster of ours is: hedged, for they have no effect.

Several nodes may be asked: another one each 20 ms, and the first answer wins. A read ends in `unavailable`, and never
in `timeout`.

Limit: `READS_MAX` runs of reads; beyond that `overloaded`.
"""

from collections.abc import Callable, Sequence
from random import Random

import trio

from trio_kv.gateway.pending import PendingRead
from trio_kv.gateway.readers import HEDGES_MAX, Readers
from trio_kv.gateway.runs import GONE, HEDGE_S, refuse
from trio_kv.gateway.store import Answer, OnAnswer, View
from trio_kv.kv.operations import AnyQuery
from trio_kv.replica.port import NodeHandle
from trio_kv.wire.node_port import NoResult, Read, Refused, ReplyTo

READS_MAX = 65_536


class Reads:
    """The runs of reads under way, by number.

    Args:
        reply_to: who asks.
        next_number: gives each request a number of its own.
        random: tosses the coin that picks a follower.

    """

    def __init__(self, reply_to: ReplyTo, next_number: Callable[[], int], random: Random) -> None:
        """Have none under way; see the class."""
        self.pending: dict[int, PendingRead] = {}
        self.is_gone = False
        """Whether no leader can come: the directories of a majority are gone."""
        self._reply_to = reply_to
        self._next_number = next_number
        self.readers = Readers(random)
        """Whom to ask."""
        self.now: Callable[[], float] = trio.current_time
        """The clock of the run."""

    def update(self, handles: Sequence[NodeHandle]) -> None:
        """Ask these nodes from now on. Called at each change of a node's role or state."""
        self.readers.update(handles)

    def start(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View, done: OnAnswer
    ) -> Answer | PendingRead:
        """Let a follower answer queries. See `Store`."""
        if len(self.pending) >= READS_MAX:
            return refuse("overloaded", "too many requests are waiting: try again later", len(queries))
        if self.is_gone and not is_stale:
            return refuse("unavailable", GONE, len(queries))
        now, readers = self.now(), self.readers
        applied_min, kept = (view.applied, view.node) if is_stale else (0, 0)
        read = PendingRead(
            self._next_number(), queries, now + timeout_s, done, is_stale, applied_min, view, now + HEDGE_S
        )
        self.pending[read.number] = read
        if readers.hedges < HEDGES_MAX:
            readers.earn_hedge()
        self._ask(now, read, kept)
        return read

    def forget(self, read: PendingRead) -> None:
        """Wait for a run no more."""
        self.pending.pop(read.number, None)

    def end(self, read: PendingRead, answer: Answer) -> None:
        """Tell the answer to whoever waits for it."""
        del self.pending[read.number]
        read.view.note(answer)
        if read.is_stale and answer.node:
            read.view.node = answer.node
        read.done(answer)

    def on_no_result(self, now: float, read: PendingRead, answer: NoResult) -> None:
        """Deal with a node that could not answer."""
        if answer.node in read.asked:
            read.asked.remove(answer.node)
        if not read.asked:
            if isinstance(answer, Refused):
                read.hedge_at = min(read.hedge_at, now + HEDGE_S)
            else:
                self._ask(now, read)

    def look_after(self, now: float) -> None:
        """End what is late, and ask others for what is slow."""
        for read in list(self.pending.values()):
            if now >= read.deadline:
                late = "no node could confirm the read in time"
                self.end(read, refuse("unavailable", late, len(read.queries)))
            elif now >= read.hedge_at:
                self._hedge(now, read)

    def _ask(self, now: float, read: PendingRead, kept: int = 0) -> None:
        """Ask one more node: the kept one, or any that was not asked yet and does not rest, followers first."""
        chosen = self.readers.choose(now, read.asked, kept)
        if chosen is None:
            return
        if chosen.submit(Read(self._reply_to, read.number, read.queries, read.is_stale, read.applied_min)):
            read.asked.append(chosen.status.node)
            if self.readers.resting:
                self.readers.was_asked(now, chosen.status.node)

    def _hedge(self, now: float, read: PendingRead) -> None:
        """Ask another node too, and let the slow one rest."""
        read.hedge_at = now + HEDGE_S
        if read.asked and (read.is_given_time(now) or not self.readers.may_hedge(now, read.asked[-1])):
            return
        self._ask(now, read)
