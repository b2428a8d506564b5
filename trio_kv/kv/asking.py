"""What is asked in the midst of entries that are applied: each question is answered at its place."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from trio_kv.kv.operations import AnyQuery
from trio_kv.kv.paging import MANY, Paging
from trio_kv.kv.reply import Reply

QUERIES_IN_A_CALL_MAX = 16_384
"""Queries answered in one call of `Machine.apply`, in some milliseconds; once it is more, further entries wait."""

QUERIES_A_PAGE = 4096
"""As so many queries a page counts."""


class Asked(msgspec.Struct, frozen=True):
    """Queries in the midst of entries."""

    index: int
    """They are answered from the state after the entry with this index."""
    queries: Sequence[AnyQuery]
    replies: list[Reply]
    """Their replies are added to this."""


class Asker(Protocol):
    """Whom they are asked: a `Machine`."""

    applied: int
    pages: Paging

    def query(self, queries: Sequence[AnyQuery]) -> list[Reply]:
        """Answer queries from its state."""


class Asking:
    """The questions of one call of `Machine.apply`, while its entries are applied.

    Args:
        asked: in the order of their indexes.

    """

    __slots__ = ("_asked", "_count", "_done")

    def __init__(self, asked: Sequence[Asked]) -> None:
        """Answer none yet; see the class."""
        self._asked = asked
        self._done = 0
        self._count = 0

    def answer(self, machine: Asker) -> bool:
        """Answer what is asked at the place where the machine stands; return whether there is time for more."""
        asked, done = self._asked, self._done
        if done < len(asked) and asked[done].index <= machine.applied:
            pages = machine.pages
            pages.left = MANY
            while done < len(asked) and asked[done].index <= machine.applied:
                each = asked[done]
                each.replies.extend(machine.query(each.queries))
                done, self._count = done + 1, self._count + len(each.queries)
            self._done = done
            self._count += QUERIES_A_PAGE * (MANY - pages.left)
            pages.left = MANY
        return self._count <= QUERIES_IN_A_CALL_MAX

    def entries_until(self, machine: Asker, entries_max: int) -> int:
        """Return how many entries, at most so many, the machine applies before the next question."""
        if self._done == len(self._asked):
            return entries_max
        return min(entries_max, self._asked[self._done].index - machine.applied)
