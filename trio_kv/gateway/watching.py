"""Watches: all that changes behind a revision, told to whoever watches, in order and without a gap.

**One stream.** As long as anybody watches, all changes are drawn from one node (`gateway.pulls`) into a window, a
short history of this store's own. So a node does the same for a thousand watches as for one.

**Cursors.** A watch is a place in the window. Its owner draws what comes behind it when it has room for that, and
nobody waits for a slow one. The window is smaller than what nodes keep: a watch whose place is not in it any more is
lost, and can begin anew where it stood, for the nodes have that still.

**A watch that begins in the past** draws by pulls of its own until it has come into the window. It is refused only if
no node has what it asks for.

**The pace.** Owners are told that there is something to draw in rounds (`gateway.pace`).
"""

import heapq
import math
from collections.abc import Callable
from random import Random
from typing import Final

import attrs
import msgspec
import trio

from trio_kv.gateway.drawn import Drawn, Selector, draw
from trio_kv.gateway.pace import Pace
from trio_kv.gateway.pulls import Pulling, Pulls
from trio_kv.gateway.store import Answer, OnAnswer, View
from trio_kv.gateway.topics import Topic, Topics
from trio_kv.kv.history import History
from trio_kv.kv.reply import Reply
from trio_kv.replica.port import Directory
from trio_kv.wire.node_port import Batch

WINDOW_REVISIONS_MAX: Final = 8192
WINDOW_BYTES_MAX: Final = 16 << 20
"""An eighth and a quarter of what nodes keep: so much later a lost watch may begin anew."""
WATCHES_MAX: Final = 65_536
"""Beyond it `overloaded`."""
TURN_S: Final = 0.005
"""So long owners are told before other tasks have their turn."""
RETELL_S: Final = 0.1
"""An owner that had no room when it wanted to hear how far its watch is, is told again after so long."""
PROGRESS_SHARE: Final = 0.8
"""So much of its time passes before a watch tells how far it is: what is told must arrive in time."""


class Watch:
    """A watch that has begun. Its owner draws from it, and ends it.

    Invariant: all that it is about up to `after` was drawn, and nothing behind that.
    """

    __slots__ = (
        "_owner",
        "after",
        "due_at",
        "is_ended",
        "is_gone",
        "on_more",
        "progress_s",
        "pulling",
        "segment",
        "topic",
    )

    def __init__(
        self, owner: "Watching", topic: Topic, after: int, progress_s: float, on_more: Callable[[], object]
    ) -> None:
        """See `Store.start_watch`."""
        self.topic = topic
        self.after = after
        self.on_more = on_more
        self.progress_s = progress_s
        self.is_ended = self.is_gone = False
        self.segment: History | None = None
        """What was drawn for it alone, as long as it is behind the window."""
        self.pulling: Pulling | None = None
        self._owner = owner
        self.due_at = trio.current_time() + PROGRESS_SHARE * progress_s
        """When its owner wants to hear how far it is, whether there was anything to tell or not."""

    def draw(self) -> Drawn | None:
        """Return what comes next; None if there is nothing now. After `is_lost` it has ended."""
        if self.is_ended:
            return None
        while (drawn := self._owner.draw(self)) is not None:
            self.after = drawn.upto
            if drawn.is_lost:
                self.end()
            if drawn.is_lost or drawn.revisions:
                return drawn
        now = trio.current_time()
        if now < self.due_at or self.pulling is not None:
            return None
        self.due_at = now + PROGRESS_SHARE * self.progress_s
        return Drawn(self.after, self.after)

    def end(self) -> None:
        """Tell nothing more. May be called again."""
        if not self.is_ended:
            self.is_ended = True
            self._owner.leave(self)


@attrs.define(eq=False)
class Beginning:
    """A watch that is about to begin."""

    selector: Selector
    first: int | None
    progress_s: float
    on_more: Callable[[], object]
    done: OnAnswer
    deadline: float
    read: object = None
    pulling: Pulling | None = None
    watch: Watch | None = None
    """Once it has begun."""


