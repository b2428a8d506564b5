"""Client sessions: what makes a command take effect once, however often its owner asks (thesis §6.3).

A session is opened by an entry and its id is that entry's index. Its owner numbers its commands and says
with each one the lowest number whose answer it still awaits (`done`). The session keeps the answers from
there on, so that a repeated number gets its first answer; below there it refuses, because it can't know any
more whether that command was applied. Numbers may arrive in any order: the ones of a run can overtake each
other between two leaders.

A session dies only by an `Expire` entry whose cluster time has reached its due time: the time of its last
use plus its time-out. No node decides anything from its own clock, so all forget the same sessions at the
same index.

An answer may hold the text of a value: what a condition met, or what a delete removed. Such a text is shared with
the key as long as it is there, and with other answers. It is counted once a session, in bytes, from the first answer
that holds it to the last, and where a session or all of them hold too much, no further answer may come to hold one.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self

import attrs

from trio_kv.kv.reply import Origin, Reply

REPLIES_MAX = 65_536
"""Answers that one session keeps. When it is full, a new command is not applied and hears `overloaded`."""

TIMEOUT_MIN_S = 0.1
TIMEOUT_MAX_S = 31_536_000.0
"""A session's time-out: up to a year, which is far from where microseconds do not fit into an entry any more."""

HELD_BYTES_MAX = 64 << 20
"""Bytes of texts from which on the answers of one session hold no further one: a command whose answer might is not
applied and hears `overloaded`, and so does each repetition of it."""

SMALL_TEXT_BYTES_MAX = 512
"""A text of up to so many bytes finds room always: `REPLIES_MAX` of them are 32 MiB. Else those who work with small
values would have to wait because of others, under the same session, who work with large ones."""

ALL_HELD_BYTES_MAX = 256 << 20
"""The same for the answers of all sessions together."""

SESSIONS_MAX = 65_536
"""Open sessions. When there are that many, a new one is not opened and its owner hears `overloaded`."""

UNKNOWN_SESSION = Reply(
    "session_expired", message="this session is not known: it was never opened, or forgotten"
)
FORGOTTEN_SEQ = Reply(
    "session_expired", message="the answer to this seq was forgotten: its owner said that it had it (done)"
)
FULL_SESSION = Reply(
    "overloaded", message=f"this session awaits {REPLIES_MAX} answers, and may not await more"
)
FULL_OF_TEXTS = Reply("overloaded", message="too many large values wait in answers: try again later")
TOO_MANY_SESSIONS = Reply(
    "overloaded", message=f"{SESSIONS_MAX} sessions are open, and there may not be more"
)


def check_timeout(timeout_s: float) -> None:
    """Refuse a time-out of a session that no entry can hold, or that forgets it as soon as it is opened.

    Raises:
        ValueError: it is out of its range; the text tells that.

    """
    if not TIMEOUT_MIN_S <= timeout_s <= TIMEOUT_MAX_S:
        range_s = f"{TIMEOUT_MIN_S:g} to {TIMEOUT_MAX_S:.15g}"
        raise ValueError(f"a session's time-out is {range_s} seconds, not {timeout_s:.15g}")


@attrs.define
class _HeldText:
    """A text that answers of a session hold."""

    origin: Origin
    """One object for all of them: a key may be long."""
    size_bytes: int
    answers: int
    """How many of them."""


class Session:
    """One session. A plain class with slots: it is looked into for every write.

    Invariants: every seq in `replies` is `done` or above; at most `REPLIES_MAX` of them; `origins` has the seqs of the
    replies with a value; `held_bytes` is the sum of the sizes of the different texts among these.
    """

    __slots__ = ("_texts", "done", "held_bytes", "origins", "replies", "timeout_us", "used_us")

    def __init__(self, timeout_us: int, used_us: int, done: int = 0) -> None:
        """Make a session last used at cluster time `used_us`."""
        self.timeout_us = timeout_us
        self.used_us = used_us
        self.done = done
        """The highest `done` its owner ever said."""
        self.replies: dict[int, Reply] = {}
        self.origins: dict[int, Origin] = {}
        """Where the value of a reply comes from, by seq."""
        self.held_bytes = 0
        self._texts: dict[Origin, _HeldText] = {}

    @property
    def due_us(self) -> int:
        """Cluster time from which on an `Expire` entry forgets this session."""
        return self.used_us + self.timeout_us

    def hold(self, seq: int, origin: Origin, size_bytes: int) -> int:
        """Count the value of the reply to `seq`; return by how many bytes the session holds more."""
        text = self._texts.get(origin)
        if text is not None:
            self.origins[seq] = text.origin
            text.answers += 1
            return 0
        self.origins[seq] = origin
        self._texts[origin] = _HeldText(origin, size_bytes, 1)
        self.held_bytes += size_bytes
        return size_bytes

    def forget_below(self, done: int) -> int:
        """Drop the answers to seqs below `done`, which is higher than what was said before.

        Returns:
            by how many bytes the session holds less.

        """
        replies, before = self.replies, self.done
        self.done = done
        if done == before + 1 and not self.origins:
            # With many clients that write one by one it is nearly always so.
            replies.pop(before, None)
            return 0
        gone: Iterable[int] = range(before, done)
        if done - before > len(replies):
            gone = [seq for seq in replies if seq < done]
        for seq in gone:
            replies.pop(seq, None)
        return self._let_go(gone) if self.origins else 0

    def _let_go(self, seqs: Iterable[int]) -> int:
        """Count no more what the answers to these seqs held; return by how many bytes that is less."""
        before_bytes = self.held_bytes
        for seq in seqs:
            origin = self.origins.pop(seq, None)
            if origin is None:
                continue
            text = self._texts[origin]
            text.answers -= 1
            if not text.answers:
                del self._texts[origin]
                self.held_bytes -= text.size_bytes
        return before_bytes - self.held_bytes

    def refuse(self, seq: int) -> Reply | None:
        """Return why a command that has no answer yet must not be applied; None if it is to be applied."""
        if seq < self.done:
            return FORGOTTEN_SEQ
        if len(self.replies) >= REPLIES_MAX:
            return FULL_SESSION
        return None

    def copy(self) -> "Session":
        """Return a session that changes on its own."""
        twin = Session(self.timeout_us, self.used_us, self.done)
        twin.replies, twin.origins = self.replies.copy(), self.origins.copy()
        twin.held_bytes = self.held_bytes
        twin._texts = {origin: attrs.evolve(text) for origin, text in self._texts.items()}
        return twin


