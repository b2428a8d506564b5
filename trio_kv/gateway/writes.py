"""The writes of a store that a cluster of ours is: each takes effect once, and is told right.

They go out under one session of the gateway, each with a seq of its own, or under a session and seq of the client if
it told them (`client_sessions`), and are repeated under that same seq until there is an answer: whichever attempt takes
effect first, the others find its reply (thesis §6.3). A definite error is possible only as long as no attempt can take
effect: none was handed over, or each node that had one says that it did not append. After that there is the result,
`timeout` or `session_expired`, and no attempt under another session.

A session is opened when the first write needs one, one at a time. The opening goes on even if every client that
waits for it gives up: with time-outs shorter than a commit no session would ever be opened otherwise.

Limits: as many writes wait here as a session keeps answers for, of as many bytes as a leader takes; beyond that
`overloaded`.
"""

import math
from collections.abc import Callable
from random import Random
from typing import Any

import trio

from trio_kv.gateway.client_sessions import Asked, ClientSessions, retell
from trio_kv.gateway.own_session import OwnSession
from trio_kv.gateway.pending import Opening, PendingRead, PendingWrite
from trio_kv.gateway.reads import Reads
from trio_kv.gateway.runs import GONE, HEDGE_S, OPENING, Run, refuse
from trio_kv.gateway.store import Answer, OnAnswer, View
from trio_kv.kv.commands import Command
from trio_kv.kv.reply import Reply
from trio_kv.replica.port import NodeHandle
from trio_kv.wire.node_port import WRITE_BYTES_MAX, Full, NoResult, Propose, Refused, ReplyTo

RETRY_S = 1.0
"""A write not answered within this time is handed over again: the request or its answer may have been lost."""
OPENING_RETRY_S = 10.0
"""The same for the opening of a session, each attempt of which may open one."""
FULL = "the disks of a majority are full: nothing was written"
UNKNOWN = "no answer in time: the write may or may not take effect"
LATE = "no leader took it in time: nothing was written"
_LEADER_FULL = refuse("overloaded", "the leader's queue is full: try again later")