class Watching:
    """All watches of a store. `run` must be running.

    Args:
        directory: who can be asked.
        random: chooses among followers.
        start_read: the store's own, see there.
        window_revisions: how many of the latest revisions the window reaches back.

    """

    def __init__(
        self,
        directory: Directory,
        random: Random,
        start_read: Callable[..., Answer | object],
        window_revisions: int = WINDOW_REVISIONS_MAX,
    ) -> None:
        """Watch nothing; see the class."""
        self._window_revisions = window_revisions
        self._pulls = Pulls(directory, random)
        self._start_read = start_read
        self._window: History | None = None
        """None while nobody watches."""
        self._pace = Pace(window_revisions, WINDOW_BYTES_MAX)
        self._told = 0
        """Up to where watches are told now. It moves on with each round, so that all are told the same."""
        self._stream: Pulling | None = None
        self._topics = Topics()
        self._count = 0
        self._stirred: dict[Topic, None] = {}
        self._due: list[tuple[float, int, Watch]] = []
        self._order = 0
        self._wake = trio.Event()

    async def run(self) -> None:
        """Draw changes, and tell owners that there is something to draw."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pulls.run)
            while True:
                at = self._due[0][0] if self._due else math.inf
                with trio.CancelScope(deadline=min(at, self._pace.due_at) if self._stirred else at):
                    await self._wake.wait()
                self._wake = trio.Event()
                if self._stirred and trio.current_time() >= self._pace.due_at:
                    took_s = await self._go_round()
                    self._pace.rest(trio.current_time(), took_s)
                self._tell_due(trio.current_time())

    # Beginnings

    def start(self, beginning: Beginning) -> Answer | Beginning:
        """Begin a watch; see `Store.start_watch`."""
        if self._count >= WATCHES_MAX:
            return Answer([Reply("overloaded", message=f"{WATCHES_MAX} watches is what a server can have")])
        left_s = beginning.deadline - trio.current_time()

        def done(answer: Answer) -> None:
            self._on_read(beginning, answer)

        # Without a query it tells the applied index alone, linearizable as any read.
        read = self._start_read((), timeout_s=left_s, is_stale=False, view=View(), done=done)
        if isinstance(read, Answer):
            return _LATE
        beginning.read = read
        return beginning

    def cancel(self, beginning: Beginning) -> object:
        """Let nobody hear of it; return the read under way, which is the store's to cancel."""
        if beginning.pulling is not None:
            self._pulls.cancel(beginning.pulling)
        if beginning.watch is not None:
            beginning.watch.end()
        self._maybe_stop()
        return beginning.read

    def _on_read(self, beginning: Beginning, answer: Answer) -> None:
        """Go on, now that it is known what was applied."""
        beginning.read = None
        if not answer.node:
            beginning.done(_LATE)
            return
        applied, first = answer.applied, beginning.first
        if first is not None and first > applied + 1:
            message = f'"from" is {first}, and the next revision is {applied + 1}: that is the highest to begin with'
            beginning.done(Answer([Reply("bad_request", message=message)]))
            return
        after = applied if first is None else max(first - 1, 0)
        if self._window is None:
            self._follow(applied)
        assert self._window is not None
        if after >= self._window.after:
            self._begin(beginning, after, answer, None)
            return

        def on_batch(batch: Batch) -> None:
            self._begin(beginning, after, answer, batch)

        def on_gone(oldest: int) -> None:
            message = f"the oldest revision that a watch can begin with is {oldest + 1}"
            beginning.done(Answer([Reply("compacted", None, oldest + 1, message)]))
            self._maybe_stop()

        def on_late() -> None:
            beginning.done(_LATE)
            self._maybe_stop()

        beginning.pulling = self._pulls.pull(
            after, on_batch, on_gone, deadline=beginning.deadline, on_late=on_late
        )

    def _begin(self, beginning: Beginning, after: int, answer: Answer, batch: Batch | None) -> None:
        """Let a watch begin, with what was drawn for it alone, if anything was."""
        beginning.pulling = None
        if self._window is None:
            self._follow(answer.applied)
        assert self._window is not None
        topic = self._topics.find(beginning.selector, self._window.upto)
        watch = Watch(self, topic, after, beginning.progress_s, beginning.on_more)
        topic.watches[watch] = None
        self._count += 1
        beginning.watch = watch
        if self._told < self._window.upto:
            # What is told in the next round may concern it, and was not noted for it.
            self._stirred[topic] = None
            self._wake.set()
        if batch is not None:
            watch.segment = _history_of(batch)
        if beginning.progress_s < math.inf:
            self._put_due(watch)
        beginning.done(msgspec.structs.replace(answer, replies=[Reply("ok", None, answer.applied)]))

    # The stream

    def _follow(self, after: int) -> None:
        """Draw all changes behind a revision, into a window that begins there."""
        self._told = after
        self._window = History(after, revisions_max=self._window_revisions, bytes_max=WINDOW_BYTES_MAX)
        self._stream = self._pulls.pull(after, self._on_batch, self._on_gone)

    def _on_batch(self, batch: Batch) -> None:
        """Take the next changes, and note whom they concern."""
        window = self._window
        assert window is not None
        assert batch.after == window.upto
        if batch.upto > batch.after:
            size_bytes = sum([len(each.key) + len(each.value or b"") for each in batch.changes])
            window.note(batch.upto, batch.changes, size_bytes)
            self._pace.came(batch.upto - batch.after, size_bytes)
            stirred = self._topics.stir(batch.changes, window.after)
            self._stirred |= stirred
            if stirred or (self._stirred and self._pace.is_pressing):
                self._wake.set()
        self._stream = self._pulls.pull(window.upto, self._on_batch, self._on_gone, kept=batch.node)

    def _on_gone(self, oldest: int) -> None:
        """Go on behind a gap: no node has what comes next. Watches that have not come so far are lost."""
        self._follow(oldest)
        for topic in self._topics:
            topic.jump(oldest)
            self._stirred[topic] = None
        self._wake.set()

    def _maybe_stop(self) -> None:
        if not self._count and self._stream is not None:
            self._pulls.cancel(self._stream)
            self._stream = self._window = None

    # Watches

    def draw(self, watch: Watch) -> Drawn | None:
        """Return what a watch is told next, which may be that it goes on elsewhere; None if there is nothing now."""
        window, topic, after = self._window, watch.topic, watch.after
        assert window is not None
        if watch.segment is not None:
            return self._draw_alone(watch, watch.segment)
        if watch.pulling is not None:
            return None
        if after >= min(topic.last, self._told) and not watch.is_gone:
            # Nothing that it is about has come since, or it is told in the next round.
            watch.after = max(after, self._told)
            return None
        if after < window.after:
            if watch.is_gone or after < topic.forgotten(window.after):
                return Drawn(after, after, is_lost=True)
            # What is out of the window does not concern it.
            return Drawn(after, window.after)
        return topic.draw(window, after, self._told)

    def _draw_alone(self, watch: Watch, segment: History) -> Drawn:
        """Draw for a watch that is behind the window, and fetch what comes next when that is used up."""
        window = self._window
        assert window is not None
        drawn = draw(segment, watch.topic.selector, watch.after, segment.upto)
        if drawn.upto >= segment.upto:
            watch.segment = None
            if drawn.upto < window.after:
                self._pull_alone(watch, drawn.upto)
        return drawn

    def _pull_alone(self, watch: Watch, after: int) -> None:
        def on_batch(batch: Batch) -> None:
            watch.pulling, watch.segment = None, _history_of(batch)
            watch.on_more()

        def on_gone(_oldest: int) -> None:
            watch.pulling, watch.is_gone = None, True
            watch.on_more()

        watch.pulling = self._pulls.pull(after, on_batch, on_gone)

    def leave(self, watch: Watch) -> None:
        """Forget a watch."""
        if watch.pulling is not None:
            self._pulls.cancel(watch.pulling)
        self._count -= 1
        del watch.topic.watches[watch]
        if not watch.topic.watches:
            self._topics.remove(watch.topic)
        self._maybe_stop()

    # Rounds

    async def _go_round(self) -> float:
        """Tell the owners of watches that have something to draw; return how long that took, without others' turns."""
        self._move_on()
        stirred, self._stirred = self._stirred, {}
        watches = [watch for topic in stirred for watch in topic.watches]
        took_s, began = 0.0, trio.current_time()
        for watch in watches:
            if not watch.is_ended:
                watch.on_more()
            if (turn_s := trio.current_time() - began) >= TURN_S:
                took_s += turn_s
                await trio.lowlevel.checkpoint()
                began = trio.current_time()
        return took_s + trio.current_time() - began

    def _move_on(self) -> None:
        """Let watches be told of all that has come."""
        self._pace.told()
        if self._window is not None:
            self._told = self._window.upto

    def _tell_due(self, now: float) -> None:
        """Tell the owners that want to hear how far their watches are."""
        if self._due and self._due[0][0] <= now:
            self._move_on()
        while self._due and self._due[0][0] <= now:
            _, _, watch = heapq.heappop(self._due)
            if watch.is_ended:
                continue
            if watch.due_at <= now:
                watch.on_more()
            self._put_due(watch)

    def _put_due(self, watch: Watch) -> None:
        """Let the owner of a watch be told when it wants to hear of it in any case."""
        self._order += 1
        at = max(watch.due_at, trio.current_time() + RETELL_S)
        heapq.heappush(self._due, (at, self._order, watch))
        if self._due[0][2] is watch:
            self._wake.set()


def _history_of(batch: Batch) -> History:
    """Return what a batch tells, as a history."""
    history = History(batch.after)
    history.note(batch.upto, batch.changes, 0)
    return history


_LATE = Answer([Reply("unavailable", message="no node could confirm in time where to begin")])
"""What a watch hears that could not begin in time."""
