"""The commands of the state machine: what a log entry may hold.

A command's bytes are a compact JSON array, so the log can be read by a person and holds no run of zero
bytes; values keep the JSON text that the client sent.
"""

from collections.abc import Callable

import msgspec


class Command(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    """A command of the replicated log. Commands with a session are applied at most once per seq."""

    def encode(self) -> bytes:
        """Return the command's bytes."""
        return _encode(self)

    def __repr__(self) -> str:
        return self.encode().decode(errors="replace")


class Set(Command, frozen=True, gc=False, array_like=True, tag="set"):
    """Give a key a value."""

    session: int
    seq: int
    done: int
    """The lowest seq of the session whose answer its owner still awaits."""
    key: str
    value: msgspec.Raw
    if_revision: int | None = None
    """Apply only if the key's revision is this one; 0 means that the key must not exist."""


class Delete(Command, frozen=True, gc=False, array_like=True, tag="delete"):
    """Remove a key."""

    session: int
    seq: int
    done: int
    key: str
    if_revision: int | None = None


class Cas(Command, frozen=True, gc=False, array_like=True, tag="cas"):
    """Give a key a value if it now has the expected one."""

    session: int
    seq: int
    done: int
    key: str
    value: msgspec.Raw
    expected: tuple[msgspec.Raw, ...] = ()
    """The one JSON text that the key must hold now; none means that the key must not exist."""


class OpenSession(Command, frozen=True, gc=False, array_like=True, tag="open"):
    """Open a session: its id is the index of this entry (thesis §6.3)."""

    timeout_us: int


class RenewSession(Command, frozen=True, gc=False, array_like=True, tag="renew"):
    """Use a session without writing anything."""

    session: int


class Expire(Command, frozen=True, gc=False, array_like=True, tag="expire"):
    """Forget all that is due at this entry's cluster time."""


_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Command] = msgspec.json.Decoder(
    Set | Delete | Cas | OpenSession | RenewSession | Expire
).decode


def decode_command(data: bytes) -> Command:
    """Return the command whose bytes these are.

    Raises:
        ValueError: these are not the bytes of a command (msgspec's errors are ValueErrors).

    """
    return _decode(data)
