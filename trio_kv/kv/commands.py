"""The commands of the state machine: what a log entry may hold.

A command's bytes are a compact JSON array, so the log can be read by a person and holds no run of zero
bytes. In it an operation stands as its own JSON object, and values keep the JSON text that the client sent.
"""

from collections.abc import Callable

import msgspec

from trio_kv.kv.operations import AnyWrite


class Command(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    """A command of the replicated log."""

    def encode(self) -> bytes:
        """Return the command's bytes."""
        return _encode(self)

    def __repr__(self) -> str:
        return self.encode().decode(errors="replace")


class Write(Command, frozen=True, gc=False, array_like=True, tag="write"):
    """An operation of a session. It takes effect at most once per seq."""

    session: int
    seq: int
    done: int
    """The lowest seq of the session whose answer its owner still awaits."""
    operation: AnyWrite


class OpenSession(Command, frozen=True, gc=False, array_like=True, tag="open"):
    """Open a session: its id is the index of this entry (thesis §6.3)."""

    timeout_us: int


class RenewSession(Command, frozen=True, gc=False, array_like=True, tag="renew"):
    """Use a session without writing anything."""

    session: int


class Expire(Command, frozen=True, gc=False, array_like=True, tag="expire"):
    """Let keys and sessions end that are due at this entry's cluster time, the earliest first."""

    at_most: int | None = None
    """So many of them; None: all. It stands in the entry because logs of format 2 have entries without a limit."""


_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Command] = msgspec.json.Decoder(Write | OpenSession | RenewSession | Expire).decode


def decode_command(data: bytes) -> Command:
    """Return the command whose bytes these are.

    Raises:
        ValueError: these are not the bytes of a command (msgspec's errors are ValueErrors).

    """
    return _decode(data)
