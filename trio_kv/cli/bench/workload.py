"""What is asked: requests drawn from a seed, and made before the load begins, so that making them costs nothing then.

The ring of requests is gone round again when it ends. It holds as many as there are keys, within limits: a load that
knows only a few keys of many would measure caches. Each value says its key and a number, so that an answer can be
checked without remembering what was written.
"""

import itertools
import random
from array import array
from collections.abc import Callable, Iterator
from typing import Literal

import attrs

Distribution = Literal["uniform", "zipf"]

RING_REQUESTS_MIN = 16_384
RING_REQUESTS_MAX = 262_144
RING_BYTES_MAX = 64 << 20
ZIPF_EXPONENT = 0.99
"""That of YCSB: of 10,000 keys, every tenth request is for the first one."""
FILL_PIPELINE = 64
FILL_BYTES_MAX = 1 << 20


@attrs.frozen
class Batch:
    """Requests that are sent together, one line each."""

    data: bytes
    sets: int
    gets: int
    size: int = attrs.field(init=False)
    """How many there are."""

    @size.default
    def _size(self) -> int:
        return self.sets + self.gets


@attrs.frozen(kw_only=True)
class Workload:
    """Which requests, and how many of them in a batch."""

    mix: float
    """Share of SETs, in per cent; the others are GETs."""
    is_stale: bool
    """Whether a GET is content with what one follower knows."""
    pipeline: int
    keys: int
    distribution: Distribution
    value_bytes: int
    seed: int

    def make_ring(self) -> list[Batch]:
        """Return the batches of the load, in order."""
        source = random.Random(self.seed)
        draw = self._keys(source)
        request_bytes = 64 + self.value_bytes
        requests = max(RING_REQUESTS_MIN, min(self.keys, RING_REQUESTS_MAX))
        batches = max(2, min(requests, RING_BYTES_MAX // request_bytes) // self.pipeline)
        numbers = itertools.count(1)
        ring = []
        for _ in range(batches):
            are_sets = [source.random() * 100 < self.mix for _ in range(self.pipeline)]
            lines = [
                self._set_line(draw(), next(numbers)) if is_set else self._get_line(draw())
                for is_set in are_sets
            ]
            ring.append(Batch("".join(lines).encode(), sum(are_sets), self.pipeline - sum(are_sets)))
        return ring

    def fill_batches(self) -> Iterator[Batch]:
        """Yield batches that write each key once."""
        size = max(1, min(FILL_PIPELINE, FILL_BYTES_MAX // (64 + self.value_bytes)))
        for first in range(0, self.keys, size):
            lines = [self._set_line(number, 0) for number in range(first, min(first + size, self.keys))]
            yield Batch("".join(lines).encode(), len(lines), 0)

    def _keys(self, source: random.Random) -> Callable[[], int]:
        """Return what draws the number of a key."""
        if self.distribution == "uniform":
            return lambda: source.randrange(self.keys)
        weights = (1 / rank**ZIPF_EXPONENT for rank in range(1, self.keys + 1))
        cumulated = array("d", itertools.accumulate(weights))
        return lambda: source.choices(range(self.keys), cum_weights=cumulated)[0]

    def _set_line(self, key_number: int, number: int) -> str:
        key = key_of(key_number)
        return f'{{"key": "{key}", "value": "{value_of(key, number, self.value_bytes)}"}}\n'

    def _get_line(self, key_number: int) -> str:
        consistency = ', "consistency": "stale"' if self.is_stale else ""
        return f'{{"key": "{key_of(key_number)}"{consistency}}}\n'


def key_of(number: int) -> str:
    """Return a key: no other use of a store is likely to have one of that name."""
    return f"bench:{number:07}"


def value_of(key: str, number: int, size_bytes: int) -> str:
    """Return the value that is written to a key.

    >>> value_of("bench:0000007", 3, 20)
    'bench:0000007.3.xxxx'

    Args:
        key: the key's name.
        number: tells the writes of one run apart.
        size_bytes: the length; a shorter one than the words need cuts them off.

    """
    return f"{key}.{number}.".ljust(size_bytes, "x")[:size_bytes]


def is_value_of(key: str, value: object) -> bool:
    """Return whether a value is one that was written to a key, by this run or an earlier one, of whatever length."""
    if not isinstance(value, str):
        return False
    words = f"{key}."
    if len(value) <= len(words):
        return words.startswith(value)
    number, _, padding = value.removeprefix(words).partition(".")
    return value.startswith(words) and number.isdecimal() and not padding.strip("x")
