"""What a gateway asks of a node, what a node answers, and the bytes of both, for they may be in different processes.

A node that lives answers every request exactly once: a `Pull` by `Batch`, `Gone`, `Refused` or `Unknown`, the others by
`Done`, `Refused`, `Full` or `Unknown`. `Refused` and `Full` say that nothing happened and nothing will. A request to a
node that dies is answered `Unknown` by what stops it.

A request names who asked by an id, and never by an object, so it means the same in every process. An asker that starts
anew has a new id: an answer to its former self reaches nobody, whatever its number is.

::

    request = kind u8 | msgpack [process, nonce, number, ...]
    answer  = kind u8 | msgpack [process, nonce, number, node, ...]

Commands travel as the bytes that the log has, queries as their JSON objects, and values of replies and changes as the
JSON text that they are.
"""

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from trio_kv.kv.commands import Command, decode_command
from trio_kv.kv.operations import AnyQuery
from trio_kv.kv.operations.operation import Change, ChangeKind
from trio_kv.kv.reply import Reply, TimedReply
from trio_kv.wire.packed import Kinds, Number, encode

WRITE_BYTES_MAX = 256 << 20
"""What a leader takes of writes that are not committed yet, as `Propose.size_bytes` weighs them. One write is taken
even if it is larger, as long as it is the only one."""


