"""Client sessions: what makes a command take effect once, however often its owner asks (thesis §6.3).

A session is opened by an entry and its id is that entry's index. Its owner numbers its commands and says
with each one the lowest number whose answer it still awaits (`done`). The session keeps the answers from
there on, so that a repeated number gets its first answer; below there it refuses, because it can't know any
more whether that command was applied. Numbers may arrive in any order: the ones of a run can overtake each
other between two leaders.

A session dies only by an `Expire` entry whose cluster time has reached its due time: the time of its last
use plus its time-out. No node decides anything from its own clock, so all forget the same sessions at the
same index.

**A client may open a session of its own.** An index can be guessed, so such a session has a secret besides, and nothing
is done for who does not tell it: a session of a gateway has none, and is out of reach for clients. Its seqs are those
that the client gives its writes; beside each answer stands a digest of what was asked, so that another request under
the same seq is told apart from a repetition. Where a client does not say what it still awaits, that is the last
`SEQS_UNSAID` seqs below its highest.

An answer may hold the text of a value: what a condition met, or what a delete removed. Such a text is shared with
the key as long as it is there, and with other answers. It is counted once a session, in bytes, from the first answer
that holds it to the last, and where a session or all of them hold too much, no further answer may come to hold one.
"""

import heapq
from collections.abc import Iterator, Mapping
from typing import Any, Self

from msgspec import Raw

from trio_kv.kv.commands import ClientWrite, Write
from trio_kv.kv.reply import Origin, Reply
from trio_kv.kv.session import ClientSession, Session

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

CLIENT_HELD_BYTES_MAX = ALL_HELD_BYTES_MAX - HELD_BYTES_MAX
"""The same where the session is a client's: they leave room for the gateways, so that nobody who gives his writes no
numbers has to wait because of those who do."""

SESSIONS_MAX = 65_536
"""Open sessions. When there are that many, a new one is not opened and its owner hears `overloaded`."""

CLIENT_SESSIONS_MAX = SESSIONS_MAX - 1024
"""Those of clients among them: they leave room for the gateways, too, without which nobody could write."""

CLIENT_REPLIES_MAX = 4_194_304
"""Answers that all sessions of clients keep together: they take a few hundred bytes of memory each. When there are that
many, a new command of a client's session is not applied and hears `overloaded`."""

UNKNOWN_SESSION = Reply(
    "session_expired",
    message="this session is not known: it was forgotten, because no write and no renewal of it was applied for as "
    "long as its time-out, or it was never opened here",
)
FULL_OF_TEXTS = Reply("overloaded", message="too many large values wait in answers: try again later")
FULL_OF_REPLIES = Reply(
    "overloaded", message="sessions keep too many answers: say more often, by `done`, which ones you have"
)
TOO_MANY_SESSIONS = Reply(
    "overloaded", message=f"{CLIENT_SESSIONS_MAX} sessions are open, and there may not be more"
)


def check_timeout(timeout_s: float) -> None:
    """Refuse a time-out of a session that no entry can hold, or that forgets it as soon as it is opened.

    Raises:
        ValueError: it is out of its range; the text tells that.

    """
    if not TIMEOUT_MIN_S <= timeout_s <= TIMEOUT_MAX_S:
        range_s = f"{TIMEOUT_MIN_S:g} to {TIMEOUT_MAX_S:.15g}"
        raise ValueError(f"a session's time-out is {range_s} seconds, not {timeout_s:.15g}")


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
    is the sum of what the sessions hold; `by_secret` has those of clients, and `client_replies` is the number of all
    the replies that these keep.
    """

    __slots__ = ("_heap", "by_id", "by_secret", "client_replies", "held_bytes")

    def __init__(self) -> None:
        """Start without a session."""
        self.by_id: dict[int, Session] = {}
        self.by_secret: dict[str, int] = {}
        self.client_replies = 0
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
        if isinstance(session, ClientSession):
            self.by_secret[session.secret] = session_id
            self.client_replies += session.counted
        heapq.heappush(self._heap, (session.due_us, session_id))

    def open(self, session_id: int, timeout_us: int, time_us: int, secret: str = "") -> Reply:
        """Open a session, first used now (`time_us`, cluster time); one that is repeated renews what it has opened."""
        known = self.by_secret.get(secret)
        if known is not None:
            return self.renew(known, time_us, known, secret)
        if len(self.by_id) >= SESSIONS_MAX or (secret and len(self.by_secret) >= CLIENT_SESSIONS_MAX):
            return TOO_MANY_SESSIONS
        session = ClientSession(secret, timeout_us, time_us) if secret else Session(timeout_us, time_us)
        self.add(session_id, session)
        return _tell_use(session, session_id)

    def renew(self, session_id: int, time_us: int, revision: int, secret: str = "") -> Reply:
        """Use a session at cluster time `time_us` without writing; the reply has that revision."""
        session = self.find(session_id, secret)
        if session is None:
            return UNKNOWN_SESSION
        session.used_us = time_us
        return _tell_use(session, revision)

    def find(self, session_id: int, secret: str) -> Session | None:
        """Return a session to use and change, if that is its secret; None if it is not known."""
        session = self.by_id.get(session_id)
        return session if session is not None and session.secret == secret else None

    def take(self, command: ClientWrite) -> Write | Reply:
        """Return the command of a client's session as any session has it; or why it is refused."""
        session = self.find(command.session, command.secret)
        if not isinstance(session, ClientSession):
            return UNKNOWN_SESSION
        if self.client_replies >= CLIENT_REPLIES_MAX and command.seq not in session.replies:
            return FULL_OF_REPLIES
        return session.take(command)

    def applied(self, command: ClientWrite, reply: Reply) -> None:
        """Note what a command of a client's session was answered."""
        session, seq = self.by_id[command.session], command.seq
        assert isinstance(session, ClientSession)
        if reply is FULL_OF_TEXTS:
            # Nothing was done, and the client may ask again under the same seq: who handed the command over knows
            # whether another attempt may still take effect.
            session.replies.pop(seq, None)
        elif seq in session.replies:
            session.note(seq, command.digest)
        self.count(session)

    def count(self, session: ClientSession) -> None:
        """Count the replies that the session of a client keeps now."""
        self.client_replies += len(session.replies) - session.counted
        session.counted = len(session.replies)

    def keep(self, session: Session, seq: int, reply: Reply, origin: Origin) -> None:
        """Let a session keep a reply with a value, which comes from there."""
        assert reply.value is not None
        session.replies[seq] = reply
        self.held_bytes += session.hold(seq, origin, len(reply.value))

    def has_room(self, session: Session, size_bytes: int) -> bool:
        """Tell whether an answer of a session may come to hold a value of that size; one of none may always."""
        if size_bytes <= SMALL_TEXT_BYTES_MAX:
            return True
        all_max = CLIENT_HELD_BYTES_MAX if session.secret else ALL_HELD_BYTES_MAX
        return session.held_bytes < HELD_BYTES_MAX and self.held_bytes < all_max

    def forget_first(self) -> int:
        """Forget the session that is due first; return its id. Asked right after `expires_at_us`, which told one."""
        _, session_id = heapq.heappop(self._heap)
        session = self.by_id.pop(session_id)
        self.held_bytes -= session.held_bytes
        if isinstance(session, ClientSession):
            del self.by_secret[session.secret]
            self.client_replies -= session.counted
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


def _tell_use(session: Session, revision: int) -> Reply:
    """Return the answer to who opens or renews a session; to a client it tells the time-out, in microseconds."""
    value = Raw(b"%d" % session.timeout_us) if session.secret else None
    return Reply("ok", value, revision)
