"""The store that a cluster of ours is: sessions, retries, hedged reads and error classes, in one place.

**Writes** go out under one session of the gateway, each with a seq of its own, and are repeated under that same seq
until there is an answer: whichever attempt takes effect first, the others find its reply (thesis §6.3). A definite
error is possible only as long as no attempt can take effect: none was handed over, or each node that had one says that
it did not append. After that there is the result, `timeout` or `session_expired`, and no attempt under another session.

**Reads** have no effect, so several nodes may be asked: another one each 20 ms, and the first answer wins. Those that
stand beside writes in a run go with them to the leader, which answers each in its place (decision 0027).

**Nodes** are known by their port alone (`replica.port`), so they may run in any process. Their answers come straight
into `deliver`, which calls back the connection that waits; what takes thought is left to `run`. There is no timer and
no task a request: one sweep looks after all of them, and sleeps when there are none.

**A session** is opened when the first write needs one, one at a time. The opening goes on even if every client that
waits for it gives up: with time-outs shorter than a commit no session would ever be opened otherwise.

Limits: as many writes wait here as a session keeps answers for, of as many bytes as a leader takes, and `READS_MAX`
runs of reads; beyond that `overloaded`.
"""

import math
from collections import deque
from collections.abc import Sequence
from random import Random

import trio

from trio_kv.gateway.calls import AwaitedCalls
from trio_kv.gateway.own_session import OwnSession
from trio_kv.gateway.pending import Opening, PendingRead, PendingWrite
from trio_kv.gateway.readers import Readers
from trio_kv.gateway.runs import OPENING, refuse, take_apart
from trio_kv.gateway.store import Answer, OnAnswer, View
from trio_kv.kv.operations import AnyQuery, AnyWrite
from trio_kv.kv.reply import Reply
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
FULL = "the disks of a majority are full: nothing was written"
UNKNOWN = "no answer in time: the write may or may not take effect"
LATE = "no leader took the write in time: nothing was written"
_LEADER_FULL = refuse("overloaded", "the leader's queue is full: try again later")


