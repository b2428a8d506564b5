"""A counter: a whole number that many add to.

**What it promises.** What was added and answered is counted once, with a client that repeats its writes, as
`open_client` does unless it is told not to; each answer is the sum at one moment, so no two are the same while only one
thing is added.

**What it does not.** After an `OutcomeUnknownError` that which was to be added may be counted, now or a little later.
"""

from trio_kv.client.trio_client import TrioClient


class Counter:
    """A counter by the name of a key, see the module. A key that is missing counts as 0."""

    def __init__(self, kv: TrioClient, key: str) -> None:
        """Prepare to count.

        Args:
            kv: the client.
            key: what holds the number.

        """
        self._kv = kv
        self._key = key

    async def add(self, number: int = 1) -> int:
        """Add a number, which may be negative, and return the sum.

        Raises:
            ConflictError: the key holds something else than a whole number of at most 18 digits, or the sum is none.

        """
        total: int = (await self._kv.incr(self._key, number)).data
        return total

    async def total(self) -> int:
        """Return the number."""
        return await self._kv.get(self._key, int) or 0
