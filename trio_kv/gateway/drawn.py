"""What a watch is about, and what it is told at a time."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

import attrs

from trio_kv.kv.history import History
from trio_kv.kv.operations.operation import Change

DRAWN_BYTES_MAX: Final = 64 * 1024
"""What is told at a time ends with the revision with which it becomes more than this."""
READ_CHANGES_MAX: Final = 4096
"""Changes that are looked through at a time."""

_revision_of = attrgetter("revision")
_key_of = attrgetter("key")


@attrs.frozen
class Selector:
    """Which keys a watch is about."""

    text: str
    is_prefix: bool

    def select(self, changes: Iterable[Change]) -> list[Change]:
        """Return the changes of these keys."""
        text = self.text
        if self.is_prefix:
            return [each for each in changes if each.key.startswith(text)]
        return [each for each in changes if each.key == text]


@attrs.define(eq=False)
class Drawn:
    """What a watch is told next: all of (after, upto] that it is about. Watches at the same place share it."""

    after: int
    upto: int
    revisions: Sequence[Sequence[Change]] = ()
    """The changes of each revision, in the order of their keys. None: up to `upto` nothing is left to be told."""
    is_cut: bool = False
    """There is more to be told: this is as much as is told at a time."""
    is_lost: bool = False
    """The watch has ended: what is behind `after` is not there any more."""
    bodies: Sequence[bytes] | None = None
    lines: dict[bytes, bytes] = attrs.field(factory=dict)
    """What the owners of the watches have made of it, so that it is made once."""


def draw(history: History, selector: Selector, after: int, end: int) -> Drawn:
    """Return what a history has to tell behind a revision, up to another one."""
    revisions: list[Sequence[Change]] = []
    size_bytes, upto = 0, after
    while upto < end:
        read_upto, changes = history.read(upto, READ_CHANGES_MAX)
        if read_upto > end:
            read_upto = end
            changes = changes[: bisect_right(changes, end, key=_revision_of)]
        for revision, group in groupby(selector.select(changes), _revision_of):
            selected = list(group)
            revisions.append(sorted(selected, key=_key_of) if len(selected) > 1 else selected)
            size_bytes += sum([len(each.key) + len(each.value or b"") for each in selected])
            if size_bytes > DRAWN_BYTES_MAX:
                return Drawn(after, revision, revisions, is_cut=True)
        upto = read_upto
    return Drawn(after, upto, revisions)
