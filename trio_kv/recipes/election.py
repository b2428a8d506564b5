"""Elections: of many candidates one leads, and all can know who.

**What it promises.** What a lock does: one leads at a time as far as the store knows, each with a higher token than all
before, and the deeds of a leader that go through `Held.txn` are its deeds alone.

**What it does not.** That a former leader knows at once that it is one: see `recipes.lock`. What `leader` returns is
true of the moment at which the store was asked. And candidates have no turns: who asks first is the next one.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from trio_kv.client.answers import Item
from trio_kv.client.trio_client import TrioClient
from trio_kv.recipes.lock import Held, Lock
from trio_kv.recipes.waiting import wait_key


class Election:
    """An election by the name of a key, see the module."""

    def __init__(
        self,
        kv: TrioClient,
        key: str,
        candidate: str,
        *,
        ttl_s: float = 10.0,
        make_id: Callable[[], str] | None = None,
    ) -> None:
        """Prepare to stand for election, or to look who leads.

        Args:
            kv: the client.
            key: the name of the election.
            candidate: the name of who stands.
            ttl_s: for how long a leader that is gone still leads.
            make_id: see `Lock`.

        """
        options: dict[str, Any] = {} if make_id is None else {"make_id": make_id}
        self._kv = kv
        self._lock = Lock(kv, key, ttl_s=ttl_s, holder=candidate, **options)

    @asynccontextmanager
    async def lead(self) -> AsyncIterator[Held]:
        """Wait to be elected, and lead as long as the context lasts. See `Lock.hold`, also for what it raises."""
        async with self._lock.hold() as held:
            yield held

    async def leader(self) -> str | None:
        """Return who leads; None if nobody does."""
        reply = await self._kv.get(self._lock.key)
        return None if reply.value is None or reply.code == "missing" else reply.data["holder"]

    async def wait_leader(self, *, other_than: str | None = None) -> str:
        """Return who leads, as soon as somebody does.

        Args:
            other_than: somebody else than this one.

        """

        def is_enough(item: Item | None) -> bool:
            return item is not None and item.data["holder"] != other_than

        item = await wait_key(self._kv, self._lock.key, is_enough)
        assert item is not None
        name: str = item.data["holder"]
        return name
