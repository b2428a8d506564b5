"""The commands of the state machine: what a log entry may hold.

A command's bytes are a compact JSON array, so the log can be read by a person and holds no run of zero
bytes. In it an operation stands as its own JSON object, and values keep the JSON text that the client sent.
"""

from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from trio_kv.kv.nesting import NESTING_MAX, is_nested_deeper
from trio_kv.kv.operations import AnyWrite
from trio_kv.kv.operations.operation import REVISION_MAX

UNSAID: Final = -1
"""As `done`: the client does not say it. Then it is the highest seq of the session less `SEQS_UNSAID`."""

_Number = Annotated[int, Meta(ge=0, le=REVISION_MAX)]
"""A command may come from another process: a larger number in it would be beyond 64 bits in sums and snapshots."""

COMMAND_NESTING_MAX: Final = NESTING_MAX + 4
"""A value stands in an operation in a list in a transaction in a command."""

NESTED_TOO_DEEP: Final = f"a value of the command is nested too deep: at most {NESTING_MAX} levels"


class Command(msgspec.Struct, frozen=True, gc=False, array_like=True, tag=True):
    """A command of the replicated log."""

    def encode(self) -> bytes:
        """Return the command's bytes."""
        return _encode(self)

    def __repr__(self) -> str:
        return self.encode().decode(errors="replace")


class Write(Command, frozen=True, gc=False, array_like=True, tag="write"):
    """An operation of a session. It takes effect at most once per seq."""

    session: _Number
    seq: _Number
    done: Annotated[int, Meta(ge=UNSAID, le=REVISION_MAX)]
    """The lowest seq of the session whose answer its owner still awaits."""
    operation: AnyWrite


class ClientWrite(Write, frozen=True, gc=False, array_like=True, tag="client"):
    """An operation of a session that a client opened for itself, under a seq that the client gave it.

    Its `done` may be `UNSAID`.
    """

    secret: str
    """That of the session: whoever does not know it did not open it."""
    digest: _Number
    """Of the operation, made once by who took it from the client: the same seq with another one is a mistake."""


class OpenSession(Command, frozen=True, gc=False, array_like=True, tag="open"):
    """Open a session: its id is the index of this entry (thesis §6.3)."""

    timeout_us: _Number
    secret: str = ""
    """Random, of a session for a client: an index can be guessed. A repeated opening has the same one, and gives the
    same session. Empty: a gateway opens it for itself."""

    def encode(self) -> bytes:
        """Return the command's bytes."""
        return _encode_with_secret(self, self.secret)


class RenewSession(Command, frozen=True, gc=False, array_like=True, tag="renew"):
    """Use a session without writing anything."""

    session: _Number
    secret: str = ""

    def encode(self) -> bytes:
        """Return the command's bytes."""
        return _encode_with_secret(self, self.secret)


class Expire(Command, frozen=True, gc=False, array_like=True, tag="expire"):
    """Let keys and sessions end that are due at this entry's cluster time, the earliest first."""

    at_most: _Number | None = None
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
        ValueError: these are not the bytes of a command (msgspec's errors are ValueErrors), or of one that no door lets
            in: a number in it, or the depth of a value, is beyond what the state machine and its snapshots can hold.

    """
    try:
        command = _decode(data)
    except RecursionError:
        raise ValueError(NESTED_TOO_DEEP) from None
    if len(data) > 2 * COMMAND_NESTING_MAX and is_nested_deeper(data, COMMAND_NESTING_MAX):
        raise ValueError(NESTED_TOO_DEEP)
    return command
