"""What stands on the disk: the write-ahead log, its recovery, and the names of files."""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest

from tests.mutants.registry import Patch, mutant, scenarios
from trio_kv.raft.ready import HardState
from trio_kv.storage import opening, wal
from trio_kv.storage.ballast import Ballast
from trio_kv.storage.batches import encode
from trio_kv.storage.errors import FULL
from trio_kv.storage.memory import MemoryFiles
from trio_kv.storage.recovery import Recovered, Recovery
from trio_kv.storage.segments import records_bytes_max
from trio_kv.storage.shape import LogShape
from trio_kv.storage.snapshot_reading import SnapshotInfo, Stored
from trio_kv.storage.snapshots import SnapshotWriter
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import Base, Frame, Record
from trio_kv.wire.snapshot_file import encode_end

CRASH_STATES = "tests/unit/test_crash_states.py::test_every_state_after_a_power_cut"


def log_tests(*names: str) -> tuple[str, ...]:
    """Return tests of the write-ahead log."""
    return tuple(f"tests/unit/test_wal.py::{name}" for name in names)


def reserved(*names: str) -> tuple[str, ...]:
    """Return tests of room that was reserved and is gone."""
    return tuple(f"tests/unit/test_reserved_room.py::{name}" for name in names)


def snapshot_tests(*names: str) -> tuple[str, ...]:
    """Return tests of the snapshots on disk."""
    return tuple(f"tests/unit/test_snapshots.py::{name}" for name in names)


@mutant("D3 a frame counts as durable before it is synced", world="core", tests=(CRASH_STATES,))
def _(patch: Patch) -> None:
    real = Wal._put_frame

    def put_frame(self: Wal, *arguments: Any) -> Iterator[OSError]:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(MemoryFiles, "sync", lambda self, name: None)
            yield from real(self, *arguments)

    patch.setattr(Wal, "_put_frame", put_frame)


@mutant("D7 an entry is written before the term that it belongs to", world="core")
def _(patch: Patch) -> None:
    real = Wal._write

    def write(self: Wal, records: list[Record], parts: list[bytes]) -> Iterator[OSError]:
        later = [record for record in records if isinstance(record, HardState)]
        if later and len(later) < len(records):
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(LogShape, "_extend", extend_unchecked)
                first = [record for record in records if not isinstance(record, HardState)]
                yield from real(self, first, encode(first))
            records, parts = list(later), encode(later)
        yield from real(self, records, parts)

    def extend_unchecked(self: LogShape, entries: Any) -> None:
        hard_state, self.hard_state = self.hard_state, HardState(1 << 40)
        real_extend(self, entries)
        self.hard_state = hard_state

    real_extend = LogShape._extend
    patch.setattr(Wal, "_write", write)


