"""What becomes of what clients ask for under sessions of their own: commands on the way in, replies on the way out.

A client's write goes out under the client's session and seq, and never under the gateway's own. It is handed over again
as any write is: whichever attempt takes effect first, the others find its reply.
"""

from hashlib import blake2b
from random import Random

import attrs
import msgspec
from msgspec import UNSET, Raw

from trio_kv.gateway.store import Answer
from trio_kv.kv.commands import UNSAID, ClientWrite, Command, OpenSession, RenewSession
from trio_kv.kv.operations.operation import encode
from trio_kv.kv.reply import Reply
from trio_kv.wire.client_sessions import SECRET_BITS, Numbered, OpenOrRenew, make_id, read_id

DIGEST_BYTES = 6
"""Of an operation. Every reader of JSON holds such a number exactly."""

NO_SESSION = 0, ""
"""Index and secret of none: the log begins at 1."""


@attrs.frozen
class Asked:
    """One thing that a client asks for."""

    place: int
    """Where it stands in its run."""
    place_of_write: int
    """The same among the writes of the run."""
    command: Command

    def retell(self, reply: Reply, *, is_sure: bool) -> Reply:
        """Return what the client hears.

        Args:
            reply: what the state machine said to an attempt.
            is_sure: whether no other attempt can take effect.

        """
        if reply.code == "overloaded" and not is_sure:
            # It is not kept, as other answers are: another attempt may find room.
            return Reply("timeout", message="no room at first: a later attempt may or may not take effect")
        command = self.command
        if reply.code != "ok" or not isinstance(command, OpenSession | RenewSession):
            return reply
        session = command.session if isinstance(command, RenewSession) else reply.revision
        assert reply.value is not None, f"{reply} to {command} tells no time-out"
        timeout_s = int(bytes(reply.value)) / 1_000_000
        id_text, timeout = encode(make_id(session, command.secret)), encode(_plain(timeout_s))
        return msgspec.structs.replace(
            reply, value=Raw(b'{"session": %b, "timeout": %b}' % (id_text, timeout))
        )


class ClientSessions:
    """Makes the commands.

    Args:
        random: draws the secrets of sessions. Whoever can guess what it draws can use them.
        timeout_s: after how much cluster time without a write or a renewal a session is forgotten.

    """

    def __init__(self, random: Random, timeout_s: float) -> None:
        """Begin; see the class."""
        self._random = random
        self._timeout_us = round(timeout_s * 1_000_000)

    def command_of(self, operation: Numbered | OpenOrRenew) -> Command:
        """Return the command for what a client asks; an id that can be none is that of a session nobody knows."""
        if operation.session is UNSET:
            secret = f"{self._random.getrandbits(SECRET_BITS):0{SECRET_BITS // 4}x}"
            return OpenSession(self._timeout_us, secret)
        session, secret = read_id(operation.session) or NO_SESSION
        if isinstance(operation, OpenOrRenew):
            return RenewSession(session, secret)
        done = UNSAID if operation.done is UNSET else operation.done
        return ClientWrite(
            session, operation.seq, done, operation.operation, secret, digest_of(operation.operation)
        )


def digest_of(operation: object) -> int:
    """Return a number by which the same operation is known again, on every node and for ever."""
    return int.from_bytes(blake2b(encode(operation), digest_size=DIGEST_BYTES).digest())


def retell(answer: Answer, asked: list[Asked], *, is_sure: bool) -> Answer:
    """Return the answer to a run with what its clients' own sessions have to hear. See `Asked`."""
    replies = list(answer.replies)
    for each in asked:
        replies[each.place] = each.retell(replies[each.place], is_sure=is_sure)
    return msgspec.structs.replace(answer, replies=replies)


def _plain(number: float) -> int | float:
    return int(number) if number == int(number) else number
