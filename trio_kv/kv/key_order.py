"""The keys in the order of their UTF-8 bytes, which is that of Python's strings: both order code points.

The order is kept for who asks for ranges of keys, and exists from the first such question on. A change of a key only
notes the key, and only if it came or went. Noted keys are put in place later, some at a time: to sort a million of them
at once would hold up everybody else for a second.

Keys lie in buckets, each of which has its range. The first keys are spread over buckets whose ranges a sample of them
tells, and each bucket is sorted then: three times as fast as to put one key after the other in its place.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence

from trio_kv.kv.layers import Layers
from trio_kv.kv.operations.operation import Change, NoChange, SessionChange
from trio_kv.kv.reply import Item

BUCKET_KEYS = 1024
"""Keys of a bucket, about; one of more than twice as many is cut in two."""

SAMPLE_STEP = 128
"""Each so manieth key is in the sample."""


class KeyOrder:
    """Which keys there are, in order.

    Invariants: a key that is in a bucket and not in `items`, or the other way round, is noted or yet to be spread; a
    bucket has the keys from its begin on up to the begin of the next one, each once; the first bucket begins with "".

    Args:
        items: all keys. It may be another mapping of the same keys at each call.

    """

    __slots__ = ("_begins", "_buckets", "_noted", "_sorted", "_unspread")

    def __init__(self, items: Mapping[str, Item]) -> None:
        """Take in all keys, without any work a key."""
        below, changed = items.layers if isinstance(items, Layers) else (items, ())
        self._unspread = list(below)
        self._noted: dict[str, None] = dict.fromkeys(changed)
        sample = sorted(self._unspread[::SAMPLE_STEP])
        self._begins = ["", *sample[BUCKET_KEYS // SAMPLE_STEP :: BUCKET_KEYS // SAMPLE_STEP]]
        self._buckets: list[list[str]] = [[] for _ in self._begins]
        self._sorted = 0
        """How many buckets are in order, once the keys are spread."""

    @property
    def unsettled(self) -> int:
        """How many keys there are to put in place, about."""
        unsorted = (len(self._buckets) - self._sorted) * BUCKET_KEYS
        return len(self._noted) + len(self._unspread) + unsorted

    def note(self, changes: Sequence[Change | SessionChange | NoChange]) -> None:
        """Note the keys that came or went by these changes."""
        for change in changes:
            if isinstance(change, Change) and (change.previous == 0 or change.value is None):
                self._noted[change.key] = None

    def settle(self, items: Mapping[str, Item], keys_max: int) -> bool:
        """Put at most so many keys in place, or a bucket more; return whether none is left."""
        if self._unspread:
            begins, buckets = self._begins, self._buckets
            for key in self._unspread[-keys_max:]:
                buckets[bisect_right(begins, key) - 1].append(key)
            del self._unspread[-keys_max:]
        elif self._sorted < len(self._buckets):
            keys = 0
            while keys < keys_max and self._sorted < len(self._buckets):
                bucket = self._buckets[self._sorted]
                bucket.sort()
                self._sorted += 1
                keys += len(bucket) + 1
        else:
            self._place_noted(items, keys_max)
        return not self.unsettled

    def between(self, first: str, end: str | None) -> Iterator[str]:
        """Yield the keys from `first` on that come before `end`; all of them if that is None.

        Raises:
            AssertionError: there are keys that are not in place.

        """
        (number, place), (last, stop) = self._find_range(first, end)
        while number < last:
            yield from self._buckets[number][place:]
            number, place = number + 1, 0
        yield from self._buckets[number][place:stop]

    def between_reversed(self, first: str, end: str | None) -> Iterator[str]:
        """Yield the same keys as `between`, the last one first. Raises the same."""
        (number, place), (last, stop) = self._find_range(first, end)
        while last > number:
            yield from reversed(self._buckets[last][:stop])
            last -= 1
            stop = len(self._buckets[last])
        yield from reversed(self._buckets[last][place:stop])

    def count(self, first: str, end: str | None) -> int:
        """Return how many keys `between` would yield, without going through them. Raises the same."""
        (number, place), (last, stop) = self._find_range(first, end)
        return sum(map(len, self._buckets[number:last])) + stop - place

    def _find_range(self, first: str, end: str | None) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return where a range of keys begins and where it ends: a bucket and a place in it."""
        assert not self.unsettled, "there are keys that are not in place"
        if end is None:
            return self._find(first), (len(self._buckets) - 1, len(self._buckets[-1]))
        return self._find(first), self._find(max(first, end))

    def _find(self, key: str) -> tuple[int, int]:
        """Return the bucket in which a key is or would be, and its place there."""
        number = bisect_right(self._begins, key) - 1
        return number, bisect_left(self._buckets[number], key)

    def _place_noted(self, items: Mapping[str, Item], keys_max: int) -> None:
        noted, buckets = self._noted, self._buckets
        for _ in range(min(keys_max, len(noted))):
            key, _ = noted.popitem()
            number = bisect_right(self._begins, key) - 1
            bucket = buckets[number]
            place = bisect_left(bucket, key)
            is_there = place < len(bucket) and bucket[place] == key
            if (key in items) == is_there:
                continue
            if is_there:
                del bucket[place]
                if not bucket and number:
                    del buckets[number], self._begins[number]
            else:
                bucket.insert(place, key)
                if len(bucket) > 2 * BUCKET_KEYS:
                    buckets.insert(number + 1, bucket[BUCKET_KEYS:])
                    self._begins.insert(number + 1, bucket[BUCKET_KEYS])
                    del bucket[BUCKET_KEYS:]
            self._sorted = len(buckets)
