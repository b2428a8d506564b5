"""The thread that writes lines: bounded, in order, and in nobody's way."""

import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trio_kv.trace.lines import BATCH_LINES_MAX, LineWriter, close_writers

WAIT_S = 30.0


def open_writer(open_descriptor: Callable[[], int], **options: Any) -> LineWriter[str]:
    return LineWriter(
        open_descriptor,
        lambda line: f"{line}\n".encode(),
        lambda gap: f"{gap.count} missing, {gap.first} to {gap.last}",
        name="test",
        **options,
    )


class Target:
    """Where a writer writes; the test may let it fail."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self.opened = 0
        self.failure: OSError | None = None

    def open(self) -> int:
        self.opened += 1
        if self.failure is not None:
            raise self.failure
        return self.file

    @property
    def lines(self) -> list[str]:
        return self.path.read_text().splitlines()


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    target = Target(tmp_path / "file")
    yield target
    os.close(target.file)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for descriptor in (reader, writer):
        try:
            os.close(descriptor)
        except OSError:
            assert descriptor == reader  # a test let its reader go


def read_all(reader: int) -> str:
    os.set_blocking(reader, False)
    return b"".join(iter(lambda: os.read(reader, 1 << 16), b"")).decode()


def test_lines_come_in_order_from_any_thread(target: Target) -> None:
    """All of many batches arrive, each thread's in its order."""
    writer = open_writer(target.open, lines_max=1 << 20)

    def put_many(letter: str) -> None:
        for number in range(2 * BATCH_LINES_MAX):
            writer.put(f"{letter} {number}")

    threads = [threading.Thread(target=put_many, args=(letter,)) for letter in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert close_writers(writer, wait_s=WAIT_S)
    for letter in "abc":
        expected = [f"{letter} {number}" for number in range(2 * BATCH_LINES_MAX)]
        assert [line for line in target.lines if line.startswith(letter)] == expected
    assert writer.statistics().written == 6 * BATCH_LINES_MAX
    assert target.opened == 1


def test_a_reader_that_stands_still_costs_lines_and_not_time(pipe: tuple[int, int]) -> None:
    """Into a full pipe `put` never waits; when it is read again, each gap is told in its place, and nothing is torn."""
    reader, write_end = pipe
    writer = open_writer(lambda: write_end, lines_max=10)
    long = "x" * 1000
    for number in range(5000):
        writer.put(f"{number} {long}")
    assert writer.statistics().lost > 3000
    collected: list[bytes] = []

    def collect() -> None:
        collected.extend(iter(lambda: os.read(reader, 1 << 16), b""))

    thread = threading.Thread(target=collect)
    thread.start()
    assert close_writers(writer, wait_s=WAIT_S)
    os.close(write_end)
    thread.join(WAIT_S)
    os.dup2(reader, write_end)  # for the fixture to close
    expected = 0
    for line in b"".join(collected).decode().splitlines():
        head, *rest = line.split()
        if rest[0] == "missing,":
            assert int(rest[1]) == expected
            expected += int(head)
        else:
            assert (int(head), rest) == (expected, [long])
            expected += 1
    assert expected == 5000
    statistics = writer.statistics()
    assert statistics.written + statistics.lost == 5000


def test_the_end_waits_for_a_reader_with_a_limit_for_all_together(pipe: tuple[int, int]) -> None:
    """Writers whose readers stand still are left behind after the time given, whatever their number."""
    reader, write_end = pipe
    writers = [open_writer(lambda: write_end) for _ in range(3)]
    for writer in writers:
        writer.put("x" * 1_000_000)
    assert not close_writers(*writers, wait_s=0.01)
    while writers[0].stuck_s() <= 0.0:
        os.sched_yield()
    began_s = time.monotonic()
    assert not close_writers(*writers, wait_s=writers[0].stuck_s()), "they stand still for so long already"
    assert time.monotonic() - began_s < WAIT_S
    os.close(reader)  # lets the threads go
    assert all(writer.wait_closed(WAIT_S) for writer in writers)


def test_a_full_disk_costs_the_lines_that_came_meanwhile(target: Target) -> None:
    """A failure is told once, the gap as soon as there is room again."""
    failures: list[OSError] = []
    failed = threading.Semaphore(0)

    def on_failed(error: OSError) -> None:
        failures.append(error)
        failed.release()

    target.failure = OSError(errno.ENOSPC, "No space left on device")
    writer = open_writer(target.open, on_failed=on_failed)
    writer.put("a")
    assert failed.acquire(timeout=WAIT_S)
    writer.put("b")
    while writer.statistics().lost < 2:
        os.sched_yield()
    assert writer.statistics().failure is target.failure
    target.failure = None
    writer.put("c")
    assert close_writers(writer, wait_s=WAIT_S)
    assert target.lines == ["2 missing, a to b", "c"]
    assert [error.errno for error in failures] == [errno.ENOSPC]
    statistics = writer.statistics()
    assert (statistics.written, statistics.lost, statistics.failure) == (1, 2, None)


def test_a_line_that_was_half_written_is_ended_before_the_next(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC in the middle of the second of three lines: it is whole in the end, and the third is told as missing."""
    room = 5
    has_failed = threading.Event()

    def write(descriptor: int, data: memoryview) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = data[:room]
        room -= len(part)
        return real_write(descriptor, part)

    real_write = os.write
    monkeypatch.setattr(os, "write", write)
    gate = threading.Event()
    writer = open_writer(target.open, gather=lambda _: gate.wait(), on_failed=lambda _: has_failed.set())
    for line in ("one", "two", "three"):
        writer.put(line)
    gate.set()
    assert has_failed.wait(WAIT_S)
    assert target.path.read_text() == "one\nt"
    room = 1 << 20
    writer.put("four")
    assert close_writers(writer, wait_s=WAIT_S)
    assert target.lines == ["one", "two", "1 missing, three to three", "four"]
    assert writer.statistics().written + writer.statistics().lost == 4


def test_a_pipe_whose_reader_is_gone_is_no_matter(pipe: tuple[int, int]) -> None:
    """A broken pipe costs the lines and nothing else, and is told once."""
    reader, write_end = pipe
    os.close(reader)
    failures: list[OSError] = []
    writer = open_writer(lambda: write_end, on_failed=failures.append)
    for number in range(10):
        writer.put(str(number))
    assert close_writers(writer, wait_s=WAIT_S)
    assert [type(error) for error in failures] == [BrokenPipeError]
    assert writer.statistics().lost == 10


def test_a_descriptor_that_somebody_made_non_blocking_is_waited_for(pipe: tuple[int, int]) -> None:
    """Whoever shares a terminal with us may do so; no line is lost by it."""
    reader, write_end = pipe
    os.set_blocking(write_end, False)
    writer = open_writer(lambda: write_end)
    lines = ["x" * 10_000 for _ in range(50)]
    for line in lines:
        writer.put(line)
    data = b""
    while len(data) < 50 * 10_001:
        data += os.read(reader, 1 << 16)
    assert data.decode().splitlines() == lines
    assert close_writers(writer, wait_s=WAIT_S)


def test_the_last_line_comes_after_all_others(target: Target) -> None:
    """What is to be told at the end is made of the latest line and the number of lost ones."""
    writer = open_writer(target.open, make_end=lambda latest, lost: f"end after {latest}, {lost} lost")
    writer.put("a")
    writer.put("b")
    writer.begin_close()
    writer.begin_close()
    assert close_writers(writer, wait_s=WAIT_S)
    assert target.lines == ["a", "b", "end after b, 0 lost"]
