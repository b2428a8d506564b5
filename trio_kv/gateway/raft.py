"""The store that a cluster of ours is: sessions, retries, hedged reads and error classes, in one place.

**Writes** go out under one session of the gateway, each with a seq of its own, and are repeated under that same seq
until there is an answer: whichever attempt takes effect first, the others find its reply (thesis §6.3). A definite
error is possible only as long as no attempt can take effect: none was handed over, or each node that had one says that
it did not append. After that there is the result, `timeout` or `session_expired`. A write that was handed over is never
repeated under another session.

**Reads** have no effect, so several nodes may be asked: another one each 20 ms, and the first answer wins. Those that
stand beside writes in a run go with them to the leader, which answers each in its place (decision 0027).

**Nodes** are known by their port alone (`replica.port`), so they may run in any process. Their answers come straight
into `deliver`, which wakes the waiting connection; what takes thought is left to `run`. There is no timer and no task a
request: one sweep looks after all of them, and sleeps when there are none.

**A session** is opened when the first write needs one, one at a time. The opening goes on even if every client that
waits for it gives up: with time-outs shorter than a commit no session would ever be opened otherwise.

Limits: as many writes wait here as a session keeps answers for, of as many bytes as a leader takes, and `READS_MAX`
runs of reads; beyond that `overloaded`.
"""

import math
from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any

import trio

from trio_kv.gateway.pending import Opening, PendingRead, PendingWrite
from trio_kv.gateway.readers import Readers
from trio_kv.gateway.runs import OPERATION_BYTES, Run, refuse, take_apart
from trio_kv.gateway.store import Answer, View
from trio_kv.kv.commands import OpenSession, Write
from trio_kv.kv.operations import AnyQuery, AnyWrite
from trio_kv.kv.reply import Reply
from trio_kv.kv.sessions import REPLIES_MAX, check_timeout
from trio_kv.replica.port import Directory
from trio_kv.wire.node_port import WRITE_BYTES_MAX, Done, Full, NoResult, Propose, Read, Refused
from trio_kv.wire.node_port import Answer as NodeAnswer

READS_MAX = 65_536
HEDGE_S = 0.02
"""A read not answered within this time is also given to another node."""
RETRY_S = 1.0
"""A write not answered within this time is handed over again: the request or its answer may have been lost."""
OPENING_RETRY_S = 10.0
"""The same for the opening of a session, each attempt of which may open one."""
GONE = (
    "the data directory is not where it was: nothing was done. Stop the server, put it back, and start again"
)

_LEADER_FULL = Reply("overloaded", message="the leader's queue is full: try again later")


