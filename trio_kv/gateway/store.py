"""The port `Store`: what the doors of the house need from whatever keeps the keys.

The proxy knows this protocol and nothing else of the rooms below it, so a cluster in this process, a
cluster elsewhere or a fake in a test serve it alike. Sessions, retries, hedging and error classes are
the business of the store: a door sees one answer a run, and every operation of a run has one reply.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs
import msgspec

from trio_kv.gateway.drawn import Drawn, Selector
from trio_kv.kv.operations import AnyQuery
from trio_kv.kv.reply import Reply
from trio_kv.wire.client_sessions import AnyAsked


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What came of one run.

    Args:
        replies: one a request of the run, in the order of the run.
        node: the node that answered; 0 if none did.
        term: the term of the leader behind the answer; 0 if there was none.
        applied: the log index up to which that node had applied when it answered.

    """

    replies: Sequence[Reply]
    node: int = 0
    term: int = 0
    applied: int = 0


@attrs.define
class View:
    """What one connection has seen, so that its stale reads never go back in time: behind none of its reads and writes.

    The owner of a connection makes one, passes it along with each read, and notes in it the answers to its writes.
    """

    node: int = 0
    """The follower kept for this connection; 0 while there is none."""
    applied: int = 0
    """The highest applied index behind any answer of this connection."""

    def note(self, answer: Answer) -> None:
        """Note what an answer lets this connection see. An error lets it see nothing."""
        if answer.applied > self.applied:  # noqa: PLR1730 - a call less for every answer
            self.applied = answer.applied


OnAnswer = Callable[[Answer], object]
"""What is called with the answer to a call. It must neither raise nor wait."""


class Watch(Protocol):
    """A watch that has begun."""

    def draw(self) -> Drawn | None:
        """Return what comes next, or how far it is, if that is due; None if there is nothing now.

        After a `Drawn` with `is_lost` it has ended.
        """

    def end(self) -> None:
        """Tell nothing more. May be called again."""


class Beginning(Protocol):
    """A watch that is about to begin."""

    @property
    def watch(self) -> Watch | None:
        """The watch, once it has begun."""


class Store(Protocol):
    """A replicated map. Its methods raise nothing for an error of the store: that is a reply's code.

    Each call comes in two forms. `start_write` and `start_read` return at once: either the answer, or the call that is
    under way, which can be cancelled until its answer comes. `write` and `read` wait for the answer.
    """

    def start_write(
        self, operations: Sequence[AnyAsked], *, timeout_s: float, done: OnAnswer
    ) -> Answer | object:
        """Carry out operations in their order: apply the writes, each at most once, and answer the queries.

        A query is linearizable, and sees the effects of all writes before it and of none behind it. One for which
        that can't be had gets `unavailable`.

        Args:
            operations: a run of one connection, in which there is a write.
            timeout_s: after this long each write without a result gets `unavailable` (never handed to a leader) or
                `timeout` (handed over, outcome unknown), and each query `unavailable`.
            done: is called with the answer, once, unless it is returned or the call is cancelled.

        """

    def start_read(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View, done: OnAnswer
    ) -> Answer | object:
        """Answer queries, as their operations say, or with an error's code.

        Args:
            queries: a run of one connection without a write; never empty.
            timeout_s: after this long the reads end in `unavailable`.
            is_stale: answer at once from one follower's applied state, never older than `view`.
            view: what this connection has seen; updated by all reads, and used by stale ones.
            done: as for `start_write`.

        """

    def start_watch(
        self,
        selector: Selector,
        *,
        first: int | None,
        progress_s: float,
        timeout_s: float,
        on_more: Callable[[], object],
        done: OnAnswer,
    ) -> Answer | Beginning:
        """Begin to watch: all changes of some keys, in the order of their revisions, and none twice.

        Args:
            selector: which keys.
            first: the first revision to be told of; None: what comes behind all that was acknowledged by now.
            progress_s: the owner wants to hear so often how far the watch is; `inf`: never.
            timeout_s: after this long a watch that can't begin ends in `unavailable`.
            on_more: is called when there is something to draw. It must neither raise nor wait.
            done: is called with the answer, unless it is returned: one reply, whose revision is that up to which all
                was applied when the watch began; or `bad_request` if `first` is beyond the next revision,
                `compacted` if no node has that any more, with the lowest revision that would do, or another error.

        Returns:
            the answer, if it is known at once. Otherwise the beginning, which has the watch when the answer comes.

        """

    def cancel(self, call: Any) -> None:
        """Let nobody hear the answer to a call that is under way. Its writes may take effect all the same."""

    async def write(self, operations: Sequence[AnyAsked], *, timeout_s: float) -> Answer:
        """Do as `start_write`, and wait for the answer. A wait that is cancelled cancels the call."""

    async def read(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View
    ) -> Answer:
        """Do as `start_read`, and wait for the answer."""

    def status(self) -> dict[str, object]:
        """Return the members of the protocol's status reply, but for `status` itself."""