class Writes:
    """The runs with writes in them that are under way, and the session under which they go out.

    Args:
        reply_to: who asks.
        next_number: gives each request a number of its own.
        reads: where the reads of a run go on whose writes are refused.
        session_timeout_s: after how much cluster time without a write the cluster forgets a session.
        secrets: draws what nobody can guess.

    """

    def __init__(
        self,
        reply_to: ReplyTo,
        next_number: Callable[[], int],
        reads: Reads,
        *,
        session_timeout_s: float,
        secrets: Random,
    ) -> None:
        """Have none under way; see the class. Raises ValueError: the time-out is out of its range."""
        self.pending: dict[int, PendingWrite] = {}
        """By number, in the order of their seqs."""
        self.is_gone = False
        """Whether no leader can come: the directories of a majority are gone."""
        self.now: Callable[[], float] = trio.current_time
        """The clock of the run."""
        self._leader: NodeHandle | None = None
        """Whom to hand them to."""
        self._leader_term: tuple[int, int] | None = None
        """(node, term) of it."""
        self._session = OwnSession(session_timeout_s)
        self._clients = ClientSessions(secrets, session_timeout_s)
        self._reply_to = reply_to
        self._next_number = next_number
        self._reads = reads
        self._opening: Opening | None = None
        self._size_bytes = 0
        """What those weigh that are under way, and those that wait for a session."""

    def update(self, leader: NodeHandle | None) -> bool:
        """Hand them to this node from now on; return whether it is another one, or leads another term."""
        before, self._leader = self._leader_term, leader
        self._leader_term = (leader.status.node, leader.status.term) if leader else None
        return self._leader_term != before

    def start(self, run: Run, timeout_s: float, done: OnAnswer) -> Answer | object:
        """Carry out a run with writes in it. See `Store`."""
        now = self.now()
        write = PendingWrite(self._next_number(), run, now + timeout_s, done)
        for place, place_of_write in run.of_clients:
            operation: Any = run.operations[place]
            write.of_clients.append(Asked(place, place_of_write, self._clients.command_of(operation)))
        refusal = self._take_in(now, write)
        return write if refusal is None else self._conclude(write, refusal)

    def cancel(self, write: PendingWrite) -> None:
        """Let nobody hear the answer to a run. See `Store`."""
        if write.reads is not None:
            self._reads.forget(write.reads)
        else:
            self._forget(write)

    def end(self, write: PendingWrite, answer: Answer) -> None:
        """Tell the answer to whoever waits for it."""
        self._forget(write)
        if write.done is None:
            self._end_opening(answer.replies[0])
            return
        concluded = self._conclude(write, answer)
        if isinstance(concluded, Answer):
            write.done(concluded)
        else:
            write.reads = concluded

    def on_no_result(self, now: float, write: PendingWrite, answer: NoResult) -> None:
        """Deal with a node that could not do what it was asked."""
        has_no_effect = isinstance(answer, Refused | Full)
        if has_no_effect:
            write.unresolved = max(0, write.unresolved - 1)
        if isinstance(answer, Full) and not write.unresolved:
            self.end(write, refuse("read_only", FULL))
        elif write.handed_to is not None and write.handed_to[0] == answer.node:
            if has_no_effect:
                # While it hands over, say, it refuses again and again: asked at once, both would do nothing else.
                write.retry_at = min(write.retry_at, now + HEDGE_S)
            else:
                write.handed_to = None
                self._hand_over(now, write)

    def look_after(self, now: float) -> None:
        """End what is late, and hand over again what was lost, or what another node leads now."""
        for write in list(self._opening.waiting.values()) if self._opening else ():
            if now >= write.deadline:
                self._end_late(write)
        for write in list(self.pending.values()):
            if now >= write.deadline:
                self._end_late(write)
            elif write.handed_to != self._leader_term or (write.handed_to and now >= write.retry_at):
                # Somebody else leads now, or there was no answer: ask (again), under the same seq.
                self._hand_over(now, write)

    # The session

    def _first_awaited(self) -> int:
        """Return the lowest seq of the session that still waits for its answer; the next one if none does."""
        for write in self.pending.values():
            if write.session == self._session.id:
                return write.first
        return self._session.seq + 1

    def _needs_session(self, now: float) -> bool:
        # Of its own writes alone: the opening of the next one is a write, too.
        return self._session.is_old(now) and self._first_awaited() > self._session.seq

    def _open_session(self, now: float) -> Answer | None:
        """Begin to open a session, also if no client waits for it any more; return the refusal if that can't be."""
        write = PendingWrite(self._next_number(), OPENING, math.inf, None, [self._session.opening])
        if not self._hand_over(now, write):
            return _LEADER_FULL
        self._opening = Opening(now)
        self.pending[write.number] = write
        return None

    def _end_opening(self, reply: Reply) -> None:
        """Use the session that was opened, however long it took, or tell those who wait why there is none."""
        opening, self._opening = self._opening, None
        assert opening is not None
        now = trio.current_time()
        if reply.code == "ok":
            self._session.opened(reply.revision, opening.used_at)
        for write in list(opening.waiting.values()):
            answer = self._begin(now, write) if reply.code == "ok" else Answer([reply])
            if answer is not None:
                self.end(write, answer)

    # A run

    def _take_in(self, now: float, write: PendingWrite) -> Answer | None:
        """Begin with a run, or let it wait for a session; return the refusal of its writes if it is refused."""
        run = write.run
        size_bytes = run.size_bytes
        if self._size_bytes and self._size_bytes + size_bytes > WRITE_BYTES_MAX:
            return refuse("overloaded", "too many bytes are waiting: try again later")
        if self.is_gone:
            return refuse("unavailable", GONE)
        if not (run.own and self._needs_session(now)):
            refusal = self._begin(now, write)
        else:
            refusal = None if self._opening else self._open_session(now)
            if self._opening is not None:
                self._opening.waiting[write.number] = write
        if refusal is None:
            self._size_bytes += size_bytes
        return refusal

    def _begin(self, now: float, write: PendingWrite) -> Answer | None:
        """Number the writes of a run and hand them over; return the refusal if they can't be."""
        session, own = self._session, write.run.own
        if now >= write.deadline:
            return refuse("unavailable", LATE)
        commands: list[Command] = []
        if own:
            first_awaited = self._first_awaited()
            if not session.has_room(len(own), first_awaited):
                # Looked at behind the wait for a session, for many may have waited with this one.
                return refuse("overloaded", "too many requests are waiting: try again later")
            write.session, write.first, write.used_at = session.id, session.seq + 1, now
            commands += session.number(own, first_awaited)
        for asked in write.of_clients:
            commands.insert(asked.place_of_write, asked.command)
        write.commands = commands
        if not self._hand_over(now, write):
            return _LEADER_FULL
        self.pending[write.number] = write
        return None

    def _hand_over(self, now: float, write: PendingWrite) -> bool:
        """Give a write to the leader, if one is known; return whether its queue had room."""
        leader = self._leader
        if leader is None:
            return True
        run = write.run
        propose = Propose(self._reply_to, write.number, write.commands, run.size_bytes, run.places)
        if not leader.submit(propose):
            return False
        write.handed_to = self._leader_term
        write.retry_at = now + (OPENING_RETRY_S if write.done is None else RETRY_S)
        write.unresolved += 1
        return True

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
            reads = self._reads.start(
                run.queries,
                timeout_s=left_s,
                is_stale=False,
                view=View(),
                done=lambda answer: done(run.end(refusal, answer)),
            )
            return reads if isinstance(reads, PendingRead) else run.end(refusal, reads)
        if write.of_clients:
            answer = retell(answer, write.of_clients, is_sure=write.unresolved == 1)
        if self._session.id == write.session:
            self._session.heard(answer.replies[run.last_write], write.used_at)
        return answer

    def _end_late(self, write: PendingWrite) -> None:
        late = ("timeout", UNKNOWN) if write.unresolved else ("unavailable", LATE)
        self.end(write, refuse(*late))

    def _forget(self, write: PendingWrite) -> None:
        """Wait for a run no more."""
        if self._opening is not None:
            self._opening.waiting.pop(write.number, None)
        self.pending.pop(write.number, None)
        if write.done is not None:
            self._size_bytes -= write.run.size_bytes
