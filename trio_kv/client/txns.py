"""Transactions of a client: their lists in the words of the protocol, and what came of one."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import msgspec

from trio_kv.client.values import encode_value
from trio_kv.wire.operations import BadRequestError, Txn
from trio_kv.wire.replies import ReplyError, ReplyLine, parse_reply
from trio_kv.wire.requests import parse_line

Members = Mapping[str, object]
"""A condition or an operation, as the protocol has it: `{"key": "a", "equals": 1}`, `{"op": "incr", "key": "a"}`."""


@attrs.frozen
class TxnReply:
    """What came of a transaction that took effect."""

    has_succeeded: bool
    """Whether its conditions held, so that `then` was carried out."""
    results: tuple[ReplyLine, ...]
    """The reply to each operation."""
    revision: int


class _TxnLine(msgspec.Struct):
    succeeded: bool
    results: tuple[msgspec.Raw, ...]
    revision: int


def make_txn(conditions: Sequence[Members], then: Sequence[Members], otherwise: Sequence[Members]) -> Txn:
    """Return a transaction of these lists.

    Raises:
        ValueError: one of their elements can't be; says which, and what would be right.

    """
    lists = {"if": conditions, "then": then, "else": otherwise}
    texts = {name: bytes(encode_value([dict(each) for each in list_])) for name, list_ in lists.items()}
    return parse_txn(texts)


def parse_txn(texts: Mapping[str, bytes]) -> Txn:
    """Return a transaction of lists in JSON, by their names. Raises the same as `make_txn`."""
    # A line break between the tokens of a value would end the request in the middle.
    lines = {name: text.replace(b"\n", b" ").replace(b"\r", b" ") for name, text in texts.items()}
    members = [b'"op":"txn"', *(b'"%b":%b' % (name.encode(), text) for name, text in lines.items())]
    try:
        operation = parse_line(b"{%b}" % b",".join(members)).operation
    except BadRequestError as error:
        raise ValueError(error.message) from None
    assert isinstance(operation, Txn)
    return operation


def read_txn(reply: ReplyLine) -> TxnReply:
    """Return what a reply tells of a transaction.

    Raises:
        ReplyError: it tells nothing of one.

    """
    try:
        line: Any = msgspec.json.decode(reply.line, type=_TxnLine)
    except msgspec.DecodeError as error:
        raise ReplyError(f"this is not what was asked for: {error}") from error
    return TxnReply(line.succeeded, tuple([parse_reply(bytes(each)) for each in line.results]), line.revision)
