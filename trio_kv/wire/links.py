"""What goes over a link between two processes of a cluster: the hello, and what each item of a frame is. Pure.

A link is one connection, opened by the process that has something to say; the other one opens its own. A connection
begins with a hello and its answer. Then items go both ways in frames (`wire.peer_frames`), of which the first byte says
what they are::

    from who opened it              from who was called
    M  a message of Raft            W  welcome
    Q  a request to a node          X  refused, and why
    S  how the sender's nodes are   A  an answer to a request
    C  a call of an operator        R  the result of a call
    E  an event, for the log        O  the ping that came
    P  ping
    L  what is wrong with links

So an answer goes back over the connection that its request came by: what was asked over one that is gone is *unknown*,
and no late answer can be taken for that to a later attempt.
"""

import struct
from collections.abc import Callable
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from trio_kv.wire.node_status import NodeStatus

VERSION: Final = 1
"""Of all that goes over links, the messages of Raft and of the store included."""
VERSIONS: Final = (VERSION, VERSION)
"""The lowest and the highest that this program speaks."""
HELLO_BYTES_MAX: Final = 4096
"""A frame that has a hello, or its answer, is no longer."""

MESSAGE, REQUEST, STATUS, CALL, EVENT, PING, HELLO, FAULTS = (b"M", b"Q", b"S", b"C", b"E", b"P", b"H", b"L")
ANSWER, RESULT, PONG, WELCOME, REFUSED = (b"A", b"R", b"O", b"W", b"X")

_Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Text = Annotated[str, Meta(max_length=200)]
_TARGET = struct.Struct("<B")
T = TypeVar("T")


class LinkFormatError(ValueError):
    """What came over a link is nothing that this program sends. The text says what is wrong."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """Who calls, and what for."""

    versions: tuple[_Number, _Number]
    """The lowest and the highest that it speaks."""
    cluster: _Text
    process: _Number
    target: _Number
    """The process that it wants."""
    incarnations: dict[int, _Number]
    """Of the nodes that it has, by node."""
    is_bulk: bool
    """Whether it brings nothing but pieces of snapshots, behind which nothing else is to wait."""
    nodes: _Number
    """How many nodes the cluster has: two that count majorities of different ones would elect two leaders."""
    secret: _Text = ""
    """What proves that it belongs to the cluster, where no certificate does."""
    is_asking: bool = False
    """Whether its nodes have lost their disks: it has none, and asks which incarnations of them are known."""


class Welcome(msgspec.Struct, frozen=True, kw_only=True):
    """Who was called, and what both will speak."""

    version: _Number
    process: _Number
    incarnations: dict[int, _Number]
    nodes: _Number
    known: dict[int, _Number] = {}
    """To one who asks: the highest incarnation of each of its nodes that was ever heard of; 0 if none was."""


class Refusal(msgspec.Struct, frozen=True):
    """Why nothing will be taken from the one who called."""

    reason: _Text


class Call(msgspec.Struct, frozen=True, array_like=True):
    """Something that an operator asks of another process."""

    number: _Number
    name: _Text
    payload: bytes


class Result(msgspec.Struct, frozen=True, array_like=True):
    """What came of a call."""

    number: _Number
    error: str
    """Why it was not done; empty if it was."""
    payload: bytes


encode = msgspec.msgpack.Encoder().encode
_decode_hello = msgspec.msgpack.Decoder(Hello).decode
_decode_welcome = msgspec.msgpack.Decoder(Welcome).decode
_decode_refusal = msgspec.msgpack.Decoder(Refusal).decode
_decode_call = msgspec.msgpack.Decoder(Call).decode
_decode_result = msgspec.msgpack.Decoder(Result).decode
_decode_statuses = msgspec.msgpack.Decoder(list[NodeStatus]).decode


def decode_hello(item: bytes) -> Hello:
    """Return the hello that a connection begins with. Raises LinkFormatError."""
    return _decode(item, HELLO, _decode_hello)


def decode_reply(item: bytes) -> Welcome | Refusal:
    """Return the answer to a hello. Raises LinkFormatError."""
    if item[:1] == REFUSED:
        return _decode(item, REFUSED, _decode_refusal)
    return _decode(item, WELCOME, _decode_welcome)


def decode_call(item: bytes) -> Call:
    """Return the call in an item. Raises LinkFormatError."""
    return _decode(item, CALL, _decode_call)


def decode_result(item: bytes) -> Result:
    """Return the result in an item. Raises LinkFormatError."""
    return _decode(item, RESULT, _decode_result)


def decode_statuses(item: bytes) -> list[NodeStatus]:
    """Return how nodes are. Raises LinkFormatError."""
    return _decode(item, STATUS, _decode_statuses)


def encode_statuses(statuses: list[NodeStatus]) -> bytes:
    """Return the item that tells how nodes are."""
    return STATUS + encode(statuses)


def wrap_request(node: int, data: bytes) -> bytes:
    """Return the item that hands a request, as `wire.node_port` encodes it, to a node."""
    return REQUEST + _TARGET.pack(node) + data


def unwrap_request(item: bytes) -> tuple[int, bytes]:
    """Return the node that a request is for, and the request's bytes. Raises LinkFormatError."""
    if len(item) < 1 + _TARGET.size:
        raise LinkFormatError("a request without a node")
    return item[1], item[1 + _TARGET.size :]


def _decode(item: bytes, kind: bytes, decode: Callable[[bytes], T]) -> T:
    if item[:1] != kind:
        raise LinkFormatError(f"an item {item[:1]!r} where {kind!r} belongs")
    try:
        return decode(item[1:])
    except (ValueError, RecursionError) as error:
        raise LinkFormatError(f"malformed {kind.decode()}: {error}") from error
