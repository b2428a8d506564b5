"""Writes with a place in a session of their client: asked again until there is an answer, and counted once.

One that gets no answer is owed: its client asks it again, over whichever connection comes next, and it is one request
all the while. One that was answered may be asked once more, and must be told the same.
"""

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any, Final, Protocol, TypeVar

import attrs

from trio_kv.check.exchange import Exchange, Members, decode_members

NUMBERED: Final = 0.5
"""Share of the writes with a place in a session."""
REPEATED: Final = 0.1
"""Share of those that are asked twice."""
SEQS_KEPT: Final = 16
"""So many seqs below the next one are still awaited, as far as the server is told: they may be asked again."""
ANSWERS: Final = frozenset({"ok", "missing", "conflict"})
_REPEATED_MEMBERS: Final = frozenset({"key", "value", "status", "error", "revision", "succeeded", "results"})
"""What an answer says every time."""


@attrs.define(eq=False)
class Numbered:
    """A write with a place in a session, until it is answered."""

    seq: int
    attempts: int = 0
    is_asked_twice: bool = False
    """Whether another attempt was made together with the first one."""
    exchange: Exchange | None = None
    """What came of it, once that is known."""

    def ends(self, code: str) -> bool:
        """Note one more attempt, and tell whether its answer is the last word.

        Args:
            code: of the reply; empty or `closed`: there was none.

        """
        self.attempts += 1
        if code in ANSWERS or code == "session_expired":
            return True
        # A definite error speaks of its own attempt: another one may have taken effect, or may yet.
        return self.attempts == 1 and not self.is_asked_twice and code not in ("", "timeout", "closed")

    def differs(self, line: bytes) -> bool:
        """Tell whether another reply tells something else than the first."""
        assert self.exchange is not None
        return _repeated(self.exchange.told) != _repeated(decode_members(line))


class Asked(Protocol):
    """A request, as its client knows it."""

    @property
    def numbered(self) -> Numbered | None:
        """Its place in a session, if it has one."""


AnyAsked = TypeVar("AnyAsked", bound=Asked)


def repeat(burst: Iterable[AnyAsked], random: Random) -> list[AnyAsked]:
    """Return those of some requests that are asked together which are asked twice."""
    again = []
    for each in burst:
        if each.numbered is not None and random.random() < REPEATED:
            each.numbered.is_asked_twice = True
            again.append(each)
    return again


@attrs.define
class Numbering:
    """A session of a client, and what it has asked under it."""

    session: str | None = None
    """None: there is none; whoever wants one opens it."""
    owed: list[Any] = attrs.field(factory=list)
    """What had no answer yet, as its client knows it."""
    _next: int = 0

    def begin(self, session: str) -> None:
        """Use a new session."""
        self.session, self._next = session, 0

    def place(self) -> tuple[Numbered, Mapping[str, Any]]:
        """Return the next place, and the members of a request that say so."""
        assert self.session is not None
        seq, self._next = self._next, self._next + 1
        # What is owed may be of an earlier session: then less is forgotten than might be.
        done = max(0, min([seq - SEQS_KEPT, *[each.numbered.seq for each in self.owed]]))
        return Numbered(seq), {"session": self.session, "seq": seq, "done": done}


def _repeated(told: Members) -> dict[str, bytes]:
    return {name: bytes(text) for name, text in told.items() if name in _REPEATED_MEMBERS}
