"""The port to a directory of files: the real one and its twin in memory behave alike."""

import errno
import os
from pathlib import Path
from random import Random

import pytest

from trio_kv.storage.files import OPEN_FILES_MAX, Files, RealFiles
from trio_kv.storage.memory import MemoryFiles


@pytest.fixture(params=["memory", "real"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """Both implementations of the port, which must behave alike."""
    return MemoryFiles() if request.param == "memory" else RealFiles(tmp_path)


def test_files_round_trip(files: Files) -> None:
    """Files are made whole, written inside, read back and removed, alike on disk and in memory."""
    files.create("b", 2000, b"head")
    files.create("a", 5, b"12345")
    assert files.names() == ["a", "b"]
    files.write("b", 500, b"x" * 600)
    files.write("b", 1999, b"!")
    files.sync("b")
    assert files.read("b") == b"head" + bytes(496) + b"x" * 600 + bytes(899) + b"!"
    assert files.read("a") == b"12345"
    files.create("a", 3, b"new")
    assert files.read("a") == b"new"
    files.delete("b")
    assert files.names() == ["a"]
    with pytest.raises(FileNotFoundError):
        files.read("b")
    files.close()


def test_growing_files_round_trip(files: Files) -> None:
    """A file grows under a temporary name, is read in parts, and gets its final name when it is whole."""
    files.begin("b.tmp")
    for _ in range(3):
        files.append("b.tmp", b"x" * 700)
    files.sync("b.tmp")
    files.append("b.tmp", b"end")
    files.sync("b.tmp")
    assert (files.size("b.tmp"), files.read("b.tmp")) == (2103, b"x" * 2100 + b"end")
    assert files.read_at("b.tmp", 2098, 10) == b"xxend"
    assert files.read_at("b.tmp", 5000, 10) == b""
    files.create("a", 10)
    assert files.read_at("a", 0, 3) == bytes(3)
    files.rename("b.tmp", "a")
    files.uncache("a")
    assert files.names() == ["a"]
    assert files.read_at("a", 2100, 3) == b"end"
    files.begin("b.tmp")
    assert files.read("b.tmp") == b""
    files.close()


def test_files_that_grow_by_more_than_a_block(files: Files) -> None:
    """What was appended can be read at once, in any parts, also across the blocks in which it is written and read."""
    data = b"".join(b"%07d\n" % number for number in range(400_000))
    files.begin("a.tmp")
    piece_bytes = 100_003
    for offset in range(0, len(data), piece_bytes):
        files.append("a.tmp", data[offset : offset + piece_bytes])
        end = min(offset + piece_bytes, len(data))
        assert files.read_at("a.tmp", end - 10, 20) == data[end - 10 : end]
    assert files.size("a.tmp") == len(data)
    files.sync("a.tmp")
    files.rename("a.tmp", "a")
    for offset in range(0, len(data), 65_537):
        assert files.read_at("a", offset, 65_537) == data[offset : offset + 65_537]
    assert files.read_at("a", 5, 3 << 20) == data[5 : 5 + (3 << 20)]
    files.begin("a.tmp")
    files.append("a.tmp", b"another")
    assert files.read_at("a.tmp", 0, 100) == b"another"
    files.close()


def test_real_files_keep_few_open(tmp_path: Path) -> None:
    """However many files are written to, only a few stay open."""
    files = RealFiles(tmp_path, is_synced=False)
    for number in range(20):
        files.create(f"f{number}", 512)
        files.write(f"f{number}", 0, b"x")
        files.sync(f"f{number}")
    assert len(files._descriptors) == OPEN_FILES_MAX
    files.close()
    assert not files._descriptors


def test_real_files_leave_nothing_behind_when_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that could not be made whole leaves neither itself nor its temporary form (scenario D12)."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space")

    files = RealFiles(tmp_path)
    monkeypatch.setattr("os.pwrite", full)
    with pytest.raises(OSError, match="no space"):
        files.create("a", 1 << 20)
    assert files.names() == []


def test_real_files_write_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that the kernel takes in small parts is carried out whole."""
    files = RealFiles(tmp_path)
    files.create("a", 100)
    whole = os.pwrite
    monkeypatch.setattr(
        "os.pwrite", lambda descriptor, data, offset: whole(descriptor, bytes(data)[:7], offset)
    )
    files.write("a", 10, bytes(range(50)))
    monkeypatch.undo()
    assert files.read("a")[10:60] == bytes(range(50))
    files.close()


def test_the_twin_loses_what_was_not_synced() -> None:
    """After a power cut each sector that was not synced has any of its contents; synced ones keep theirs."""
    outcomes = set()
    for seed in range(60):
        files = MemoryFiles()
        files.create("a", 1024, b"0" * 1024)
        files.write("a", 0, b"1" * 1024)
        files.write("a", 512, b"2" * 512)
        assert files.read("a") == b"1" * 512 + b"2" * 512
        files.crash(Random(seed))
        outcomes.add((files.read("a")[:1], files.read("a")[512:513]))
    assert outcomes == {(first, second) for first in (b"0", b"1") for second in (b"0", b"1", b"2")}
    files = MemoryFiles()
    files.create("a", 1024, b"0" * 1024)
    files.write("a", 0, b"3")
    files.sync("a")
    files.crash(Random(0))
    assert files.read("a")[:1] == b"3"


def test_the_twin_may_lose_what_a_file_grew_by() -> None:
    """After a power cut a file has one of the sizes since its last sync, and zeros where nothing arrived."""
    outcomes = set()
    for seed in range(100):
        files = MemoryFiles()
        files.begin("a")
        files.append("a", b"1" * 600)
        files.sync("a")
        files.sync_directory()
        files.append("a", b"2" * 500)
        files.append("a", b"3" * 500)
        files.crash(Random(seed))
        data = files.read("a")
        assert data[:600] == b"1" * 600
        outcomes.add((len(data), data[-1:]))
    assert outcomes == {
        (600, b"1"),
        *((1100, end) for end in (b"2", b"\0")),
        *((1600, end) for end in (b"3", b"\0")),
    }


def test_the_twin_keeps_as_much_as_it_is_told() -> None:
    """A file that grew is as long as the sectors need that come back."""
    for kept, size_bytes in (((), 100), ([("a", 0)], 512), ([("a", 2)], 1300)):
        files = MemoryFiles()
        files.begin("a")
        files.append("a", b"1" * 100)
        files.sync("a")
        files.append("a", b"2" * 1200)
        assert files.unsynced() == [("a", 0), ("a", 1), ("a", 2)]
        files.crash_keeping(kept)
        assert files.size("a") == size_bytes
        assert files.read("a")[:100] == b"1" * 100


def test_D12_the_twin_can_be_full() -> None:
    """A directory with a capacity refuses what does not fit, and leaves nothing of it behind."""
    files = MemoryFiles()
    files.capacity_bytes = 1000
    files.create("a", 600)
    with pytest.raises(OSError, match="no space") as caught:
        files.create("b", 500)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="no space"):
        files.append("a", b"x" * 500)
    assert (files.names(), files.size("a")) == (["a"], 600)
    files.create("b", 400)
    files.delete("a")
    files.create("c", 600)


def test_a_file_may_only_take_room(files: Files) -> None:
    """It has its size, takes that much of the disk, and is gone when it is deleted."""
    files.reserve("a", 100_000)
    assert (files.names(), files.size("a")) == (["a"], 100_000)
    if isinstance(files, RealFiles):
        assert (files.path / "a").stat().st_blocks * 512 >= 100_000
    files.delete("a")
    assert files.names() == []


def test_room_that_can_not_be_allocated_is_taken_by_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file system does not allocate, or says so and does not: zeros might be compressed to nothing."""
    files = RealFiles(tmp_path)
    monkeypatch.setattr("os.posix_fallocate", lambda descriptor, offset, length: None)
    files.reserve("a", 100_000)
    assert len(set(files.read("a"))) == 256
    assert files.size("a") == 100_000


def test_D12_in_the_twin_reserved_room_can_be_gone() -> None:
    """Zeros hold room until somebody shares the file, and not at all under copy on write; a write may be cut short."""
    files = MemoryFiles()
    files.create("a", 4096)
    files.reserve("b", 1024)
    files.capacity_bytes = files.used_bytes
    files.write("a", 0, b"x" * 4096)
    files.share()
    with pytest.raises(OSError, match="no space"):
        files.write("a", 100, b"y")
    files.capacity_bytes += 1024
    with pytest.raises(OSError, match="no space") as caught:
        files.write("a", 500, b"z" * 2000)
    assert caught.value.errno == errno.ENOSPC
    assert files.read("a").strip(b"x") == b"z" * 524
    files.write("a", 0, b"x" * 1024)
    files.delete("b")
    files.write("a", 1024, b"x" * 1024)
    with pytest.raises(OSError, match="no space"):
        files.write("a", 2048, b"y" * 512)
    files.delete("a")
    with pytest.raises(OSError, match="no space"):
        files.create("c", 4096 - 512)
    files.create("c", 2048)
    files.is_copy_on_write = True
    with pytest.raises(OSError, match="no space"):
        files.write("c", 0, b"y" * 512)
    files.capacity_bytes += 512
    for _ in range(3):
        files.write("c", 512, b"y" * 512)
        files.sync("c")


def test_the_twin_can_look_past_its_memory() -> None:
    """What a sync failed to write is gone when it is read from the disk; what is still to be written is not."""
    files = MemoryFiles()
    files.create("a", 1024)
    files.write("a", 0, b"x" * 512)
    files.fail_next()
    with pytest.raises(OSError, match="asked for"):
        files.sync("a")
    files.write("a", 512, b"y" * 512)
    assert files.read("a") == b"x" * 512 + b"y" * 512
    files.uncache("a")
    assert files.read("a") == bytes(512) + b"y" * 512


def test_the_twin_forgets_after_a_failed_sync() -> None:
    """A sync after one that failed makes nothing durable; only writing again does (scenario D11)."""
    files = MemoryFiles()
    files.create("a", 512)
    files.write("a", 0, b"x" * 512)
    files.fail_next()
    with pytest.raises(OSError, match="asked for"):
        files.sync("a")
    files.sync("a")
    assert files.unsynced() == [("a", 0)]
    files.write("a", 0, b"x" * 512)
    files.sync("a")
    assert files.unsynced() == []


def test_the_twin_is_copied_whole() -> None:
    """A copy has the unsynced writes too, and neither sees what becomes of the other."""
    files = MemoryFiles()
    files.create("a", 512)
    files.write("a", 0, b"x")
    twin = files.copy()
    files.write("a", 0, b"y")
    files.create("b", 512)
    assert (twin.read("a")[:1], twin.names(), twin.unsynced()) == (b"x", ["a"], [("a", 0)])
    twin.crash_keeping(())
    assert (twin.read("a")[:1], files.read("a")[:1]) == (b"\0", b"y")
