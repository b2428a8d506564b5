"""A snapshot's bytes: the state machine as chunks of JSON text.

Each chunk is one JSON object and a newline, and says its number. The first tells format, version and what there
is one of: digests, cluster time, and how many records follow. Then come the sessions, the items, and the answers that
the sessions keep, each record an array. Keys and values stand in it as JSON text, so a person can read it, it never
holds a run of zero bytes, and a value keeps every digit. A record may grow at its end: an item that
ends carries its time there.

**A text is told once.** An answer that holds a value names the key and the revision that it comes from. If that is
what the key still holds, or an answer before it told the same one, nothing more is said; so it is one object again
in the memory of who restores it. Version 1 told each value with each answer, and the answers before the items; version
2 has shorter records. Both are read as well.

A chunk is small, so that it is made, sent, stored and read back in a moment, and needs no other one to be
understood. Where one ends depends on nothing but the records: machines that applied the same entries make the
same chunks, whether or not one of them was restored or frozen on the way.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from trio_kv.kv.reply import Item, Origin
from trio_kv.kv.session import ClientSession, Session

FORMAT = "trio_kv state"
VERSION = 3
VERSIONS_READ = (1, 2, 3)

CHUNK_BYTES_MAX = 128 * 1024
"""Bytes of a chunk, unless it holds a single record that is larger."""

CHUNK_RECORDS_MAX = 1024
"""Records in a chunk: they are made one by one, so this bounds how long nothing else runs."""

FRAME_BYTES_MAX = 64
"""Bytes of a chunk around its records."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a state machine has one of."""

    applied: int
    applied_term: int
    time_us: int
    entries_digest: int
    state_digest: int


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many records of each kind a snapshot holds."""

    sessions: int
    replies: int
    items: int


class Label(msgspec.Struct, frozen=True):
    """The beginning of the first chunk: what this is."""

    format: str
    version: int


class FirstChunk(msgspec.Struct, frozen=True, kw_only=True):
    """What stands before the records."""

    format: str = FORMAT
    version: int = VERSION
    head: Head
    counts: Counts


class PlainSessionRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One open session of a gateway."""

    session: int
    timeout_us: int
    used_us: int
    done: int


class SessionRecord(PlainSessionRecord, frozen=True, array_like=True, gc=False):
    """One open session."""

    secret: str = ""
    """Of one that a client opened."""


class PlainReplyRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One answer that a session keeps, and that has no value; in version 1 any answer."""

    session: int
    seq: int
    code: str
    value: msgspec.Raw
    """`null` both for no value and for the value `null`, so `has_value` tells them apart."""
    has_value: bool
    """Whether the value stands here."""
    revision: int
    message: str


class ValueReplyRecord(PlainReplyRecord, frozen=True, array_like=True, gc=False):
    """One answer that a session of a gateway keeps."""

    key: str = ""
    origin: int = 0
    """Key and revision that the value comes from. 0: it has none, or this is version 1."""

    def find_origin(self) -> Origin | None:
        """Return what tells its value from others; None if it has no value."""
        if self.origin:
            return self.key, self.origin
        # Version 1 names no key, which no key is called. An index made one text only, or removed one.
        return ("", self.revision) if self.has_value else None


class ReplyRecord(ValueReplyRecord, frozen=True, array_like=True, gc=False):
    """One answer that a session keeps."""

    digest: int = 0
    """Of what it answers, in the session of a client."""


class ItemRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One key."""

    key: str
    value: msgspec.Raw
    revision: int


class TimedItemRecord(ItemRecord, frozen=True, array_like=True, gc=False):
    """One key that ends; read as any other, it may be one that does not."""

    due_us: int | None = None
    """Cluster time at which it does."""


class Records(msgspec.Struct, frozen=True):
    """Any chunk but the first: records of one kind."""

    chunk: int
    """Its number; the first chunk is 0."""
    sessions: list[SessionRecord] = []
    replies: list[ReplyRecord] = []
    items: list[TimedItemRecord] = []


_NULL = msgspec.Raw(b"null")
_NOWHERE: Origin = ("", 0)
_encode = msgspec.json.Encoder().encode
_label_decoder = msgspec.json.Decoder(Label)
_first_decoder = msgspec.json.Decoder(FirstChunk)
_records_decoder = msgspec.json.Decoder(Records)


