"""What people build on a store like this: locks, elections, counters, queues and caches, on the client on Trio.

Each recipe is a few requests of `TrioClient`, and says what it promises and what it does not.
"""

from trio_kv.recipes.cache import Cache, open_cache
from trio_kv.recipes.counter import Counter
from trio_kv.recipes.election import Election
from trio_kv.recipes.lock import Held, Lock, LockLostError
from trio_kv.recipes.queue import Queue, Taken

__all__ = ["Cache", "Counter", "Election", "Held", "Lock", "LockLostError", "Queue", "Taken", "open_cache"]
