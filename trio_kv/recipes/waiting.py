"""How recipes wait for one key: by what the store says now, and by all that changes from there on."""

from collections.abc import Callable
from contextlib import suppress

from trio_kv.client.answers import Item
from trio_kv.client.errors import CompactedError
from trio_kv.client.trio_client import TrioClient


async def wait_key(kv: TrioClient, key: str, is_enough: Callable[[Item | None], bool]) -> Item | None:
    """Wait until a key is as it should be; return it then, None if it does not exist.

    Nothing is missed between the look at the key and the watch. What holds for a moment only may be over again.

    Args:
        kv: the client.
        key: which one.
        is_enough: whether a state of the key will do.

    """
    while True:
        # The key itself is the first of those that begin with it.
        page = await kv.scan(key, limit=1)
        item = next((each for each in page.items if each.key == key), None)
        if is_enough(item):
            return item
        # If it could not be told of all that came, it is looked at again.
        with suppress(CompactedError):
            async with kv.watch(key=key, first=page.revision + 1) as changes:
                async for change in changes:
                    (event,) = change.events
                    gone = event.event != "set"
                    if is_enough(None if gone else Item(key, change.revision, event.value)):
                        break
