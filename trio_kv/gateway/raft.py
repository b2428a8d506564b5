"""The store that a cluster of ours is: what doors ask of it, and what its nodes answer.

What becomes of writes stands in `writes`, what becomes of reads in `reads`. Reads that stand beside writes in a run go
with them to the leader, which answers each in its place (decision 0027).

**Nodes** are known by their port alone (`replica.port`), so they may run in any process. Their answers come straight
into `deliver`, which calls back the connection that waits; what takes thought is left to `run`. There is no timer and
no task a request: one sweep looks after all of them, and sleeps when there are none.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from random import Random, SystemRandom

import trio

from trio_kv.gateway.calls import AwaitedCalls
from trio_kv.gateway.drawn import Selector
from trio_kv.gateway.pending import PendingRead, PendingWrite
from trio_kv.gateway.reads import Reads
from trio_kv.gateway.runs import HEDGE_S, take_apart
from trio_kv.gateway.store import Answer, OnAnswer, View
from trio_kv.gateway.watching import WINDOW_REVISIONS_MAX, Beginning, Watching
from trio_kv.gateway.writes import Writes
from trio_kv.kv.operations import AnyQuery
from trio_kv.replica.port import Directory
from trio_kv.wire.client_sessions import AnyAsked
from trio_kv.wire.node_port import Answer as NodeAnswer
from trio_kv.wire.node_port import Batch, Done, Gone, NoResult


class RaftStore(AwaitedCalls):
    """A `Store` whose keys a cluster of ours keeps. `run` must be running.

    Invariant: a request that waits here is answered exactly once, at the latest at its deadline.
    """

    def __init__(
        self,
        directory: Directory,
        random: Random,
        *,
        session_timeout_s: float = 1000.0,
        secrets: Random | None = None,
        watch_window: int = WINDOW_REVISIONS_MAX,
    ) -> None:
        """Serve what the directory's nodes keep.

        Args:
            directory: who can be spoken to, and who leads.
            random: tosses the coin that picks a follower.
            session_timeout_s: after how much cluster time without a write the cluster forgets a session.
            watch_window: how many of the latest revisions a watch may be behind before it is lost.
            secrets: draws what nobody can guess: the ids of clients' sessions. None: the system's own source.

        Raises:
            ValueError: the time-out is out of its range.

        """
        next_number = itertools.count(1).__next__
        self._directory = directory
        self._reply_to = directory.join(self.deliver)
        self._reads = Reads(self._reply_to, next_number, random)
        self._writes = Writes(
            self._reply_to,
            next_number,
            self._reads,
            session_timeout_s=session_timeout_s,
            secrets=SystemRandom() if secrets is None else secrets,
        )
        self._no_results: deque[NoResult] = deque()
        """Answers that `run` has to think about."""
        self._wake = trio.Event()
        self._is_idle = True
        self._watching = Watching(directory, random, self.start_read, watch_window)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hand over again what was refused or lost, hedge reads, and end what is late."""
        # `trio.current_time` looks for the clock each time, which takes longer than to read it.
        self._reads.now = self._writes.now = trio.lowlevel.current_clock().current_time
        unlisten = self._directory.listen(self._directory_changed)
        self._directory_changed()
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watching.run)
                while True:
                    await self._wait_work()
                    self._look_after()
        finally:
            unlisten()
            self._directory.leave(self._reply_to)

    async def _wait_work(self) -> None:
        """Wait for trouble; with requests under way, at most until the next sweep."""
        self._is_idle = not self._writes.pending and not self._reads.pending
        sweep_s = math.inf if self._is_idle else HEDGE_S
        with trio.move_on_after(sweep_s):
            await self._wake.wait()
        self._is_idle = False
        self._wake = trio.Event()

    # The port

    def start_write(
        self, operations: Sequence[AnyAsked], *, timeout_s: float, done: OnAnswer
    ) -> Answer | object:
        """Carry out a run with writes in it. See `Store`."""
        if self._is_idle:
            self._wake.set()
        return self._writes.start(take_apart(operations), timeout_s, done)

    def start_read(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View, done: OnAnswer
    ) -> Answer | object:
        """Let a follower answer queries. See `Store`."""
        if self._is_idle:
            self._wake.set()
        return self._reads.start(queries, timeout_s=timeout_s, is_stale=is_stale, view=view, done=done)

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
        """Begin to watch. See `Store`."""
        deadline = trio.current_time() + timeout_s
        return self._watching.start(Beginning(selector, first, progress_s, on_more, done, deadline))

    def cancel(self, call: PendingWrite | PendingRead | Beginning) -> None:
        """Let nobody hear the answer to a call. See `Store`."""
        if isinstance(call, Beginning):
            read = self._watching.cancel(call)
            if isinstance(read, PendingRead):
                self._reads.forget(read)
        elif isinstance(call, PendingRead):
            self._reads.forget(call)
        else:
            self._writes.cancel(call)

    def status(self) -> dict[str, object]:
        """Return what the cluster looks like. See `Store`."""
        return self._directory.status()

    # What happens

    def deliver(self, answer: NodeAnswer) -> None:
        """Take a node's answer. Called in the node's task: must neither raise nor take long."""
        if not isinstance(answer, Done):
            # Pulls are answered elsewhere: see `pulls`.
            assert not isinstance(answer, Batch | Gone)
            self._no_results.append(answer)
            self._wake.set()
            return
        reads = self._reads
        if reads.readers.resting:
            reads.readers.was_answered(answer.node)
        found = Answer(answer.replies, answer.node, answer.term, answer.applied)
        read = reads.pending.get(answer.number)
        if read is not None:
            reads.end(read, found)
        elif (write := self._writes.pending.get(answer.number)) is not None:
            self._writes.end(write, found)

    def _directory_changed(self) -> None:
        """Note who can be asked; wake `run` if somebody else leads."""
        reads, writes = self._reads, self._writes
        reads.update(self._directory.readable())
        reads.is_gone = writes.is_gone = self._directory.is_majority_gone
        if writes.update(self._directory.leader()):
            self._wake.set()

    def _look_after(self) -> None:
        now = trio.current_time()
        while self._no_results:
            self._on_no_result(now, self._no_results.popleft())
        self._writes.look_after(now)
        self._reads.look_after(now)

    def _on_no_result(self, now: float, answer: NoResult) -> None:
        """Deal with a node that could not do what it was asked."""
        write, read = self._writes.pending.get(answer.number), self._reads.pending.get(answer.number)
        if write is not None:
            self._writes.on_no_result(now, write, answer)
        elif read is not None:
            self._reads.on_no_result(now, read, answer)
