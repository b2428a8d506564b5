"""Lines on a disk that is full now and then, also in the middle of a line: none is torn, and each gap is told."""

import errno
from collections.abc import Iterator
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from trio_kv.trace import lines
from trio_kv.trace.lines import Gap, LineWriter

ROOM_AT_END = 1 << 20


@given(
    batches=st.lists(st.integers(1, 5), min_size=1, max_size=8),
    rooms=st.lists(st.one_of(st.just(0), st.integers(1, 30)), max_size=20),
)
def test_each_line_is_whole_and_in_its_place_or_counted_there(batches: list[int], rooms: list[int]) -> None:
    """However writes end, a file holds the numbers in their order, and each gap says which are missing; sums agree."""
    written = bytearray()
    left: Iterator[int] = iter(rooms)

    def write_some(_: int, data: memoryview) -> int:
        room = next(left, ROOM_AT_END)
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.extend(data[:room])
        return min(room, len(data))

    def make_gap(gap: Gap[str]) -> str:
        return f"{gap.first} to {gap.last} are {gap.count}"

    writer: LineWriter[str] = LineWriter(lambda: -1, lambda line: f"{line}\n".encode(), make_gap, name="test")
    with mock.patch.object(lines, "_write_some", write_some):
        count = 0
        for size in batches:
            writer._write([str(number) for number in range(count, count + size)])
            count += size
        left = iter(())  # there is room again
        writer._write([str(count)])
    writer.begin_close()
    assert writer.wait_closed(30.0)
    expected = told_lost = 0
    for line in written.decode().splitlines():
        first, *rest = line.split()
        assert int(first) == expected
        expected += int(rest[3]) if rest else 1
        told_lost += int(rest[3]) if rest else 0
        assert not rest or int(rest[1]) == expected - 1
    assert written.endswith(b"\n")
    assert expected == count + 1
    statistics = writer.statistics()
    assert (statistics.lost, statistics.written) == (told_lost, count + 1 - told_lost)
