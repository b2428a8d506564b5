"""A queue: what is put in comes out in order, and is not lost with who has taken it.

**What it promises.** What was put in and answered comes out, at least once. Somebody who takes something has it alone,
until it is done or its taker could not say for `ttl_s` that it is still at work; then the next one gets it. One taker
alone is told that it is done. Of two things the one comes first that was in the queue before the other was put in.

**What it does not.** That nothing is worked on twice: a taker that is cut off may still be at work when the next one
begins, see `recipes.lock`. Whatever must happen once goes with the end, as `Taken.finish(also=...)`. And among takers
there is no order.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs

from trio_kv.client.answers import Item
from trio_kv.client.errors import CompactedError
from trio_kv.client.following import Event
from trio_kv.client.trio_client import TrioClient
from trio_kv.client.txns import Members
from trio_kv.recipes.lock import Held, Lock

LOOK_AT = 100
"""So many things are looked at together for one that nobody has taken, the oldest first."""


@attrs.define(eq=False)
class Taken:
    """A thing that was taken from a queue."""

    item: Item
    """Its key, its value as `data`, or as something else with `to`."""
    held: Held
    """That nobody else has it."""
    is_finished: bool = False

    @property
    def data(self) -> Any:
        """The value as a Python object."""
        return self.item.data

    async def finish(self, also: Sequence[Members] = ()) -> None:
        """Take it out of the queue for good; the end of the context does, if this was not called.

        If it is out already, as after an `OutcomeUnknownError` of an earlier call, nothing is carried out again.

        Args:
            also: operations to be carried out together with that, as for `Client.txn`: once, whoever else has
                worked on it.

        Raises:
            LockLostError: somebody else may have it; nothing was changed.

        """
        is_in = {"key": self.item.key, "exists": True}
        await self.held.txn([{"op": "delete", "key": self.item.key}, *also], conditions=[is_in])
        self.is_finished = True


class Queue:
    """A queue by the name of a prefix, see the module."""

    def __init__(
        self,
        kv: TrioClient,
        prefix: str,
        *,
        ttl_s: float = 10.0,
        make_id: Callable[[], str] | None = None,
    ) -> None:
        """Prepare to put in, or to take.

        Args:
            kv: the client.
            prefix: all its keys begin with this and a slash.
            ttl_s: so long a thing is kept for a taker of whom nothing is heard.
            make_id: see `Lock`.

        """
        self._kv = kv
        self._last = f"{prefix}/last"
        self._items = f"{prefix}/items/"
        self._taken = f"{prefix}/taken/"
        self._all = f"{prefix}/"
        self._options: dict[str, Any] = {"ttl_s": ttl_s}
        if make_id is not None:
            self._options["make_id"] = make_id

    async def put(self, value: object) -> str:
        """Put something in, behind all that is in it; return its key.

        Raises:
            OutcomeUnknownError: it may or may not come out.

        """
        number: int = (await self._kv.incr(self._last)).data
        key = f"{self._items}{number:018}"
        await self._kv.set(key, value)
        return key

    async def count(self) -> int:
        """Return how many things are in it, those that are taken and not finished among them."""
        return await self._kv.count(self._items)

    @asynccontextmanager
    async def take(self) -> AsyncIterator[Taken]:
        """Wait for something, and have it as long as the context lasts.

        It is finished when the context ends without an error; else it is somebody else's turn at once.

        Raises:
            LockLostError: somebody else may have it: it could not be said in time that it is still worked on.

        """
        lock, taken = await self._take()
        async with lock.keep(taken.held):
            yield taken
            if not taken.is_finished:
                await taken.finish()

    async def _take(self) -> tuple[Lock, Taken]:
        """Wait for something that nobody has, and claim it."""
        while True:
            free, first = await self._look()
            for item in free:
                lock = Lock(self._kv, self._taken + item.key.removeprefix(self._items), **self._options)
                held = await lock.acquire_nowait()
                if held is None:
                    continue
                is_there = False
                try:
                    # It may have been finished before its claim was free.
                    is_there = (await self._kv.get(item.key)).code != "missing"
                finally:
                    if not is_there:
                        await held.release()  # noqa: ASYNC102 - it shields, for a while
                if is_there:
                    return lock, Taken(item, held)
            if not free:
                # Else others were faster, and there may be more behind.
                await self._wait_change(first)

    async def _look(self) -> tuple[list[Item], int]:
        """Return the oldest things that nobody has taken, and the first revision that may change that."""
        claims = page = await self._kv.scan(self._taken, has_values=False)
        claimed = {each.key.removeprefix(self._taken) for each in claims.items}
        while page.is_more:
            page = await self._kv.scan(self._taken, after=page.items[-1].key, has_values=False)
            claimed |= {each.key.removeprefix(self._taken) for each in page.items}
        after: str | None = None
        while True:
            page = await self._kv.scan(self._items, after=after, limit=LOOK_AT)
            free = [item for item in page.items if item.key.removeprefix(self._items) not in claimed]
            if free or not page.is_more:
                return free, claims.revision + 1
            after = page.items[-1].key

    async def _wait_change(self, first: int) -> None:
        """Wait until something may be taken that could not be before this revision."""
        # Where not all can be told that came since, there may be something.
        with suppress(CompactedError):
            async with self._kv.watch(self._all, first=first) as changes:
                async for change in changes:
                    if any(self._may_be_taken(event) for event in change.events):
                        return

    def _may_be_taken(self, event: Event) -> bool:
        """Return whether there is something to take now that was not there, or taken."""
        is_item, is_claim = event.key.startswith(self._items), event.key.startswith(self._taken)
        return (is_item and event.event == "set") or (is_claim and event.event != "set")
