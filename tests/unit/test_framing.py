"""Bytes into lines: what the pieces were never shows, and no line is kept beyond the limit."""

import itertools
import tracemalloc

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trio_kv.proxy.books import HalfLines
from trio_kv.proxy.framing import TOO_LARGE, Line, LineBuffer

LIMIT = 8


def lines_of(chunks: list[bytes], limit: int = LIMIT) -> list[Line]:
    buffer = LineBuffer(limit)
    lines = [line for chunk in chunks for line in buffer.feed(chunk)]
    return lines + buffer.end()


def reference(data: bytes) -> list[Line]:
    """Return the lines of the whole input, by the words of the protocol."""
    lines: list[Line] = []
    for piece in data.split(b"\n"):
        line = piece.removesuffix(b"\r")
        if len(line) > LIMIT:
            lines.append(TOO_LARGE)
        elif line.strip():
            lines.append(line)
    return lines


@given(
    data=st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", b" ", b"12345678", b"123456789"])).map(
        b"".join
    ),
    cuts=st.lists(st.integers(0, 200)),
)
@example(data=b"12345678\r\n", cuts=[8, 9])
@example(data=b"12345678\r", cuts=[8])
@example(data=b"12345678\rx\n", cuts=[9])
@example(data=b"123456789\n\n1\n", cuts=[9, 10, 11])
def test_any_split_gives_the_same_lines(data: bytes, cuts: list[int]) -> None:
    """However the bytes are cut into chunks, the lines are those of the whole."""
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:end] for start, end in itertools.pairwise(ends) if start < end]
    assert lines_of(chunks) == reference(data)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n\r\n  \n\t\r\n", []),
        (b"a\nb\r\nc", [b"a", b"b", b"c"]),
        (b"12345678\n123456789\n1", [b"12345678", TOO_LARGE, b"1"]),
        (b"12345678\r\n", [b"12345678"]),
    ],
)
def test_lines(data: bytes, lines: list[Line]) -> None:
    """Lines end with LF or CR LF, blank ones are dropped, a last one needs no end, long ones are marked."""
    assert lines_of([data] if data else []) == lines


def test_a_line_over_the_limit_is_told_before_its_end() -> None:
    """The marker comes with the first byte too many, once, and the line after it is whole."""
    buffer = LineBuffer(LIMIT)
    assert buffer.feed(b"12345678") == []
    assert buffer.feed(b"9") == [TOO_LARGE]
    assert buffer.feed(b"0" * 100) == []
    assert not buffer.is_between_lines
    assert buffer.feed(b"0\nnext\n") == [b"next"]
    assert buffer.is_between_lines


def test_a_huge_line_is_not_kept() -> None:
    """Of a line of 100 MiB no more is held than the limit."""
    buffer = LineBuffer(1 << 20)
    chunk = bytes(65536).replace(b"\0", b"x")
    tracemalloc.start()
    lines = [line for _ in range(1600) for line in buffer.feed(chunk)]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines == [TOO_LARGE]
    assert buffer.half_bytes == 0
    assert peak_bytes < 4 << 20, peak_bytes


def test_a_trickle_costs_no_more_than_its_bytes() -> None:
    """A line that comes byte by byte is held as one run of bytes, not as a list of pieces."""
    buffer = LineBuffer(1 << 20)
    tracemalloc.start()
    for _ in range(100_000):
        assert buffer.feed(b"x") == []
    held_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert buffer.half_bytes == 100_000
    assert held_bytes < 200_000, held_bytes
    assert buffer.feed(b"\n") == [b"x" * 100_000]


def test_dropping_a_half_line_skips_its_rest() -> None:
    """After `drop` what still comes of the line is not taken for another one."""
    buffer = LineBuffer(LIMIT)
    assert buffer.feed(b"abc") == []
    buffer.drop()
    assert buffer.half_bytes == 0
    assert buffer.feed(b"def\nnext\n") == [b"next"]


class Holder:
    def __init__(self, halves: HalfLines) -> None:
        self.halves = halves
        self.is_evicted = False

    def note(self, size: int, *, is_new: bool = False) -> None:
        self.halves.note(self, size, is_new=is_new)

    def evict(self) -> None:
        self.is_evicted = True

    def drop(self) -> None:
        raise AssertionError("half lines are evicted")


def test_the_oldest_half_line_goes_first() -> None:
    """Over the limit of all connections, the half line that began first is evicted, however small it is."""
    halves = HalfLines(100)
    first, second, third = (Holder(halves) for _ in range(3))
    first.note(10)
    second.note(40)
    third.note(40)
    first.note(10, is_new=True)  # It ended that line and began another: now it is the youngest.
    assert halves.total_bytes == 90
    third.note(51)
    assert [first.is_evicted, second.is_evicted, third.is_evicted] == [False, True, False]
    assert halves.total_bytes == 61
    halves.forget(third)
    first.note(0)
    assert halves.total_bytes == 0


def test_a_holder_alone_over_the_limit_is_evicted_itself() -> None:
    """The limit holds even against the one that just went over it."""
    halves = HalfLines(100)
    holder = Holder(halves)
    holder.note(101)
    assert holder.is_evicted
    assert halves.total_bytes == 0