class RaftStore(AwaitedCalls):
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
        self._session = OwnSession(session_timeout_s)
        self._directory = directory
        self._reply_to = directory.join(self.deliver)
        self._opening: Opening | None = None
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

    def start_write(
        self, operations: Sequence[AnyWrite | AnyQuery], *, timeout_s: float, done: OnAnswer
    ) -> Answer | object:
        """Carry out a run with writes in it. See `Store`."""
        self._number += 1
        run = take_apart(operations)
        write = PendingWrite(self._number, run, trio.current_time() + timeout_s, done)
        refusal = self._take_in(write)
        self._look_after_soon()
        return write if refusal is None else self._conclude(write, refusal)

    def start_read(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View, done: OnAnswer
    ) -> Answer | object:
        """Let a follower answer queries. See `Store`."""
        if len(self._reads) >= READS_MAX:
            return refuse("overloaded", "too many requests are waiting: try again later", len(queries))
        if self._is_gone and not is_stale:
            return refuse("unavailable", GONE, len(queries))
        now = trio.current_time()
        self._number += 1
        applied_min, kept = (view.applied, view.node) if is_stale else (0, 0)
        read = PendingRead(
            self._number, queries, now + timeout_s, done, is_stale, applied_min, view, now + HEDGE_S
        )
        self._reads[read.number] = read
        self._readers.earn_hedge()
        self._ask(now, read, kept)
        self._look_after_soon()
        return read

    def cancel(self, call: PendingWrite | PendingRead) -> None:
        """Let nobody hear the answer to a call. See `Store`."""
        if isinstance(call, PendingRead):
            self._reads.pop(call.number, None)
        elif call.reads is not None:
            self.cancel(call.reads)
        else:
            self._forget(call)

    def status(self) -> dict[str, object]:
        """Return what the cluster looks like. See `Store`."""
        return self._directory.status()

    # Sessions

    def _first_awaited(self) -> int:
        """Return the lowest seq of the session that still waits for its answer; the next one if none does."""
        for write in self._writes.values():
            if write.session == self._session.id:
                return write.first
        return self._session.seq + 1

    def _needs_session(self, now: float) -> bool:
        # Of its own writes alone: the opening of the next one is a write, too.
        return self._session.is_needed(now, is_idle=self._first_awaited() > self._session.seq)

    def _open_session(self) -> Answer | None:
        """Begin to open a session, also if no client waits for it any more; return the refusal if that can't be."""
        self._number += 1
        write = PendingWrite(self._number, OPENING, math.inf, None, [self._session.opening])
        if not self._hand_over(write):
            return _LEADER_FULL
        self._opening = Opening(trio.current_time())
        self._writes[write.number] = write
        return None

    def _end_opening(self, reply: Reply) -> None:
        """Use the session that was opened, however long it took, or tell those who wait why there is none."""
        opening, self._opening = self._opening, None
        assert opening is not None
        if reply.code == "ok":
            self._session.opened(reply.revision, opening.used_at)
        for write in list(opening.waiting.values()):
            answer = self._begin(write) if reply.code == "ok" else Answer([reply])
            if answer is not None:
                self._end_write(write, answer)

    # Writes

    def _take_in(self, write: PendingWrite) -> Answer | None:
        """Begin with a run, or let it wait for a session; return the refusal of its writes if it is refused."""
        size_bytes = write.run.size_bytes
        if self._write_bytes and self._write_bytes + size_bytes > WRITE_BYTES_MAX:
            return refuse("overloaded", "too many bytes are waiting: try again later")
        if self._is_gone:
            return refuse("unavailable", GONE)
        if not self._needs_session(trio.current_time()):
            refusal = self._begin(write)
        else:
            refusal = None if self._opening else self._open_session()
            if self._opening is not None:
                self._opening.waiting[write.number] = write
        if refusal is None:
            self._write_bytes += size_bytes
        return refusal

    def _begin(self, write: PendingWrite) -> Answer | None:
        """Number the writes of a run and hand them over; return the refusal if they can't be."""
        session, writes, now = self._session, write.run.writes, trio.current_time()
        if now >= write.deadline:
            return refuse("unavailable", LATE)
        first_awaited = self._first_awaited()
        if not session.has_room(len(writes), first_awaited):
            # Looked at behind the wait for a session, for many may have waited with this one.
            return refuse("overloaded", "too many requests are waiting: try again later")
        write.session, write.first, write.used_at = session.id, session.seq + 1, now
        write.commands = session.number(writes, first_awaited)
        if not self._hand_over(write):
            return _LEADER_FULL
        self._writes[write.number] = write
        return None

    def _conclude(self, write: PendingWrite, answer: Answer) -> Answer | PendingRead:
        """Return what a run hears, given the answer to its writes; or its reads, which go on alone.

        Args:
            write: the run.
            answer: without a node it holds one reply, which is for all writes.

        """
        run = write.run
        if not answer.node:
            (refusal,) = answer.replies
            if not run.reads_go_on(refusal):
                return run.end(refusal)
            done, left_s = write.done, write.deadline - trio.current_time()
            assert done is not None
            reads = self.start_read(
                run.queries,
                timeout_s=left_s,
                is_stale=False,
                view=View(),
                done=lambda answer: done(run.end(refusal, answer)),
            )
            return reads if isinstance(reads, PendingRead) else run.end(refusal, reads)  # type: ignore[arg-type]
        if self._session.id == write.session:
            self._session.heard(answer.replies[run.last_write], write.used_at)
        return answer

    def _hand_over(self, write: PendingWrite) -> bool:
        """Give a write to the leader, if one is known; return whether its queue had room."""
        leader = self._directory.leader()
        if leader is None:
            return True
        run = write.run
        propose = Propose(self._reply_to, write.number, write.commands, run.size_bytes, run.places)
        if not leader.submit(propose):
            return False
        write.handed_to = (leader.status.node, leader.status.term)
        write.retry_at = trio.current_time() + (OPENING_RETRY_S if write.done is None else RETRY_S)
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
        if not isinstance(answer, Done):
            self._no_results.append(answer)
            self._wake.set()
            return
        self._readers.was_answered(answer.node)
        found = Answer(answer.replies, answer.node, answer.term, answer.applied)
        if answer.number in self._writes:
            self._end_write(self._writes[answer.number], found)
        elif answer.number in self._reads:
            self._end_read(self._reads[answer.number], found)

    def _end_write(self, write: PendingWrite, answer: Answer) -> None:
        self._forget(write)
        if write.done is None:
            self._end_opening(answer.replies[0])
            return
        concluded = self._conclude(write, answer)
        if isinstance(concluded, Answer):
            write.done(concluded)
        else:
            write.reads = concluded

    def _forget(self, write: PendingWrite) -> None:
        """Wait for a run no more."""
        if self._opening is not None:
            self._opening.waiting.pop(write.number, None)
        self._writes.pop(write.number, None)
        if write.done is not None:
            self._write_bytes -= write.run.size_bytes

    def _end_read(self, read: PendingRead, answer: Answer) -> None:
        del self._reads[read.number]
        read.view.note(answer)
        if read.is_stale and answer.node:
            read.view.node = answer.node
        read.done(answer)

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
        for write in list(self._opening.waiting.values()) if self._opening else ():
            if now >= write.deadline:
                self._end_late_write(write)
        for write in list(self._writes.values()):
            if now >= write.deadline:
                self._end_late_write(write)
            elif write.handed_to != self._leader or (write.handed_to and now >= write.retry_at):
                # Somebody else leads now, or there was no answer: ask (again), under the same seq.
                self._hand_over(write)
        for read in list(self._reads.values()):
            if now >= read.deadline:
                late = "no node could confirm the read in time"
                self._end_read(read, refuse("unavailable", late, len(read.queries)))
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
            self._end_write(write, refuse("read_only", FULL))
        elif write.handed_to is not None and write.handed_to[0] == answer.node:
            if has_no_effect:
                # While it hands over, say, it refuses again and again: asked at once, both would do nothing else.
                write.retry_at = min(write.retry_at, now + HEDGE_S)
            else:
                write.handed_to = None
                self._hand_over(write)

    def _hedge(self, now: float, read: PendingRead) -> None:
        """Ask another node too, and let the slow one rest."""
        read.hedge_at = now + HEDGE_S
        if read.asked and (read.is_given_time(now) or not self._readers.may_hedge(now, read.asked[-1])):
            return
        self._ask(now, read)

    def _end_late_write(self, write: PendingWrite) -> None:
        late = ("timeout", UNKNOWN) if write.unresolved else ("unavailable", LATE)
        self._end_write(write, refuse(*late))
