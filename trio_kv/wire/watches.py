"""Watches on the wire: how one is begun and ended, and the lines that come of it between replies."""

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType, field

from trio_kv.kv.operations.operation import Change, Key, Operation, Revision
from trio_kv.kv.reply import Reply

PROGRESS_S_MIN = 0.5
PROGRESS_S_MAX = 3600.0


class Watch(Operation, frozen=True, gc=False, tag="watch"):
    """Be told of all changes of a key, or of all keys that begin with something."""

    words = "[PREFIX] [FROM]"
    purpose = "what changes, as it comes, or from a revision on"
    needs_id = True

    key: Key | UnsetType = UNSET
    prefix: str | UnsetType = UNSET
    first: Revision | UnsetType = field(default=UNSET, name="from")
    """The first revision to be told of; left out: what comes next."""
    progress: Annotated[float, Meta(ge=PROGRESS_S_MIN, le=PROGRESS_S_MAX)] | UnsetType = UNSET
    """Seconds: so often a line without events tells how far it is."""

    def find_problem(self) -> str | None:
        """Return that it must be about one thing, if it is not."""
        if (self.key is UNSET) == (self.prefix is UNSET):
            return 'a watch has either "key" or "prefix", as {"op": "watch", "prefix": "user/", "id": 1}'
        return None

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:  # noqa: ARG002 - as the other operations
        """Tell nothing in front of the status."""
        return ()

    def encode_tail(self, reply: Reply) -> bytes:
        """Tell up to where all was applied."""
        return b', "revision": %d' % reply.revision


class Unwatch(Operation, frozen=True, gc=False, tag="unwatch"):
    """End a watch of this connection: the one with this id."""

    purpose = "an end to a watch"
    needs_id = True

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:  # noqa: ARG002 - as the other operations
        """There is nothing to tell."""
        return ()


_encode = msgspec.json.Encoder().encode


def encode_bodies(revisions: Iterable[Sequence[Change]]) -> list[bytes]:
    """Return the lines of these revisions, one each, without their beginnings, which `encode_lines` adds."""
    bodies = []
    for changes in revisions:
        events = b", ".join([_encode_event(change) for change in changes])
        bodies.append(b', "revision": %d, "events": [%b]}\n' % (changes[0].revision, events))
    return bodies


def encode_lines(id: bytes, bodies: Iterable[bytes]) -> bytes:
    """Return the lines of the watch with this id."""
    begin = b'{"watch": ' + id
    return b"".join([begin + body for body in bodies])


def encode_progress(id: bytes, revision: int) -> bytes:
    """Return the line that says: all up to this revision was told."""
    return b'{"watch": %b, "revision": %d, "events": []}\n' % (id, revision)


def encode_lost(id: bytes, revision: int) -> bytes:
    """Return the last line of a watch that was too slow: it can begin anew from this revision."""
    return b'{"watch": %b, "event": "lost", "revision": %d}\n' % (id, revision)


def _encode_event(change: Change) -> bytes:
    key = _encode(change.key)
    if change.value is None:
        return b'{"event": "%b", "key": %b}' % (change.kind.encode(), key)
    return b'{"event": "set", "key": %b, "value": %b}' % (key, change.value)
