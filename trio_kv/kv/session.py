"""One client session: the answers that it keeps, and what it refuses. See `kv.sessions`."""

from collections.abc import Iterable

import attrs

from trio_kv.kv.commands import UNSAID, ClientWrite, Write
from trio_kv.kv.reply import Origin, Reply

REPLIES_MAX = 65_536
"""Answers that one session keeps. When it is full, a new command is not applied and hears `overloaded`."""

SEQS_UNSAID = 1023
"""How far below the highest seq of a session the answers reach back whose owner never says what it awaits."""

FORGOTTEN_SEQ = Reply(
    "session_expired",
    message="the answer to this seq was forgotten: it is below `done`, which its owner said, or below the highest seq "
    f"less {SEQS_UNSAID:,}, where its owner says nothing",
)
FULL_SESSION = Reply(
    "overloaded", message=f"this session awaits {REPLIES_MAX} answers, and may not await more"
)
OTHER_REQUEST = Reply(
    "bad_request",
    message="this seq was given to another request before: a repetition is the same request, and another one needs "
    "another seq",
)
BEYOND_WINDOW = Reply(
    "overloaded",
    message=f"this seq is more than {REPLIES_MAX - 1:,} above `done`, the lowest one whose answer is still awaited",
)


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

    secret: str = ""
    """None, as of all sessions that clients can't use."""

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
        twin._copy_answers(self)
        return twin

    def _copy_answers(self, other: "Session") -> None:
        self.replies, self.origins = other.replies.copy(), other.origins.copy()
        self.held_bytes = other.held_bytes
        self._texts = {origin: attrs.evolve(text) for origin, text in other._texts.items()}  # noqa: SLF001 - one class


class ClientSession(Session):
    """A session that a client opened for itself.

    Invariant: `digests` has the seqs of `replies`.
    """

    __slots__ = ("_highest", "counted", "digests", "secret")

    def __init__(self, secret: str, timeout_us: int, used_us: int, done: int = 0) -> None:
        """Make a session last used at cluster time `used_us`."""
        super().__init__(timeout_us, used_us, done)
        self.secret = secret
        self.digests: dict[int, int] = {}
        """What each of the replies answers."""
        self.counted = 0
        """How many of its replies `Sessions.client_replies` counts."""
        self._highest = 0
        """The highest seq that was ever answered; below `done` it is of no account, and a snapshot need not tell it."""

    def take(self, command: ClientWrite) -> Write | Reply:
        """Return a command as any session has it; or why it can't stand under its seq.

        What is refused here is not kept: the next attempt may do better.
        """
        seq, done = command.seq, command.done
        if done == UNSAID:
            done = max(seq, self._highest) - SEQS_UNSAID
        if seq in self.replies and self.digests.get(seq, 0) != command.digest:
            return OTHER_REQUEST
        if seq >= max(done, self.done) + REPLIES_MAX:
            return BEYOND_WINDOW
        return Write(command.session, seq, done, command.operation)

    def note(self, seq: int, digest: int) -> None:
        """Note what the kept reply to `seq` answers."""
        self.digests[seq] = digest
        self._highest = max(self._highest, seq)

    def forget_below(self, done: int) -> int:
        """Drop the answers to seqs below `done`, and what they answered. See `Session`."""
        digests = self.digests
        gone: Iterable[int] = range(self.done, done)
        if done - self.done > len(digests):
            gone = [seq for seq in digests if seq < done]
        for seq in gone:
            digests.pop(seq, None)
        return super().forget_below(done)

    def copy(self) -> "ClientSession":
        """Return a session that changes on its own."""
        twin = ClientSession(self.secret, self.timeout_us, self.used_us, self.done)
        twin._copy_answers(self)
        twin.digests, twin._highest, twin.counted = self.digests.copy(), self._highest, self.counted
        return twin