@mutant(
    "D9 the check of a frame's body is not compared",
    world="core",
    tests=(
        CRASH_STATES,
        *log_tests(
            "test_D9_a_torn_frame_is_cut_whatever_is_left_of_it", "test_D10_every_wrong_byte_is_damage"
        ),
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(Frame, "is_whole", lambda self, data: self.end <= len(data))


@mutant(
    "D9 an interrupted write is called damage",
    world="core",
    tests=(CRASH_STATES, *log_tests("test_D9_a_torn_frame_is_cut_whatever_is_left_of_it")),
)
def _(patch: Patch) -> None:
    def judge(self: Recovery, name: str, seed: int, data: bytes, offset: int) -> None:
        raise self._damage(name, offset, "a frame is not as it was written")

    patch.setattr(Recovery, "_judge", judge)


@mutant(
    "D10 a log is cut at its first wrong frame, wherever that is",
    world="core",
    tests=log_tests(
        "test_D10_every_wrong_byte_is_damage",
        "test_D10_a_sector_of_zeros_inside_the_log_is_damage",
        "test_D10_frames_behind_a_torn_one_are_damage",
    ),
)
def _(patch: Patch) -> None:
    def judge(self: Recovery, name: str, seed: int, data: bytes, offset: int) -> None:
        self.torn = (self.files.location(name), offset)
        self.warnings.append("cut off")

    patch.setattr(Recovery, "_judge", judge)


@mutant(
    "D11 a sync that failed is tried again",
    world="core",
    tests=(
        *scenarios("test_D11_an_error_of_a_disk_stops_its_node_for_good"),
        *log_tests("test_D11_D12_a_failure_at_any_call_loses_nothing"),
    ),
)
def _(patch: Patch) -> None:
    real = MemoryFiles.sync

    def sync(self: MemoryFiles, name: str) -> None:
        try:
            real(self, name)
        except OSError:
            real(self, name)

    patch.setattr(MemoryFiles, "sync", sync)


@mutant(
    "D11 a log is written to after a sync failed",
    tests=log_tests("test_D11_nothing_is_written_after_a_failed_sync"),
)
def _(patch: Patch) -> None:
    patch.setattr(Wal, "_is_usable", property(lambda self: True, lambda self, value: None), raising=False)


@mutant(
    "D11 what was read is not made durable before it counts",
    tests=(
        CRASH_STATES,
        *log_tests("test_what_was_read_is_durable", "test_a_name_that_was_read_is_durable"),
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(Recovery, "repair", lambda self: None)


@mutant(
    "D12 a spare is counted as room before it is made",
    tests=log_tests("test_D12_what_fits_into_the_room_is_written_and_votes_after_it"),
)
def _(patch: Patch) -> None:
    real: Any = inspect.getattr_static(Wal, "free_log_bytes")
    patch.setattr(
        Wal,
        "free_log_bytes",
        property(
            lambda self: (
                real.fget(self) + (self._spare.header is None) * records_bytes_max(self._segment_bytes)
            )
        ),
    )


@mutant(
    "D12 no room is kept for votes",
    tests=log_tests("test_D12_what_fits_into_the_room_is_written_and_votes_after_it"),
)
def _(patch: Patch) -> None:
    patch.setattr(wal, "KEPT_BYTES", 0)


@mutant(
    "D12 a write that finds no room is a failed disk",
    world="core",
    tests=reserved("test_D12_a_disk_without_reserved_room_is_full_and_not_failed"),
)
def _(patch: Patch) -> None:
    def put(self: Wal, data: bytes) -> Iterator[OSError]:
        yield from ()
        self._files.write(self._name, self.offset, data)
        self._files.sync(self._name)

    patch.setattr(Wal, "_put", put)


@mutant(
    "D12 a write that found no room is taken for done",
    world="whole",
    tests=reserved(
        "test_D12_a_write_that_finds_no_room_takes_that_of_the_ballast",
        "test_D12_the_very_same_bytes_are_written_until_they_fit",
    ),
)
def _(patch: Patch) -> None:
    def put(self: Wal, data: bytes) -> Iterator[OSError]:
        try:
            self._files.write(self._name, self.offset, data)
        except OSError as error:
            if error.errno not in FULL:
                raise
            self._is_ballast_needed = True
            if not self._ballast.free():
                yield from self._wait(error)
        self._files.sync(self._name)

    patch.setattr(Wal, "_put", put)


@mutant(
    "D12 a disk whose reserved room is gone tells of room",
    tests=reserved("test_D12_a_disk_without_reserved_room_is_full_and_not_failed"),
)
def _(patch: Patch) -> None:
    patch.setattr(Wal, "is_short", property(lambda self: False))


@mutant(
    "D12 the ballast is kept whatever happens",
    tests=reserved("test_D12_a_write_that_finds_no_room_takes_that_of_the_ballast"),
)
def _(patch: Patch) -> None:
    patch.setattr(Ballast, "free", lambda self: False)


@mutant(
    "D12 what is left of an interrupted write is written over for lack of room to zero it",
    tests=reserved("test_D12_a_start_on_a_full_disk_goes_without_repairs"),
)
def _(patch: Patch) -> None:
    patch.setattr(Wal, "_unzeroed_bytes", property(lambda self: 0, lambda self, value: None), raising=False)


@mutant(
    "D12 what memory alone holds is believed for lack of room to write it anew",
    tests=reserved("test_D12_a_start_on_a_full_disk_does_not_believe_what_memory_alone_holds"),
)
def _(patch: Patch) -> None:
    patch.setattr(MemoryFiles, "uncache", lambda self, name: None)


@mutant(
    "N2 what a conflicting log holds beyond a snapshot is kept at a start",
    tests=snapshot_tests("test_N2_the_log_goes_with_the_snapshot_before_anything_else"),
)
def _(patch: Patch) -> None:
    def join(log: Wal, recovered: Recovered, info: Any) -> Recovered:
        entries = recovered.entries[max(0, info.index - recovered.base.index) :]
        if log.last_index < info.index:
            log.reset(info.index, info.term)
        log.compact(info.index)
        return Recovered(log.hard_state, Base(info.index, info.term), entries, recovered.warnings)

    patch.setattr(opening, "_join", join)


@mutant(
    "N6 a log that begins behind its snapshot is believed",
    tests=snapshot_tests("test_N6_a_log_that_begins_after_the_snapshot_is_damage"),
)
def _(patch: Patch) -> None:
    patch.setattr(Recovery, "_check_beginning", lambda self, first: None)


@mutant(
    "N6 covered segments are deleted from the newest on",
    tests=log_tests("test_N6_a_fault_at_each_step_of_a_compaction"),
)
def _(patch: Patch) -> None:
    patch.setattr(wal, "range", lambda first, end: reversed(range(first, end)), raising=False)


@mutant(
    "N6 one segment too many is deleted",
    world="core",
    tests=log_tests("test_segments_that_a_snapshot_covers_are_deleted"),
)
def _(patch: Patch) -> None:
    real = LogShape.cut

    def cut(self: LogShape, index: int) -> tuple[int, Base] | None:
        return next((cut for cut in self._cuts if cut[1].index > index), None) or real(self, index)

    patch.setattr(LogShape, "cut", cut)


@mutant(
    "N6 a snapshot is renamed before its data is synced",
    world="core",
    tests=(CRASH_STATES, *scenarios("test_N6_a_crash_in_every_phase_of_a_snapshot_and_its_compaction")),
)
def _(patch: Patch) -> None:
    real = MemoryFiles.sync

    def sync(self: MemoryFiles, name: str) -> None:
        if not name.endswith(".tmp"):
            real(self, name)

    patch.setattr(MemoryFiles, "sync", sync)


@mutant("N6 names are not synced", world="core", tests=(CRASH_STATES,))
def _(patch: Patch) -> None:
    patch.setattr(MemoryFiles, "sync_directory", lambda self: None)


@mutant(
    "N6 a snapshot counts before it was read back",
    tests=snapshot_tests("test_a_snapshot_is_proved_readable_before_it_counts"),
)
def _(patch: Patch) -> None:
    def finish_steps(self: SnapshotWriter) -> Iterator[None]:
        if self._known is not None:
            return
        self._append(encode_end(len(self._offsets), self._total_bytes, self._seed, self._offset))
        self._files.sync(self._temporary)
        yield
        self._known = SnapshotInfo(*self.position, len(self._offsets), self._total_bytes, self._name)
        self._files.rename(self._temporary, self._name)
        self._is_begun = False
        self._store.put(Stored(self._known, self._seed, tuple(self._offsets)))

    patch.setattr(SnapshotWriter, "finish_steps", finish_steps)