class RaftStore:
    """A `Store` whose keys a cluster of ours keeps. `run` must be running.

    Invariant: a request that waits here is answered exactly once, at the latest at its deadline.
    """

    def __init__(self, directory: Directory, random: Random, *, session_timeout_s: float = 1000.0) -> None:
        """Serve what the directory's nodes keep.

        Args:
            directory: who can be spoken to, and who leads.
            random: tosses the coin that picks a follower.
            session_timeout_s: after how much cluster time without a write the cluster forgets a session.

        Raises:
            ValueError: the time-out is out of its range.

        """
        check_timeout(session_timeout_s)
        self._directory = directory
        self._reply_to = directory.join(self.deliver)
        self._session_timeout_s = session_timeout_s
        self._session = 0
        self._session_used_at = float("-inf")
        self._opening: Opening | None = None
        self._seq = 0
        self._number = 0
        self._writes: dict[int, PendingWrite] = {}
        """In the order of their seqs."""
        self._write_bytes = 0
        """What these weigh, and those that wait for a session."""
        self._reads: dict[int, PendingRead] = {}
        self._no_results: deque[NoResult] = deque()
        """Answers that `run` has to think about."""
        self._leader: tuple[int, int] | None = None
        self._wake = trio.Event()
        self._is_idle = True
        self._readers = Readers(random)
        self._is_gone = False
        """Whether no leader can come: the directories of a majority are gone."""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hand over again what was refused or lost, hedge reads, and end what is late."""
        unlisten = self._directory.listen(self._directory_changed)
        self._directory_changed()
        task_status.started()
        try:
            while True:
                await self._wait_work()
                self._look_after()
        finally:
            unlisten()
            self._directory.leave(self._reply_to)

    async def _wait_work(self) -> None:
        """Wait for trouble; with requests under way, at most until the next sweep."""
        self._is_idle = not self._writes and not self._reads
        sweep_s = math.inf if self._is_idle else HEDGE_S
        with trio.move_on_after(sweep_s):
            await self._wake.wait()
        self._is_idle = False
        self._wake = trio.Event()

    # The port

    async def write(self, operations: Sequence[AnyWrite | AnyQuery], *, timeout_s: float) -> Answer:
        """Carry out a run with writes in it. See `Store`."""
        deadline = trio.current_time() + timeout_s
        run = take_apart(operations)
        answer = await self._take_in(run, deadline)
        if answer.node:
            return answer
        refusal, reads = answer.replies[0], None
        if run.reads_go_on(refusal):
            left_s = deadline - trio.current_time()
            reads = await self.read(run.queries, timeout_s=left_s, is_stale=False, view=View())
        return run.end(refusal, reads)

    async def _take_in(self, run: Run, deadline: float) -> Answer:
        """Carry out a run, if there is room for it. Without a node in the answer, its one reply is for all writes."""
        if self._write_bytes and self._write_bytes + run.size_bytes > WRITE_BYTES_MAX:
            return refuse("overloaded", "too many bytes are waiting: try again later")
        if self._is_gone:
            return refuse("unavailable", GONE)
        self._write_bytes += run.size_bytes
        try:
            return await self._write(run, deadline)
        finally:
            self._write_bytes -= run.size_bytes

    async def _write(self, run: Run, deadline: float) -> Answer:
        count = len(run.writes)
        if self._needs_session():
            refusal = await self._ensure_session(deadline)
            if refusal is not None:
                return refusal
        if self._seq + count - self._first_awaited() >= REPLIES_MAX:
            # Beyond its window the session would refuse at apply, when a repeated attempt may already be
            # under way. Looked at behind the wait for a session, for many may have waited with this one.
            return refuse("overloaded", "too many requests are waiting: try again later")
        used_at = trio.current_time()
        session, seq, done = self._session, self._seq + 1, self._first_awaited()
        self._seq += count
        commands = [
            Write(session, seq + place, done, operation) for place, operation in enumerate(run.writes)
        ]
        self._number += 1
        task = trio.lowlevel.current_task()
        write = PendingWrite(self._number, session, seq, commands, run.places, run.size_bytes, deadline, task)
        if not self._hand_over(write):
            return Answer([_LEADER_FULL])
        self._writes[write.number] = write
        answer = await self._wait(write, self._writes)
        if answer.node and self._session == session:
            code = answer.replies[run.last_write].code
            if code == "session_expired":
                # Whatever the clocks here say, the cluster has forgotten it: what comes next needs another one.
                self._session = 0
            elif code != "overloaded":
                # Only what was applied keeps a session, and that was not before it was handed over.
                self._session_used_at = max(self._session_used_at, used_at)
        return answer

    async def read(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View
    ) -> Answer:
        """Let a follower answer queries. See `Store`."""
        if len(self._reads) >= READS_MAX:
            return refuse("overloaded", "too many requests are waiting: try again later", len(queries))
        if self._is_gone and not is_stale:
            return refuse("unavailable", GONE, len(queries))
        now = trio.current_time()
        self._number += 1
        task = trio.lowlevel.current_task()
        applied_min = view.applied if is_stale else 0
        read = PendingRead(self._number, queries, now + timeout_s, task, is_stale, applied_min, now + HEDGE_S)
        self._reads[read.number] = read
        self._readers.earn_hedge()
        self._ask(now, read, view.node if is_stale else 0)
        answer = await self._wait(read, self._reads)
        view.note(answer)
        if is_stale and answer.node:
            view.node = answer.node
        return answer

    def status(self) -> dict[str, object]:
        """Return what the cluster looks like. See `Store`."""
        return self._directory.status()

    # Sessions

    def _first_awaited(self) -> int:
        """Return the lowest seq of the session that still waits for its answer; the next one if none does."""
        for write in self._writes.values():
            if write.session == self._session:
                return write.first
        return self._seq + 1

    def _needs_session(self) -> bool:
        """Return whether to open a session: there is none, or the cluster may have forgotten it, unused for so long."""
        if not self._session:
            return True
        unused_s = trio.current_time() - self._session_used_at
        # Of its own writes alone: the opening of the next one is a write, too.
        return unused_s > self._session_timeout_s / 2 and self._first_awaited() > self._seq

    async def _ensure_session(self, deadline: float) -> Answer | None:
        """Wait for a new session, if the one there is may be forgotten soon; return the refusal if there is none."""
        with trio.move_on_at(deadline):
            while self._needs_session():
                opening = self._opening or self._open_session()
                await opening.ended.wait()
                if opening.refusal is not None:
                    return Answer([opening.refusal])
                if self._session:
                    # However long it took: to wait for a younger one could go on for ever.
                    break
            return None
        return refuse("unavailable", "no leader answered in time: nothing was written")

    def _open_session(self) -> Opening:
        """Begin to open a session. It goes on even if no client waits for it any more."""
        self._opening = opening = Opening(trio.current_time())
        self._number += 1
        command = OpenSession(round(self._session_timeout_s * 1_000_000))
        write = PendingWrite(self._number, None, 0, [command], (), OPERATION_BYTES, math.inf, None)
        if self._hand_over(write):
            self._writes[write.number] = write
            self._look_after_soon()
        else:
            self._end_opening(_LEADER_FULL)
        return opening

    def _end_opening(self, reply: Reply) -> None:
        """Use the session that was opened, or tell those who wait why there is none."""
        opening, self._opening = self._opening, None
        assert opening is not None
        if reply.code == "ok":
            self._session, self._seq, self._session_used_at = reply.revision, 0, opening.used_at
        else:
            opening.refusal = reply
        opening.ended.set()

    # Writes

    def _hand_over(self, write: PendingWrite) -> bool:
        """Give a write to the leader, if one is known; return whether its queue had room."""
        leader = self._directory.leader()
        if leader is None:
            return True
        propose = Propose(self._reply_to, write.number, write.commands, write.size_bytes, write.places)
        if not leader.submit(propose):
            return False
        write.handed_to = (leader.status.node, leader.status.term)
        write.retry_at = trio.current_time() + (OPENING_RETRY_S if write.task is None else RETRY_S)
        write.unresolved += 1
        return True

    # Reads

    def _ask(self, now: float, read: PendingRead, kept: int = 0) -> None:
        """Ask one more node: the kept one, or any that was not asked yet and does not rest, followers first."""
        chosen = self._readers.choose(now, read.asked, kept)
        if chosen is None:
            return
        if chosen.submit(Read(self._reply_to, read.number, read.queries, read.is_stale, read.applied_min)):
            read.asked.append(chosen.status.node)
            self._readers.was_asked(now, chosen.status.node)

    # Answers

    def deliver(self, answer: NodeAnswer) -> None:
        """Take a node's answer. Called in the node's task: must neither raise nor take long."""
        if isinstance(answer, Done):
            self._readers.was_answered(answer.node)
            waiting: dict[int, Any] = self._writes if answer.number in self._writes else self._reads
            request = waiting.get(answer.number)
            if request is not None:
                self._end(waiting, request, Answer(answer.replies, answer.node, answer.term, answer.applied))
        else:
            self._no_results.append(answer)
            self._wake.set()

    def _end(self, waiting: dict[int, Any], request: PendingWrite | PendingRead, answer: Answer) -> None:
        del waiting[request.number]
        if request.task is None:
            self._end_opening(answer.replies[0])
            return
        request.answer = answer
        trio.lowlevel.reschedule(request.task)

    async def _wait(self, request: PendingWrite | PendingRead, waiting: dict[int, Any]) -> Answer:
        def abort(_: object) -> trio.lowlevel.Abort:
            del waiting[request.number]
            return trio.lowlevel.Abort.SUCCEEDED

        self._look_after_soon()
        await trio.lowlevel.wait_task_rescheduled(abort)
        assert request.answer is not None
        return request.answer

    def _look_after_soon(self) -> None:
        """Let `run` know that there is something under way."""
        if self._is_idle:
            self._wake.set()

    def _directory_changed(self) -> None:
        """Note who can be asked; wake `run` if somebody else leads."""
        self._readers.update(self._directory.readable())
        self._is_gone = self._directory.is_majority_gone
        leader = self._directory.leader()
        identity = (leader.status.node, leader.status.term) if leader else None
        if identity != self._leader:
            self._leader = identity
            self._wake.set()

    # What `run` does

    def _look_after(self) -> None:
        now = trio.current_time()
        while self._no_results:
            self._on_no_result(now, self._no_results.popleft())
        for write in list(self._writes.values()):
            if now >= write.deadline:
                self._end_late_write(write)
            elif write.handed_to != self._leader or (write.handed_to and now >= write.retry_at):
                # Somebody else leads now, or there was no answer: ask (again), under the same seq.
                self._hand_over(write)
        for read in list(self._reads.values()):
            if now >= read.deadline:
                late = "no node could confirm the read in time"
                self._end(self._reads, read, refuse("unavailable", late, len(read.queries)))
            elif now >= read.hedge_at:
                self._hedge(now, read)

    def _on_no_result(self, now: float, answer: NoResult) -> None:
        """Deal with a node that could not do what it was asked."""
        write, read = self._writes.get(answer.number), self._reads.get(answer.number)
        if write is not None:
            self._on_no_write(now, write, answer)
        elif read is not None:
            if answer.node in read.asked:
                read.asked.remove(answer.node)
            if not read.asked:
                if isinstance(answer, Refused):
                    read.hedge_at = min(read.hedge_at, now + HEDGE_S)
                else:
                    self._ask(now, read)

    def _on_no_write(self, now: float, write: PendingWrite, answer: NoResult) -> None:
        has_no_effect = isinstance(answer, Refused | Full)
        if has_no_effect:
            write.unresolved = max(0, write.unresolved - 1)
        if isinstance(answer, Full) and not write.unresolved:
            full = "the disks of a majority are full: nothing was written"
            self._end(self._writes, write, refuse("read_only", full))
        elif write.handed_to is not None and write.handed_to[0] == answer.node:
            if has_no_effect:
                # It may lead on and refuse again, as long as it hands leadership over, say: asked again at
                # once, both would do nothing else.
                write.retry_at = min(write.retry_at, now + HEDGE_S)
            else:
                write.handed_to = None
                self._hand_over(write)

    def _hedge(self, now: float, read: PendingRead) -> None:
        """Ask another node too, and let the slow one rest."""
        read.hedge_at = now + HEDGE_S
        if read.asked:
            self._readers.rest(now, read.asked[-1])
            if not self._readers.pay_hedge():
                return
        self._ask(now, read)

    def _end_late_write(self, write: PendingWrite) -> None:
        if write.unresolved:
            answer = refuse("timeout", "no answer in time: the write may or may not take effect")
        else:
            answer = refuse("unavailable", "no leader took the write in time: nothing was written")
        self._end(self._writes, write, answer)
