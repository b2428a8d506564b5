"""A cache that watches: all keys with a prefix in memory, kept as the store has them.

**What it promises.** Each key is as it was in the store at some moment since the cache was opened, and never goes back.
What changes comes as soon as the watch tells it, and nothing is left out; `wait_revision` waits until all up to a
revision is there, as that of a write of one's own. Whoever reads it asks nobody.

**What it does not.** That what it holds is still true: it is as late as the watch, and without a connection it stands
still (`silent_s` tells for how long nothing was heard). Different keys may be of different moments until the changes
that came while it was filled have been told. It holds all of its keys: choose the prefix accordingly.
"""

from bisect import bisect_left
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import trio

from trio_kv.client.answers import Item
from trio_kv.client.background import running_beside
from trio_kv.client.errors import CompactedError, NotConnectedError, OverloadedError, UnavailableError
from trio_kv.client.following import Revision
from trio_kv.client.trio_client import TrioClient

RETRY_S = 0.3
PAGE_ITEMS = 1000
"""Keys on a page, of which it is filled."""


class Cache(Mapping[str, Any]):
    """Keys and their values, as Python objects; `item` has the text, the revision, and other kinds. See the module."""

    def __init__(self, kv: TrioClient, prefix: str) -> None:
        """Be empty; `open_cache` fills it."""
        self.revision = 0
        """All changes up to this one are in it."""
        self._kv = kv
        self._prefix = prefix
        self._items: dict[str, Item] = {}
        self._page_ends: list[bytes] = []
        """The last keys of the pages that it was filled with, but for the last page."""
        self._page_revisions: list[int] = []
        self._heard_s = trio.current_time()
        self._changed = trio.Event()

    def __getitem__(self, key: str) -> Any:
        return self._items[key].data

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def item(self, key: str) -> Item | None:
        """Return a key with its value as text and its revision; None if it does not exist."""
        return self._items.get(key)

    @property
    def silent_s(self) -> float:
        """For how long nothing was heard of the store, which tells every few seconds that it is there."""
        return trio.current_time() - self._heard_s

    async def wait_revision(self, revision: int) -> None:
        """Wait until all changes up to a revision are in it."""
        while self.revision < revision:
            await self._changed.wait()
        await trio.lowlevel.checkpoint()

    async def wait_change(self) -> None:
        """Wait until something changes."""
        await self._changed.wait()

    async def fill(self) -> None:
        """Read all keys anew, page by page.

        Raises:
            StoreError: they can't be read.

        """
        items: dict[str, Item] = {}
        ends, revisions = [], []
        after: str | None = None
        while True:
            page = await self._kv.scan(self._prefix, after=after, limit=PAGE_ITEMS)
            items |= {item.key: item for item in page.items}
            revisions.append(page.revision)
            if not page.is_more:
                break
            after = page.items[-1].key
            ends.append(after.encode())
        self._items, self._page_ends, self._page_revisions = items, ends, revisions
        self._heard_s = trio.current_time()
        self._reach(revisions[0])

    async def follow(self) -> None:
        """Take what changes, until cancelled.

        Raises:
            StoreError: the store refuses, as for a token that may not read.

        """
        while True:
            try:
                async with self._kv.watch(self._prefix, first=self.revision + 1) as changes:
                    async for change in changes.with_progress():
                        self._take(change)
            except CompactedError:
                await self._fill_again()
            except (NotConnectedError, UnavailableError, OverloadedError):
                await trio.sleep(RETRY_S)

    async def _fill_again(self) -> None:
        try:
            await self.fill()
        except (NotConnectedError, UnavailableError, OverloadedError):
            await trio.sleep(RETRY_S)

    def _take(self, change: Revision) -> None:
        self._heard_s = trio.current_time()
        for event in change.events:
            if change.revision <= self._known_of(event.key):
                continue
            if event.event == "set":
                self._items[event.key] = Item(event.key, change.revision, event.value)
            else:
                self._items.pop(event.key, None)
        self._reach(change.revision)

    def _known_of(self, key: str) -> int:
        """Return up to which revision the page that had this key, or could have had it, tells of it."""
        return self._page_revisions[bisect_left(self._page_ends, key.encode())]

    def _reach(self, revision: int) -> None:
        self.revision = revision
        self._changed.set()
        self._changed = trio.Event()


@asynccontextmanager
async def open_cache(kv: TrioClient, prefix: str) -> AsyncIterator[Cache]:
    """Fill a cache, and keep it as the store is for as long as the context lasts.

    Args:
        kv: the client.
        prefix: which keys: all that begin so.

    Raises:
        StoreError: it can't be filled; later, that the store refuses to be watched.

    """
    cache = Cache(kv, prefix)
    await cache.fill()
    async with running_beside(cache.follow):
        yield cache
