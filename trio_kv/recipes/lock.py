"""A lock that ends by itself when its holder is gone, with a token by which a late holder is told from the real one.

**What it promises.** Of those who ask for it one gets it, and another one only after the first has released it or could
not renew it for `ttl_s`. Each one that gets it has a higher token than all before. What is written by `Held.txn` is
written by nobody but the holder: the store looks whether the lock is still held in the moment of the write.

**What it does not.** That a holder knows when it is no holder any more. Its process may stand still, or its clock go
slowly, while the lock ends and somebody else gets it: then two believe that they hold it. So what must not be done by
two is done by `Held.txn`, or by something that knows the token and refuses all that is lower than the highest it has
seen. Nor is there an order among those who wait, or a bound on how long they do.
"""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import trio

from trio_kv.client.background import running_beside
from trio_kv.client.errors import ConflictError, OutcomeUnknownError, StoreError
from trio_kv.client.trio_client import TrioClient
from trio_kv.client.txns import Members, TxnReply
from trio_kv.recipes.waiting import wait_key

RENEWALS = 3
"""So often a lock is renewed in the time for which it lasts."""
RELEASE_S = 1.0
"""So long a release may take; without it the lock ends when its time is over."""


class LockLostError(Exception):
    """The lock is not held any more: it could not be renewed in time, or the store says so."""


class Held:
    """A lock that is held, as far as its holder knows."""

    def __init__(self, kv: TrioClient, key: str, value: dict[str, str], token: int, until_s: float) -> None:
        """Hold a lock; `Lock.hold` does."""
        self.token = token
        """A number that is higher than that of each earlier holder."""
        self._kv = kv
        self._key = key
        self._value = value
        self._until_s = until_s

    @property
    def is_sure(self) -> bool:
        """Whether it is held for sure, if clocks go alike; see the module for what that is worth."""
        return trio.current_time() < self._until_s

    @property
    def condition(self) -> Members:
        """What holds as long as the lock is held: a condition for transactions of one's own."""
        return {"key": self._key, "equals": self._value}

    async def txn(self, then: Sequence[Members], *, conditions: Sequence[Members] = ()) -> TxnReply:
        """Carry out operations together, if the lock is still held in that moment.

        Args:
            then: as for `Client.txn`.
            conditions: what else must hold, as for `Client.txn`. If only that does not, the reply says so
                (`has_succeeded`), and nothing was changed.

        Raises:
            LockLostError: it is not held, and nothing was changed.
            StoreError: see `Client.txn`.

        """
        look = {"op": "get", "key": self._key}
        reply = await self._kv.txn(then, conditions=[self.condition, *conditions], otherwise=[look])
        if not reply.has_succeeded and reply.results[0].data != self._value:
            raise LockLostError(f"the lock {self._key} is not held any more: nothing was changed")
        return reply

    async def renew(self, ttl_s: float) -> None:
        """Hold it for so long from now on.

        Raises:
            LockLostError: it is not held.
            StoreError: it may not have been renewed.

        """
        begun_s = trio.current_time()
        try:
            await self._kv.cas(self._key, self._value, expected=self._value, ttl_s=ttl_s)
        except ConflictError as error:
            raise LockLostError(f"the lock {self._key} is not held any more") from error
        self._until_s = begun_s + ttl_s

    async def keep(self, ttl_s: float) -> None:
        """Renew it again and again.

        Raises:
            LockLostError: it is not held any more, or that is not known.

        """
        pause_s = ttl_s / RENEWALS
        while True:
            await trio.sleep(pause_s)
            with trio.CancelScope(deadline=self._until_s) as rest:
                try:
                    await self.renew(ttl_s)
                except StoreError:
                    pause_s = ttl_s / RENEWALS / 10
                else:
                    pause_s = ttl_s / RENEWALS
            if rest.cancelled_caught or not self.is_sure:
                raise LockLostError(f"the lock {self._key} could not be renewed in time")

    async def release(self) -> None:
        """Let others have it; nothing happens if it is not held."""
        with trio.move_on_after(RELEASE_S, shield=True):
            try:
                await self._kv.txn([{"op": "delete", "key": self._key}], conditions=[self.condition])
            except (StoreError, trio.ClosedResourceError):
                # It ends by itself.
                return


class Lock:
    """A lock by the name of a key, see the module. Nothing is held before `hold`."""

    def __init__(
        self,
        kv: TrioClient,
        key: str,
        *,
        ttl_s: float = 10.0,
        holder: str = "",
        make_id: Callable[[], str] = lambda: secrets.token_hex(8),
    ) -> None:
        """Prepare a lock.

        Args:
            kv: the client.
            key: its name; whoever uses the same one competes for it.
            ttl_s: for how long it lasts without its holder, who renews it. 0.1 s to a year.
            holder: what others are told of who holds it.
            make_id: tells holders apart; never the same twice.

        """
        self.key = key
        self._kv = kv
        self._ttl_s = ttl_s
        self._holder = holder
        self._make_id = make_id

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[Held]:
        """Wait for the lock, and hold it as long as the context lasts. It is renewed meanwhile.

        When it can't be renewed in time the body is cancelled, and the context raises.

        Raises:
            LockLostError: it was lost.
            StoreError: it could not be asked for. If that is an `OutcomeUnknownError`, it may be held by nobody until
                its time is over.

        """
        while (held := await self.acquire_nowait()) is None:
            await wait_key(self._kv, self.key, lambda item: item is None)
        async with self.keep(held):
            yield held

    async def acquire_nowait(self) -> Held | None:
        """Take the lock if nobody has it, else return None. What becomes of it then is the caller's: see `keep`.

        Raises:
            StoreError: as of `hold`.

        """
        value = {"holder": self._holder, "id": self._make_id()}
        held = Held(self._kv, self.key, value, 0, trio.current_time() + self._ttl_s)
        try:
            reply = await self._kv.cas(self.key, value, ttl_s=self._ttl_s, meta=True)
        except ConflictError:
            return None
        except (OutcomeUnknownError, trio.Cancelled):
            # It may be ours by now, and nobody would know.
            await held.release()  # noqa: ASYNC102 - it shields, for a while
            raise
        assert reply.revision is not None
        held.token = reply.revision
        return held

    @asynccontextmanager
    async def keep(self, held: Held) -> AsyncIterator[None]:
        """Renew a lock as long as the context lasts, and release it then.

        Raises:
            LockLostError: it was lost.

        """
        try:
            async with running_beside(lambda: held.keep(self._ttl_s)):
                yield
        finally:
            await held.release()  # noqa: ASYNC102 - it shields, for a while
