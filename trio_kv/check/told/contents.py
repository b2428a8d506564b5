"""What entries hold, compared by checksums of runs of them.

Nodes tell the CRC-32C of each run of entries that they append or commit, and how many bytes it has. One node's runs
begin and end elsewhere than another's; but checksums of neighbours can be joined, so they are compared wherever two
nodes happen to stop at the same index. What a leader appends in its term is the measure.
"""

import functools
from typing import Generic, TypeVar

import attrs

_POLYNOMIAL = 0x82F63B78
"""Of CRC-32C, reflected."""
_ONE = 1 << 31
"""The polynomial 1."""
KNOWN_MAX = 1 << 16
"""So many places are remembered at least, and twice as many at most: nodes are seldom further apart."""

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """A dict that forgets what is old: it holds the newest `KNOWN_MAX` items at least, and twice as many at most."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._new: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """Return an item, if it is known still."""
        found = self._new.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: K, value: V) -> None:
        """Add an item, or replace it."""
        if len(self._new) >= KNOWN_MAX:
            self._old, self._new = self._new, {}
        self._new[key] = value


def join_crc(first: int, second: int, second_bytes: int) -> int:
    """Return the CRC-32C of two texts, one behind the other, from those of each.

    The first one's is what it is times x to the bits of the second one, modulo the polynomial.
    """
    return _multiply(_shift(second_bytes), first) ^ second


def _multiply(a: int, b: int) -> int:
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = a << 1 & 0xFFFFFFFF
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


@functools.lru_cache(maxsize=4096)
def _shift(size_bytes: int) -> int:
    """Return x to the power of 8 times a size."""
    result, power = _ONE, _ONE >> 8
    while size_bytes:
        if size_bytes & 1:
            result = _multiply(power, result)
        power = _multiply(power, power)
        size_bytes >>= 1
    return result


@attrs.define
class Span:
    """Neighbouring runs of one term that could not be compared yet."""

    term: int = 0
    first: int = 0
    last: int = -1
    size_bytes: int = 0
    crc: int = 0

    def add(self, first: int, last: int, term: int, crc: int, size_bytes: int) -> None:
        """Add a run, or begin with it if it is no neighbour."""
        if first == self.last + 1 and term == self.term:
            crc = join_crc(self.crc, crc, size_bytes)
            size_bytes += self.size_bytes
            first = self.first
        self.term, self.first, self.last = term, first, last
        self.crc, self.size_bytes = crc, size_bytes

    def end(self) -> None:
        """Begin anew with what comes next."""
        self.last = -1


class Contents:
    """What leaders appended, up to where."""

    def __init__(self) -> None:
        """Know nothing."""
        self._measures: Recent[tuple[int, int], tuple[int, int]] = Recent()
        """(term, index) -> bytes and CRC of the term's entries up to it."""
        self.compared = 0
        """How many runs were compared."""

    def begin(self, term: int, first: int) -> None:
        """Note where a leader's entries begin."""
        self._measures.put((term, first - 1), (0, 0))

    def lead(self, first: int, last: int, term: int, crc: int, size_bytes: int) -> None:
        """Note what a leader appended in its term."""
        before = self._measures.get((term, first - 1))
        if before is not None:
            size, known = before
            self._measures.put((term, last), (size + size_bytes, join_crc(known, crc, size_bytes)))

    def differs(self, span: Span) -> bool:
        """Compare a span with what its leader appended, if that is known up to the same places."""
        begin = self._measures.get((span.term, span.first - 1))
        end = self._measures.get((span.term, span.last))
        if begin is None:
            span.end()
            return False
        if end is None:
            return False
        self.compared += 1
        due = join_crc(begin[1], span.crc, span.size_bytes), begin[0] + span.size_bytes
        span.end()
        return due != (end[1], end[0])
