"""A snapshot's bytes: the state machine as lines of JSON text.

The first line tells format and version. The rest is one JSON object: digests and cluster time, then the
sessions, the answers they keep, and the items, each an array. Keys and values stand in it as JSON text, so a
person can read it, it never holds a run of zero bytes, and a value keeps every digit. An array may grow at
its end: an item will carry its expiry there.

Order is the order of the state machine's own dicts, which follows from the log alone: machines that applied
the same entries write the same bytes, whether or not one of them was restored on the way.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from trio_kv.kv.reply import Item, Reply
from trio_kv.kv.sessions import Session, Sessions

FORMAT = "trio_kv state"
VERSION = 1

PART_RECORDS = 512
"""Records in one part of a snapshot. A part is encoded in one go: this bounds how long nothing else runs."""


class Label(msgspec.Struct, frozen=True):
    """The first line: what this is."""

    format: str
    version: int


class Head(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What there is one of."""

    applied: int
    applied_term: int
    time_us: int
    entries_digest: int
    state_digest: int


class SessionRecord(msgspec.Struct, frozen=True, array_like=True):
    """One open session."""

    session: int
    timeout_us: int
    used_us: int
    done: int


class ReplyRecord(msgspec.Struct, frozen=True, array_like=True):
    """One answer that a session keeps."""

    session: int
    seq: int
    code: str
    value: msgspec.Raw
    """`null` both for no value and for the value `null`, so `has_value` tells them apart."""
    has_value: bool
    revision: int
    message: str


class ItemRecord(msgspec.Struct, frozen=True, array_like=True):
    """One key."""

    key: str
    value: msgspec.Raw
    revision: int


class Body(msgspec.Struct, frozen=True):
    """What stands after the first line."""

    head: Head
    sessions: list[SessionRecord]
    replies: list[ReplyRecord]
    items: list[ItemRecord]


_NULL = msgspec.Raw(b"null")
_encode = msgspec.json.Encoder().encode
_label_decoder = msgspec.json.Decoder(Label)
_body_decoder = msgspec.json.Decoder(Body)


def encode_image(head: Head, sessions: Sessions, items: dict[str, Item]) -> Iterator[bytes]:
    """Yield the parts of a snapshot; joined they are its bytes. Nothing may change between two parts."""
    yield _encode(Label(FORMAT, VERSION)) + b'\n{"head":' + _encode(head) + b',"sessions":['
    yield from _encode_records(
        SessionRecord(session_id, session.timeout_us, session.used_us, session.done)
        for session_id, session in sessions
    )
    yield b'],"replies":['
    yield from _encode_records(
        ReplyRecord(
            session_id,
            seq,
            reply.code,
            _NULL if reply.value is None else reply.value,
            reply.value is not None,
            reply.revision,
            reply.message,
        )
        for session_id, session in sessions
        for seq, reply in session.replies.items()
    )
    yield b'],"items":['
    yield from _encode_records(ItemRecord(key, item.value, item.revision) for key, item in items.items())
    yield b"]}\n"


def decode_image(data: bytes) -> tuple[Head, Sessions, dict[str, Item]]:
    """Read a snapshot. Values are copied, so that they don't keep `data` in memory.

    Raises:
        ValueError: these are not the bytes of a snapshot, or of one in a format that is not known here.

    """
    first_line, _, rest = data.partition(b"\n")
    label = _label_decoder.decode(first_line)
    if label != Label(FORMAT, VERSION):
        raise ValueError(
            f"this is {label.format!r} version {label.version}, not {FORMAT!r} version {VERSION}"
        )
    body = _body_decoder.decode(rest)
    sessions = Sessions()
    for record in body.sessions:
        sessions.add(record.session, Session(record.timeout_us, record.used_us, record.done))
    for answer in body.replies:
        if answer.session not in sessions.by_id:
            raise ValueError(
                f"seq {answer.seq} belongs to session {answer.session}, which is not in the snapshot"
            )
        value = answer.value.copy() if answer.has_value else None
        reply = Reply(answer.code, value, answer.revision, answer.message)
        sessions.by_id[answer.session].replies[answer.seq] = reply
    items = {record.key: Item(record.value.copy(), record.revision) for record in body.items}
    return body.head, sessions, items


def _encode_records(records: Iterable[msgspec.Struct]) -> Iterator[bytes]:
    """Yield the insides of one JSON array, `PART_RECORDS` records at a time."""
    iterator = iter(records)
    lead = b"\n"
    while part := list(islice(iterator, PART_RECORDS)):
        yield lead + _encode(part)[1:-1]
        lead = b",\n"
