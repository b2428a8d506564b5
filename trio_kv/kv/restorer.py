"""The way back from a snapshot: chunks in, a state machine out."""

from collections.abc import Callable

import msgspec

from trio_kv.kv.expiry import Expiry
from trio_kv.kv.image import (
    FirstChunk,
    ReplyRecord,
    SessionRecord,
    TimedItemRecord,
    decode_first,
    decode_records,
)
from trio_kv.kv.machine import Machine
from trio_kv.kv.reply import CODES, Item, Origin, Reply
from trio_kv.kv.session import ClientSession, Session
from trio_kv.kv.sessions import Sessions


class Restorer:
    """Makes a machine of the chunks of a snapshot, fed one by one in their order.

    The machine behaves as the one that was frozen from there on. A large snapshot makes millions of small objects,
    none of which Python's collector could ever free: whoever feeds all of it in one go should turn it off meanwhile.
    """

    __slots__ = ("_expiry", "_first", "_items", "_known", "_number", "_sessions", "_texts")

    def __init__(self, known: Callable[[str], Item | None] | None = None) -> None:
        """Start before the first chunk.

        Args:
            known: asked for what another machine of this process holds under a key. An item that is equal
                to it is shared with it, and so is the key's text even where the item is another one.

        """
        self._known = known
        self._first: FirstChunk | None = None
        self._number = 0
        self._sessions = Sessions()
        self._items: dict[str, Item] = {}
        self._expiry = Expiry()
        self._texts: dict[Origin, msgspec.Raw] = {}
        """Values that only answers hold, so far."""

    def feed(self, chunk: bytes) -> None:
        """Take the next chunk. After an error this restorer is of no use any more.

        Raises:
            ValueError: it is not the next chunk of a snapshot, or the snapshot has a format not known here.

        """
        if self._first is None:
            self._first = decode_first(chunk)
            return
        records = decode_records(chunk)
        self._number += 1
        if records.chunk != self._number:
            raise ValueError(f"chunk {records.chunk} came where chunk {self._number} was due")
        for record in records.sessions:
            self._sessions.add(record.session, _make_session(record))
        for answer in records.replies:
            self._add_reply(answer)
        self._add_items(records.items, self._known)

    def finish(self) -> Machine:
        """Return the machine, when all chunks were fed. Call it once.

        Raises:
            ValueError: chunks are missing, or one told a record twice.

        """
        if self._first is None:
            raise ValueError("no chunk of the snapshot came")
        counts = self._first.counts
        came = self._came()
        if came != (counts.sessions, counts.replies, counts.items):
            raise ValueError(
                f"{came[0]} sessions, {came[1]} replies and {came[2]} items came, "
                f"but the snapshot has {counts.sessions}, {counts.replies} and {counts.items}"
            )
        head, machine = self._first.head, Machine()
        machine.applied, machine.applied_term, machine.time_us = head.applied, head.applied_term, head.time_us
        machine.entries_digest, machine.state_digest = head.entries_digest, head.state_digest
        machine.sessions, machine.items, machine.expiry = self._sessions, self._items, self._expiry
        return machine

    def _add_items(self, records: list[TimedItemRecord], known: Callable[[str], Item | None] | None) -> None:
        """Add items, sharing those that are equal to one that is known."""
        items = self._items
        for record in records:
            key, value, revision = record.key, record.value, record.revision
            item = None if known is None else known(key)
            if item is not None:
                key = item.key
            due = None if record.due_us is None else (record.due_us, key)
            if item is None or item.revision != revision or item.value != value or item.due != due:
                # Copied, so that a value that stays does not keep the whole chunk in memory.
                item = Item(value.copy(), revision, key, due)
            if due is not None:
                # One by one: to sort all of them at the end would hold up everybody else.
                self._expiry.replace(items.get(key), item)
            items[key] = item

    def _add_reply(self, answer: ReplyRecord) -> None:
        session = self._sessions.by_id.get(answer.session)
        if session is None:
            raise ValueError(
                f"seq {answer.seq} belongs to session {answer.session}, which did not come before it"
            )
        if answer.code not in CODES:
            raise ValueError(f"seq {answer.seq} of session {answer.session} was answered {answer.code!r}")
        origin = answer.find_origin()
        value = None if origin is None else self._find_text(answer, origin)
        reply = Reply(answer.code, value, answer.revision, answer.message)
        if origin is None:
            session.replies[answer.seq] = reply
        else:
            self._sessions.keep(session, answer.seq, reply, origin)
        if isinstance(session, ClientSession):
            session.note(answer.seq, answer.digest)
            self._sessions.count(session)

    def _find_text(self, answer: ReplyRecord, origin: Origin) -> msgspec.Raw:
        """Return the value of an answer: its own, one that an answer before it told, or that of the key."""
        text = self._texts.get(origin)
        if text is None and answer.has_value:
            text = self._texts[origin] = answer.value.copy()
        if text is None:
            item = self._items.get(origin[0])
            if item is None or item.revision != origin[1]:
                raise ValueError(
                    f"seq {answer.seq} of session {answer.session} was answered with what {origin[0]!r} held at"
                    f" revision {origin[1]}, which is nowhere"
                )
            text = item.value
        return text

    def _came(self) -> tuple[int, int, int]:
        """Count the sessions, replies and items that came so far."""
        replies = sum(len(session.replies) for _, session in self._sessions)
        return len(self._sessions), replies, len(self._items)


def _make_session(record: SessionRecord) -> Session:
    if record.secret:
        return ClientSession(record.secret, record.timeout_us, record.used_us, record.done)
    return Session(record.timeout_us, record.used_us, record.done)
