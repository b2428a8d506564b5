"""The commands of the state machine: what a log entry may hold.

A command's bytes are a compact JSON array, so the log can be read by a person and holds no run of zero
bytes. In it an operation stands as its own JSON object, and values keep the JSON text that the client sent.
"""

from collections.abc import Callable
from typing import Final

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


class ClientWrite(Write, frozen=True, gc=False, array_like=True, tag="client"):
    """An operation of a session that a client opened for itself, under a seq that the client gave it.

    Its `done` may be `UNSAID`.
    """

    secret: str
    """That of the session: whoever does not know it did not open it."""
    digest: int
    """Of the operation, made once by who took it from the client: the same seq with another one is a mistake."""


UNSAID: Final = -1
"""As `done`: the client does not say it. Then it is the highest seq of the session less `SEQS_UNSAID`."""


class OpenSession(Command, frozen=True, gc=False, array_like=True, tag="open"):
    """Open a session: its id is the index of this entry (thesis §6.3)."""

    timeout_us: int
    secret: str = ""
    """Random, of a session for a client: an index can be guessed. A repeated opening has the same one, and gives the
    same session. Empty: a gateway opens it for itself."""

    def encode(self) -> bytes:
        """Return the command's bytes."""
        return _encode_with_secret(self, self.secret)


class RenewSession(Command, frozen=True, gc=False, array_like=True, tag="renew"):
    """Use a session without writing anything."""

    session: int
    secret: str = ""

    def encode(self) -> bytes:
        """Return the command's bytes."""
        return _encode_with_secret(self, self.secret)


class Expire(Command, frozen=True, gc=False, array_like=True, tag="expire"):
    """Let keys and sessions end that are due at this entry's cluster time, the earliest first."""

    at_most: int | None = None
    """So many of them; None: all. It stands in the entry because logs of format 2 have entries without a limit."""


_encode = msgspec.json.Encoder().encode
_decode: Callable[[bytes], Command] = msgspec.json.Decoder(
    Write | ClientWrite | OpenSession | RenewSession | Expire
).decode


def _encode_with_secret(command: Command, secret: str) -> bytes:
    """Return the bytes of a command whose last member is a secret: where there is none, as logs always had them."""
    data = _encode(command)
    return data if secret else data.removesuffix(b',""]') + b"]"


def decode_command(data: bytes) -> Command:
    """Return the command whose bytes these are.

    Raises:
        ValueError: these are not the bytes of a command (msgspec's errors are ValueErrors).

    """
    return _decode(data)
