"""A new cluster out of a snapshot's file: a backup, or any node's newest snapshot.

Every node of the new cluster starts from the file: it gets the snapshot under an identity of its own, and a log that
goes on behind it, in the snapshot's term. The cluster is **another one**: its id and its nodes' incarnations are new,
so that nothing of the old cluster, which went on after the snapshot or may come back, is ever taken for part of it.

Its log goes on far above the snapshot's last entry. An index is a revision for clients, and no revision may name two
things: the old cluster may have gone on, and told its clients of revisions that no snapshot has. So a condition on a
revision from there holds nowhere, and a watch from there hears that its history is gone, and not silence.

The file is read twice: once to check all of it before anything is made, once to copy it. What is made is checked by
opening it as a node does. Everything here blocks; call it in a thread.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import attrs

from trio_kv.kv.image import Counts, Head, decode_first, decode_records, move_first
from trio_kv.raft.entry import LogPosition
from trio_kv.storage.data_directory import DataDirectory
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.files import RealFiles
from trio_kv.storage.making import make_data_directory
from trio_kv.storage.node_directory import NodeDirectory
from trio_kv.storage.segments import SEGMENT_BYTES
from trio_kv.storage.snapshot_reading import SnapshotScan

REVISIONS_SKIPPED = 1_000_000_000
"""So far above the snapshot's last entry the log goes on: a cluster that writes 1,000 entries a second, all the time,
comes so far in eleven days."""
WAY_OUT = "Nothing was made of it. Use another backup, or the newest snapshot-*.snap file of another node."

Progress = Callable[[str, int, int], object]
"""Called with what is being done, how much of it is done, and how much there is to do."""


@attrs.frozen
class SnapshotContent:
    """What a whole snapshot's file holds."""

    index: int
    """The last entry of the log whose effect it holds."""
    term: int
    keys: int
    sessions: int
    chunks: int
    chunk_bytes: int
    """Of all chunks."""
    size_bytes: int
    """Of the file."""


def check_snapshot(path: Path, on_progress: Progress, *, is_uncached: bool = False) -> SnapshotContent:
    """Read a whole snapshot's file, whatever its name, compare every check, and count what it holds.

    Args:
        path: the file.
        on_progress: told of the bytes of the file.
        is_uncached: read what is on the disk, and not what is in memory, where the system can do that.

    Raises:
        DamagedError: it is not what was written, or no snapshot at all; says which byte is wrong.
        OSError: the disk refused.

    """
    # The size is asked for by the path, so that the error about a file that is not there names it.
    size_bytes = path.stat().st_size
    with contextlib.closing(RealFiles(path.parent)) as files:
        if is_uncached:
            files.uncache(path.name)
        scan = SnapshotScan(files, path.name, is_named=False)
        tally = _Tally()
        with _explained():
            for offset, frame, body in scan:
                try:
                    tally.add(frame.number, body)
                except ValueError as error:
                    raise DamagedError(str(path), offset, f"chunk {frame.number}: {error}") from error
                on_progress("check", offset + len(body), size_bytes)
            info = scan.stored.info
            head, counts = tally.finish(str(path))
            if LogPosition(head.applied, head.applied_term) != info.position:
                place = f"{head.applied}@{head.applied_term}"
                raise DamagedError(
                    str(path), 0, f"it is called {info.index}@{info.term}, and holds the state at {place}"
                )
        on_progress("check", size_bytes, size_bytes)
        return SnapshotContent(
            info.index, info.term, counts.items, counts.sessions, info.chunks, info.total_bytes, size_bytes
        )