class _CopiedOnUse(dict[int, Session]):
    """Sessions of which some are still shared with a snapshot under way.

    Whoever changes a session has it from `get`, so there it stops being shared.
    """

    __slots__ = ("_frozen",)

    def __init__(self, frozen: dict[int, Session]) -> None:
        """Share all of them."""
        super().__init__(frozen)
        self._frozen = frozen

    def get(self, session_id: int, default: Any = None, /) -> Any:
        """Return a session to use and change."""
        session = super().get(session_id)
        if session is None:
            return default
        if session is self._frozen.get(session_id):
            session = self[session_id] = session.copy()
        return session


class Sessions:
    """All open sessions, in the order in which they were opened.

    The earliest due time is found with a heap that is put right only when it is asked: using a session
    touches nothing but the session. Invariants: each open session has exactly one item in the heap, and its
    time there is at most the session's due time; a session is only changed by who has it from `by_id.get`; `held_bytes`
    is the sum of what the sessions hold.
    """

    __slots__ = ("_heap", "by_id", "held_bytes")

    def __init__(self) -> None:
        """Start without a session."""
        self.by_id: dict[int, Session] = {}
        self.held_bytes = 0
        self._heap: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.by_id)

    def __iter__(self) -> Iterator[tuple[int, Session]]:
        return iter(self.by_id.items())

    def add(self, session_id: int, session: Session) -> None:
        """Take in a session that was just opened or comes from a snapshot."""
        self.by_id[session_id] = session
        self.held_bytes += session.held_bytes
        heapq.heappush(self._heap, (session.due_us, session_id))

    def open(self, session_id: int, timeout_us: int, time_us: int) -> Reply:
        """Open a session, first used now (`time_us`, cluster time)."""
        if len(self.by_id) >= SESSIONS_MAX:
            return TOO_MANY_SESSIONS
        self.add(session_id, Session(timeout_us, time_us))
        return Reply("ok", revision=session_id)

    def renew(self, session_id: int, time_us: int, revision: int) -> Reply:
        """Use a session at cluster time `time_us` without writing; `revision` is the entry's index."""
        session = self.by_id.get(session_id)
        if session is None:
            return UNKNOWN_SESSION
        session.used_us = time_us
        return Reply("ok", revision=revision)

    def keep(self, session: Session, seq: int, reply: Reply, origin: Origin) -> None:
        """Let a session keep a reply with a value, which comes from there."""
        assert reply.value is not None
        session.replies[seq] = reply
        self.held_bytes += session.hold(seq, origin, len(reply.value))

    def has_room(self, session: Session, size_bytes: int) -> bool:
        """Tell whether an answer of a session may come to hold a value of that size; one of none may always."""
        if size_bytes <= SMALL_TEXT_BYTES_MAX:
            return True
        return session.held_bytes < HELD_BYTES_MAX and self.held_bytes < ALL_HELD_BYTES_MAX

    def forget_first(self) -> int:
        """Forget the session that is due first; return its id. Asked right after `expires_at_us`, which told one."""
        _, session_id = heapq.heappop(self._heap)
        self.held_bytes -= self.by_id.pop(session_id).held_bytes
        return session_id

    def expires_at_us(self) -> int | None:
        """Return the earliest cluster time at which a session is due; None without a session."""
        heap = self._heap
        while heap:
            noted_us, session_id = heap[0]
            due_us = self.by_id[session_id].due_us
            if due_us == noted_us:
                return due_us
            # The session was used since: its due time only ever grows, so its place is further down.
            heapq.heapreplace(heap, (due_us, session_id))
        return None

    def freeze(self) -> Mapping[int, Session]:
        """Return the sessions as they are now, and let each be copied when it is next used, until `thaw`.

        Copying all of them at once would take 0.1 s when there are as many as there may be.
        """
        frozen = self.by_id
        self.by_id = _CopiedOnUse(frozen)
        return frozen

    def thaw(self) -> None:
        """Stop copying: nobody reads what `freeze` returned any more."""
        self.by_id = dict(self.by_id)

    def copy(self) -> Self:
        """Return sessions that change on their own."""
        twin = type(self)()
        for session_id, session in self.by_id.items():
            twin.add(session_id, session.copy())
        return twin