def encode_chunks(head: Head, sessions: Mapping[int, Session], items: Mapping[str, Item]) -> Iterator[bytes]:
    """Yield the chunks of a snapshot. Nothing of what is given may change between two of them."""
    replies = sum(len(session.replies) for session in sessions.values())
    counts = Counts(sessions=len(sessions), replies=replies, items=len(items))
    yield _encode(FirstChunk(head=head, counts=counts)) + b"\n"
    number = 1
    for kind, records in (
        ("sessions", _encode_sessions(sessions)),
        ("items", _encode_items(items)),
        ("replies", _encode_replies(sessions, items)),
    ):
        for text in _cut(records):
            yield b'{"chunk":%d,"%s":[%s]}\n' % (number, kind.encode(), text)
            number += 1


def move_first(chunk: bytes, applied: int) -> bytes:
    """Return the first chunk of a snapshot that holds the same state as if this were its last entry.

    Raises:
        ValueError: as `decode_first`.

    """
    first = decode_first(chunk)
    head = msgspec.structs.replace(first.head, applied=applied)
    return _encode(msgspec.structs.replace(first, head=head)) + b"\n"


def decode_first(chunk: bytes) -> FirstChunk:
    """Read the first chunk of a snapshot.

    Raises:
        ValueError: this is no such chunk, or one in a format that is not known here.

    """
    label = _label_decoder.decode(chunk)
    if label.format != FORMAT or label.version not in VERSIONS_READ:
        raise ValueError(
            f"this is {label.format!r} version {label.version}, not {FORMAT!r} version {VERSION}"
        )
    return _first_decoder.decode(chunk)


def decode_records(chunk: bytes) -> Records:
    """Read any other chunk. Values are views: whoever keeps one has to copy it, or it keeps the chunk.

    Raises:
        ValueError: this is no such chunk.

    """
    return _records_decoder.decode(chunk)


def _encode_sessions(sessions: Mapping[int, Session]) -> Iterator[bytes]:
    for session_id, session in sessions.items():
        members = session_id, session.timeout_us, session.used_us, session.done
        secret = session.secret
        yield _encode(SessionRecord(*members, secret) if secret else PlainSessionRecord(*members))


def _encode_replies(sessions: Mapping[int, Session], items: Mapping[str, Item]) -> Iterator[bytes]:
    told: set[Origin] = set()
    for session_id, session in sessions.items():
        digests = session.digests if isinstance(session, ClientSession) else None
        for seq, reply in session.replies.items():
            value, has_value, origin = _NULL, False, session.origins.get(seq)
            if origin is not None and origin not in told and not _is_held(items, origin):
                assert reply.value is not None
                value, has_value = reply.value, True
            members = session_id, seq, reply.code, value, has_value, reply.revision, reply.message
            if origin is not None:
                told.add(origin)
            if digests is not None:
                yield _encode(ReplyRecord(*members, *(origin or _NOWHERE), digests.get(seq, 0)))
            elif origin is not None:
                yield _encode(ValueReplyRecord(*members, *origin))
            else:
                yield _encode(PlainReplyRecord(*members))


def _is_held(items: Mapping[str, Item], origin: Origin) -> bool:
    """Tell whether a key holds what it held at that revision."""
    item = items.get(origin[0])
    return item is not None and item.revision == origin[1]


def _encode_items(items: Mapping[str, Item]) -> Iterator[bytes]:
    for key, item in items.items():
        if item.due is None:
            yield _encode(ItemRecord(key, item.value, item.revision))
        else:
            yield _encode(TimedItemRecord(key, item.value, item.revision, item.due[0]))


def _cut(records: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the insides of JSON arrays, each of as many records as a chunk may hold."""
    room_bytes = CHUNK_BYTES_MAX - FRAME_BYTES_MAX
    part: list[bytes] = []
    part_bytes = 0
    for record in records:
        size_bytes = len(record) + 1
        if part and (part_bytes + size_bytes > room_bytes or len(part) == CHUNK_RECORDS_MAX):
            yield b",".join(part)
            part, part_bytes = [], 0
        part.append(record)
        part_bytes += size_bytes
    if part:
        yield b",".join(part)
