"""How changes are drawn from the nodes: one pull after the other, from whichever node has them.

A node that refuses, dies, or says nothing for too long is left for another one, and who asked never hears of it: what
is asked for is named by a revision, which means the same on every node. Only when no node that can be asked has what is
behind that revision any more, the asker hears so.
"""

import math
from collections.abc import Callable
from random import Random

import attrs
import trio

from trio_kv.replica.port import Directory, NodeHandle
from trio_kv.wire.node_port import Answer, Batch, Gone, Pull, ReplyTo

SILENCE_S = 3.0
"""A node that answers nothing for so long is left: one that lives and has nothing to tell says so more often."""
RETRY_S = 0.1
"""When no node can be asked, it is tried again after so long."""


@attrs.define(eq=False)
class Pulling:
    """Changes behind a revision that somebody waits for."""

    after: int
    on_batch: Callable[[Batch], object]
    on_gone: Callable[[int], object]
    """Is called if no node has what is behind `after`, with the lowest revision behind which one has all."""
    deadline: float
    on_late: Callable[[], object]
    number: int = 0
    """Of the attempt under way; 0 if there is none."""
    node: int = 0
    look_at: float = 0.0
    gone: dict[int, int] = attrs.field(factory=dict)
    """Nodes that don't have it, and behind what they have all."""
    failed: set[int] = attrs.field(factory=set)
    """Nodes that were asked in vain just now."""


class Pulls:
    """All that is drawn from the nodes. `run` must be running.

    Args:
        directory: who can be asked.
        random: chooses among followers.

    """

    def __init__(self, directory: Directory, random: Random) -> None:
        """Ask for nothing yet; see the class."""
        self._directory = directory
        self._random = random
        self._reply_to: ReplyTo | None = None
        self._number = 0
        self._under_way: dict[int, Pulling] = {}
        """By number of the attempt."""
        self._idle: list[Pulling] = []
        """Those that wait for a node that can be asked."""
        self._wake = trio.Event()

    def pull(
        self,
        after: int,
        on_batch: Callable[[Batch], object],
        on_gone: Callable[[int], object],
        *,
        kept: int = 0,
        deadline: float = math.inf,
        on_late: Callable[[], object] = lambda: None,
    ) -> Pulling:
        """Ask for what is behind a revision. The answer never comes before this returns.

        Args:
            after: the revision.
            on_batch: is called with the answer.
            on_gone: is called instead, if no node has it; see `Pulling`.
            kept: a node to be asked first.
            deadline: when to give up.
            on_late: is called then.

        """
        pulling = Pulling(after, on_batch, on_gone, deadline, on_late)
        self._ask(trio.current_time(), pulling, kept)
        return pulling

    def cancel(self, pulling: Pulling) -> None:
        """Wait for it no more."""
        if self._under_way.pop(pulling.number, None) is None and pulling in self._idle:
            self._idle.remove(pulling)

    async def run(self) -> None:
        """Go on elsewhere where a node says nothing, and end what is late."""
        reply_to = self._join()
        unlisten = self._directory.listen(self._on_change)
        try:
            while True:
                waiting = [*self._under_way.values(), *self._idle]
                next_at = min([min(each.look_at, each.deadline) for each in waiting], default=math.inf)
                self._wake = trio.Event()
                with trio.CancelScope(deadline=next_at):
                    await self._wake.wait()
                self._look_after(trio.current_time())
        finally:
            unlisten()
            self._directory.leave(reply_to)

    def _join(self) -> ReplyTo:
        if self._reply_to is None:
            self._reply_to = self._directory.join(self._deliver)
        return self._reply_to

    def _ask(self, now: float, pulling: Pulling, kept: int = 0) -> None:
        """Ask a node, or wait until one can be asked."""
        pulling.number, pulling.look_at = 0, now + RETRY_S
        if pulling.gone and all(each.status.node in pulling.gone for each in self._directory.readable()):
            pulling.on_gone(min(pulling.gone.values()))
            return
        handle = self._choose(pulling, kept)
        if handle is not None:
            self._number += 1
            if handle.submit(Pull(self._join(), self._number, pulling.after)):
                pulling.number, pulling.node = self._number, handle.status.node
                pulling.look_at = now + SILENCE_S
                if not self._under_way:
                    self._wake.set()
                self._under_way[self._number] = pulling
                return
        self._idle.append(pulling)
        self._wake.set()

    def _choose(self, pulling: Pulling, kept: int) -> NodeHandle | None:
        """Return whom to ask: a follower rather than the leader, and nobody twice before all were asked.

        One of this process rather than one of another: all that changes would go over a link else.
        """
        handles = [handle for handle in self._directory.readable() if handle.status.node not in pulling.gone]
        if not handles:
            return None
        fresh = [handle for handle in handles if handle.status.node not in pulling.failed]
        if not fresh:
            # All were asked in vain: after a moment they are asked again.
            pulling.failed.clear()
            return None
        for handle in fresh:
            if handle.status.node == kept:
                return handle
        followers = [handle for handle in fresh if handle.status.role != "leader"] or fresh
        followers = [handle for handle in followers if handle.is_near] or followers
        return followers[int(self._random.random() * len(followers))]

    def _deliver(self, answer: Answer) -> None:
        """Take a node's answer, in the node's task."""
        pulling = self._under_way.pop(answer.number, None)
        if pulling is None:
            return
        if isinstance(answer, Batch):
            pulling.on_batch(answer)
            return
        if isinstance(answer, Gone):
            pulling.gone[answer.node] = answer.after
        else:
            pulling.failed.add(answer.node)
        self._ask(trio.current_time(), pulling)

    def _on_change(self) -> None:
        """Leave nodes that can't be asked any more. A change may come in the midst of a node's pass."""
        self._wake.set()

    def _look_after(self, now: float) -> None:
        able = {handle.status.node for handle in self._directory.readable()}
        for number, pulling in list(self._under_way.items()):
            if now >= pulling.deadline:
                del self._under_way[number]
                pulling.on_late()
            elif now >= pulling.look_at or pulling.node not in able:
                del self._under_way[number]
                pulling.failed.add(pulling.node)
                self._ask(now, pulling)
        idle, self._idle = self._idle, []
        for pulling in idle:
            if now >= pulling.deadline:
                pulling.on_late()
            elif now >= pulling.look_at or able - pulling.failed - set(pulling.gone):
                self._ask(now, pulling)
            else:
                self._idle.append(pulling)