class ReplyTo(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """Who asks. Made once by each asker; with the number of a request it names that request for ever."""

    process: int
    nonce: int
    """Of this start of this asker: no other asker of the process has it, nor had it."""


Place = tuple[int, Sequence[AnyQuery]]
"""Queries in a run of commands, and how many of these stand before them."""


class Propose(msgspec.Struct, frozen=True, gc=False):
    """Commit these commands, in this order and in a row, and answer the queries that stand between them.

    A query is answered from the state that holds the effects of all commands before it and of none behind it. If that
    can't be had, because an earlier attempt of a command behind it may have taken effect, its reply is `unavailable`.
    """

    reply_to: ReplyTo
    number: int
    """Of the asker's making: each of its requests has another one, and a repeated one its old one."""
    commands: Sequence[Command]
    size_bytes: int = 0
    """What they weigh in memory, about: the sender's word, for limits."""
    queries: Sequence[Place] = ()
    """In the order of their places, of which each is named once."""


class Read(msgspec.Struct, frozen=True, gc=False):
    """Answer these queries, all from one state."""

    reply_to: ReplyTo
    number: int
    queries: Sequence[AnyQuery]
    is_stale: bool = False
    """Answer from what is applied, without asking the leader."""
    applied_min: int = 0
    """With a stale read: not before this index is applied here, so that its reader never goes back in time."""


class Pull(msgspec.Struct, frozen=True, gc=False):
    """Tell what changed behind a revision, as soon as anything did.

    The stream of changes is drawn by such requests, one after the other: whoever can't keep up asks later, and the node
    waits for nobody. As nothing is told unasked, there is nothing to end.
    """

    reply_to: ReplyTo
    number: int
    after: int
    """Of all changes up to this revision the asker knows."""


class Done(msgspec.Struct, frozen=True, gc=False):
    """The request took effect: one reply a command or query, in the order of the run.

    A `Read` without queries asks for `applied` alone, which is linearizable like any other.
    """

    number: int
    node: int
    term: int
    applied: int
    replies: Sequence[Reply]


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Nothing was appended: this node does not lead."""

    number: int
    node: int
    hint: int | None


class Full(msgspec.Struct, frozen=True, gc=False):
    """Nothing was appended: the disks of a majority are full."""

    number: int
    node: int


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """The commands may or may not take effect: this node can't tell any more."""

    number: int
    node: int


class Batch(msgspec.Struct, frozen=True, gc=False):
    """All changes of the revisions in (after, upto]. None, where `upto` is `after`: it has waited for long enough."""

    number: int
    node: int
    after: int
    upto: int
    changes: Sequence[Change]
    """In the order of their revisions, and those of one revision in the order in which they were made."""


class Gone(msgspec.Struct, frozen=True, gc=False):
    """This node does not have all changes behind that revision any more."""

    number: int
    node: int
    after: int
    """The lowest revision behind which it has all."""


Request = Propose | Read | Pull
NoResult = Refused | Full | Unknown
Answer = Done | NoResult | Batch | Gone


class NodePortError(ValueError):
    """Bytes that are no request, or no answer. The text says why."""


def encode_request(request: Request) -> bytes:
    """Return the bytes of a request.

    Raises:
        UnicodeEncodeError: a key can't be encoded.

    """
    head = (request.reply_to.process, request.reply_to.nonce, request.number)
    if isinstance(request, Propose):
        commands = [command.encode() for command in request.commands]
        places = [(place, _encode_queries(queries)) for place, queries in request.queries]
        return b"P" + encode((*head, commands, request.size_bytes, places))
    if isinstance(request, Pull):
        return b"L" + encode((*head, request.after))
    queries = _encode_queries(request.queries)
    return b"R" + encode((*head, queries, request.is_stale, request.applied_min))


def decode_request(data: bytes) -> Request:
    """Return the request whose bytes these are.

    Raises:
        NodePortError: they are none of a request.

    """
    kind, (process, nonce, number, *rest) = _REQUESTS.split(data)
    if kind == b"P":
        texts, size_bytes, places = rest
        commands = _REQUESTS.decode(_decode_commands, texts)
        queries = _decode_places(places, len(commands))
        return Propose(ReplyTo(process, nonce), number, commands, size_bytes, queries)
    if kind == b"L":
        return Pull(ReplyTo(process, nonce), number, *rest)
    texts, *others = rest
    return Read(ReplyTo(process, nonce), number, _REQUESTS.decode(_decode_queries, texts), *others)


def encode_answer(reply_to: ReplyTo, answer: Answer) -> bytes:
    """Return the bytes of an answer to this asker."""
    head = (reply_to.process, reply_to.nonce, answer.number, answer.node)
    if isinstance(answer, Done):
        replies = [
            (reply.code, _bytes_of(reply.value), reply.revision, reply.message, _ttl_of(reply))
            for reply in answer.replies
        ]
        return b"D" + encode((*head, answer.term, answer.applied, replies))
    if isinstance(answer, Batch):
        changes = [
            (each.kind, each.key, _bytes_of(each.value), each.revision, each.previous)
            for each in answer.changes
        ]
        return b"B" + encode((*head, answer.after, answer.upto, changes))
    if isinstance(answer, Gone):
        return b"G" + encode((*head, answer.after))
    if isinstance(answer, Refused):
        return b"N" + encode((*head, answer.hint))
    return (b"F" if isinstance(answer, Full) else b"U") + encode(head)


def decode_answer(data: bytes) -> tuple[ReplyTo, Answer]:
    """Return the answer whose bytes these are, and to whom it goes.

    Raises:
        NodePortError: they are none of an answer.

    """
    kind, (process, nonce, *rest) = _ANSWERS.split(data)
    if kind == b"D":
        rest[-1] = [_reply_of(*members) for members in rest[-1]]
    elif kind == b"B":
        rest[-1] = [Change(change, key, _text_of(value), *others) for change, key, value, *others in rest[-1]]
    return ReplyTo(process, nonce), _ANSWER_CLASSES[kind](*rest)


_Texts = Annotated[list[bytes], Meta(min_length=1)]
_Reply = tuple[str, bytes | None, Number, str, Number | None]
_Change = tuple[ChangeKind, str, bytes | None, Number, Number]
_encode_query = msgspec.json.Encoder().encode
_decode_query = msgspec.json.Decoder(AnyQuery).decode
_REQUESTS = Kinds(
    {
        b"P": tuple[Number, Number, Number, _Texts, Number, list[tuple[Number, _Texts]]],
        b"R": tuple[Number, Number, Number, list[bytes], bool, Number],
        b"L": tuple[Number, Number, Number, Number],
    },
    NodePortError,
)
_ANSWERS = Kinds(
    {
        b"D": tuple[Number, Number, Number, Number, Number, Number, list[_Reply]],
        b"B": tuple[Number, Number, Number, Number, Number, Number, list[_Change]],
        b"G": tuple[Number, Number, Number, Number, Number],
        b"N": tuple[Number, Number, Number, Number, Number | None],
        b"F": tuple[Number, Number, Number, Number],
        b"U": tuple[Number, Number, Number, Number],
    },
    NodePortError,
)
_ANSWER_CLASSES: dict[bytes, type[Answer]] = {
    b"D": Done,
    b"B": Batch,
    b"G": Gone,
    b"N": Refused,
    b"F": Full,
    b"U": Unknown,
}


def _reply_of(code: str, value: bytes | None, revision: int, message: str, ttl_us: int | None) -> Reply:
    if ttl_us is None:
        return Reply(code, _text_of(value), revision, message)
    return TimedReply(code, _text_of(value), revision, message, ttl_us=ttl_us)


def _ttl_of(reply: Reply) -> int | None:
    return reply.ttl_us if isinstance(reply, TimedReply) else None


def _bytes_of(text: msgspec.Raw | None) -> bytes | None:
    return None if text is None else bytes(text)


def _text_of(data: bytes | None) -> msgspec.Raw | None:
    return None if data is None else msgspec.Raw(data)


def _decode_commands(texts: Sequence[bytes]) -> list[Command]:
    return [decode_command(text) for text in texts]


def _decode_places(places: Sequence[tuple[int, list[bytes]]], commands: int) -> tuple[Place, ...]:
    numbers = [place for place, _ in places]
    if numbers != sorted(set(numbers)) or (numbers and numbers[-1] > commands):
        raise NodePortError(f"malformed: places {numbers} of queries among {commands} commands")
    return tuple([(place, _REQUESTS.decode(_decode_queries, texts)) for place, texts in places])


def _encode_queries(queries: Sequence[AnyQuery]) -> list[bytes]:
    return [_encode_query(query) for query in queries]


def _decode_queries(texts: Sequence[bytes]) -> list[AnyQuery]:
    return [_decode_query(text) for text in texts]
