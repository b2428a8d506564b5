"""Answers that tell more than the value of one key, as Python objects."""

from typing import Any, TypeVar

import attrs
import msgspec

from trio_kv.wire.operations import ABSENT
from trio_kv.wire.replies import ReplyError, ReplyLine, read_as

T = TypeVar("T")


class Item(msgspec.Struct, frozen=True):
    """A key on a page."""

    key: str
    revision: int
    value: msgspec.Raw = ABSENT
    """The text of its value; empty if values were not asked for."""

    @property
    def data(self) -> Any:
        """The value as a Python object; None if values were not asked for.

        Raises:
            ValueError: it is a number that Python can't hold.

        """
        return msgspec.json.decode(self.value) if len(self.value) else None

    def to(self, kind: type[T]) -> T | None:
        """Return the value as one of a kind, see `ReplyLine.to`; None if values were not asked for."""
        return read_as(self.value, kind) if len(self.value) else None


@attrs.frozen
class Page:
    """One page of a scan: all of it is from one state of the store."""

    items: tuple[Item, ...]
    is_more: bool
    """Whether there are keys behind the last one."""
    revision: int
    """Of the last write that it may tell of."""


class _PageLine(msgspec.Struct):
    items: tuple[Item, ...]
    more: bool
    revision: int


class _CountLine(msgspec.Struct):
    count: int


def read_page(reply: ReplyLine) -> Page:
    """Return the page that a reply tells.

    Raises:
        ReplyError: it tells none.

    """
    line = _decode(reply, _PageLine)
    return Page(line.items, line.more, line.revision)


def read_count(reply: ReplyLine) -> int:
    """Return how many keys a reply tells of. Raises ReplyError: it tells of none."""
    return int(_decode(reply, _CountLine).count)


def _decode(reply: ReplyLine, kind: type[Any]) -> Any:
    try:
        return msgspec.json.decode(reply.line, type=kind)
    except msgspec.DecodeError as error:
        raise ReplyError(f"this is not what was asked for: {error}") from error