def restore(
    source: Path,
    target: Path,
    *,
    nodes: int,
    random: Random,
    on_progress: Progress = lambda _what, _done, _total: None,
    segment_bytes: int = SEGMENT_BYTES,
    is_synced: bool = True,
) -> SnapshotContent:
    """Make a new cluster whose every node starts from a snapshot.

    Args:
        source: the snapshot's file, under whatever name.
        target: the new data directory; it must not exist, or be empty.
        nodes: how many nodes the new cluster has.
        random: draws the ids of the new cluster.
        on_progress: told of each step.
        segment_bytes: size of the log segments.
        is_synced: False leaves out every sync.

    Raises:
        DamagedError: the file is damaged: nothing was made.
        StorageError: there is something at `target` already.
        ValueError: no cluster can have so many nodes.
        OSError: the disk refused: what was made of it is removed again.

    """

    def fill(directories: Sequence[NodeDirectory]) -> None:
        _fill(source, content, directories, on_progress)

    # The file before the directory: a damaged one leaves nothing behind.
    content = check_snapshot(source, on_progress)
    made = make_data_directory(
        target, nodes=nodes, random=random, fill=fill, segment_bytes=segment_bytes, is_synced=is_synced
    )
    with made:
        _check_nodes(made, content, on_progress)
    return content


def _fill(
    source: Path, content: SnapshotContent, directories: Sequence[NodeDirectory], on_progress: Progress
) -> None:
    """Copy the snapshot to every node, reading it once, and let each log go on behind it."""
    total, index = content.chunk_bytes, content.index + REVISIONS_SKIPPED
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(contextlib.closing(each.open())) for each in directories]
        writers = [each.snapshots.begin(index, content.term) for each in opened]
        done = 0
        for number, chunk in _chunks(source):
            moved = chunk if number else move_first(chunk, index)
            for writer in writers:
                writer.add(number, moved)
            done += len(chunk)
            on_progress("copy", done, total)
        for node, (each, writer) in enumerate(zip(opened, writers, strict=True), 1):
            writer.finish()
            # Only now: a log must not begin behind a snapshot that may still be lost.
            each.wal.reset(index, content.term)
            on_progress("sync", node, len(opened))


def _chunks(source: Path) -> Iterator[tuple[int, bytes]]:
    with contextlib.closing(RealFiles(source.parent)) as files, _explained():
        for _, frame, chunk in SnapshotScan(files, source.name, is_named=False):
            yield frame.number, chunk


def _check_nodes(directory: DataDirectory, content: SnapshotContent, on_progress: Progress) -> None:
    """Open every node, and see whether it would start from the snapshot and nothing else."""
    place = (content.index + REVISIONS_SKIPPED, content.term)
    for number, node in enumerate(directory.nodes, 1):
        with contextlib.closing(directory.node(node).open()) as opened:
            recovered = opened.recovered
            assert recovered.snapshot is not None
            assert recovered.snapshot.position == place, f"node {node}: {recovered.snapshot}"
            assert (recovered.base.index, recovered.base.term) == place, f"node {node}: {recovered.base}"
            assert recovered.hard_state.term == content.term, f"node {node}: {recovered.hard_state}"
            assert not recovered.entries, f"node {node}: {len(recovered.entries)} entries"
        on_progress("open", number, len(directory.nodes))


@attrs.define
class _Tally:
    """Counts what the chunks of a snapshot hold, without keeping any of it."""

    _head: Head | None = None
    _told: Counts | None = None
    _sessions: int = 0
    _replies: int = 0
    _items: int = 0

    def add(self, number: int, chunk: bytes) -> None:
        """Count one chunk.

        Raises:
            ValueError: it is not the chunk that is due.

        """
        if number == 0:
            first = decode_first(chunk)
            self._head, self._told = first.head, first.counts
            return
        records = decode_records(chunk)
        if records.chunk != number:
            raise ValueError(f"it says that it is chunk {records.chunk}")
        self._sessions += len(records.sessions)
        self._replies += len(records.replies)
        self._items += len(records.items)

    def finish(self, file: str) -> tuple[Head, Counts]:
        """Return what the first chunk tells, when all of it came."""
        if self._head is None or self._told is None:
            raise DamagedError(file, 0, "it holds no chunk")
        came = Counts(sessions=self._sessions, replies=self._replies, items=self._items)
        if came != self._told:
            raise DamagedError(file, 0, f"it should hold {self._told}, and holds {came}")
        return self._head, self._told


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Explain damage with a way out that helps: no other node can mend a backup."""
    try:
        yield
    except DamagedError as error:
        hint = " (is it a backup, or a node's .snap file?)" if error.offset == 0 else ""
        raise DamagedError(error.file, error.offset, error.reason + hint, WAY_OUT) from error
