"""The snapshots of one node: files that hold the state machine's content up to an entry of the log.

- A snapshot is **written** chunk by chunk under a temporary name, synced every 4 MiB so that no sync has much to
  do. At its end it is synced and **read back**, every check compared, and only then gets its name, durably. So a
  file with a snapshot's name was whole once: what is wrong with it later is damage, never an interrupted write.
- The one before is deleted only after that. At any moment a whole snapshot, or the whole log, is on the disk.
- A snapshot that is being **sent** outlives the next one (scenario N4), or a follower that takes longer than the time
  between two would never catch up (N8). It does not outlive the second: then its reader is told that it is gone.

The file's bytes stand in `wire.snapshot_file`. Everything here blocks, and is for one thread at a time.
"""

import contextlib
import errno
import re
from collections.abc import Iterator, Sequence

import attrs

from trio_kv.storage.errors import DamagedError
from trio_kv.storage.files import TEMPORARY_SUFFIX, Files, remove
from trio_kv.wire.frames import FrameError, Identity
from trio_kv.wire.snapshot_file import (
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    FrameKind,
    SnapshotFrame,
    SnapshotHeader,
    decode_frame,
    decode_snapshot_header,
    decode_total,
    encode_chunk,
    encode_end,
)

SYNC_BYTES = 4 << 20
"""A snapshot is synced whenever so much of it was written."""
_SUFFIX = ".snap"
_NAME = re.compile(r"snapshot-(\d{16})-(\d{16})\.snap")


def snapshot_name(index: int, term: int) -> str:
    """Return the file name of a snapshot. Sorted by name they are sorted by index."""
    return f"snapshot-{index:016d}-{term:016d}{_SUFFIX}"


def snapshot_names(names: Sequence[str]) -> list[str]:
    """Return the names of the snapshots among these file names, the newest first."""
    return sorted(filter(_NAME.fullmatch, names), reverse=True)


def snapshot_place(name: str) -> tuple[int, int]:
    """Return (index, term) of the snapshot with this file name."""
    match = _NAME.fullmatch(name)
    assert match is not None
    return int(match[1]), int(match[2])


@attrs.frozen
class SnapshotInfo:
    """A snapshot on the disk."""

    index: int
    """The last entry whose effect it holds."""
    term: int
    chunks: int
    total_bytes: int
    """Of all chunks."""
    name: str

    @property
    def place(self) -> tuple[int, int]:
        """(index, term): what names a snapshot between nodes."""
        return self.index, self.term


@attrs.frozen
class Stored:
    """A snapshot that was read whole, or written, and where its chunks are."""

    info: SnapshotInfo
    seed: int
    offsets: Sequence[int]
    """Of each chunk's frame, in bytes of the file."""


class SnapshotStore:
    """The snapshots of one node. Made by `storage.opening.open_node`.

    Invariant: `newest` never goes back, and is whole on the disk.
    """

    def __init__(self, files: Files, identity: Identity, newest: Stored | None = None) -> None:
        """Take over the directory, whose newest whole snapshot this is; `clean` removes the others."""
        self._files = files
        self._identity = identity
        self._newest = newest
        self._older: Stored | None = None
        """The one before, while it is being read."""
        self._held: set[tuple[int, int]] = set()
        """Those that were read and not released."""

    def newest(self) -> SnapshotInfo | None:
        """Return the newest snapshot."""
        return None if self._newest is None else self._newest.info

    def find(self, place: tuple[int, int]) -> SnapshotInfo | None:
        """Return the snapshot of this place; None if it is gone."""
        stored = self._find(place)
        return None if stored is None else stored.info

    def begin(self, index: int, term: int) -> "SnapshotWriter":
        """Begin to write a snapshot; the one before stays until the new one is proved readable.

        Raises:
            OSError: the disk refused.

        """
        newest = self.newest()
        assert newest is None or index >= newest.index, f"{index}@{term} is older than {newest}"
        return SnapshotWriter(self, self._files, SnapshotHeader(self._identity, index, term))

    def read_chunk(self, place: tuple[int, int], number: int) -> bytes | None:
        """Return a chunk, to send it; None if that snapshot is gone. Holds the snapshot until `release`.

        Raises:
            DamagedError: it is not what was written.
            OSError: the disk refused.

        """
        stored = self._find(place)
        if stored is None or not 0 <= number < stored.info.chunks:
            return None
        self._held.add(place)
        return self._read(stored, number)

    def release(self, place: tuple[int, int]) -> None:
        """Take note that a reader is done with a snapshot.

        Raises:
            OSError: the disk refused.

        """
        self._held.discard(place)
        if self._older is not None and self._older.info.place == place:
            self._drop_older()

    def chunks(self, info: SnapshotInfo) -> Iterator[bytes]:
        """Yield the chunks of the newest snapshot, in order.

        Raises:
            DamagedError: it is not what was written.
            OSError: the disk refused.

        """
        stored = self._newest
        assert stored is not None
        assert stored.info == info
        for number in range(info.chunks):
            yield self._read(stored, number)

    def clean(self) -> None:
        """Remove all but the newest snapshot. Call it when the log was found to go with that one.

        Raises:
            OSError: the disk refused.

        """
        names = self._files.names()
        kept = None if self._newest is None else self._newest.info.name
        for name in names:
            is_old = _NAME.fullmatch(name) is not None and name != kept
            if is_old or name.endswith(_SUFFIX + TEMPORARY_SUFFIX):
                remove(self._files, name)

    def put(self, stored: Stored) -> None:
        """Let a snapshot with a durable name be the newest, and remove the one it replaces."""
        self._drop_older()
        replaced, self._newest = self._newest, stored
        if replaced is not None:
            self._older = replaced
            if replaced.info.place not in self._held:
                self._drop_older()

    def close(self) -> None:
        """Let go of the files."""
        self._files.close()

    def _find(self, place: tuple[int, int]) -> Stored | None:
        return next((kept for kept in (self._newest, self._older) if kept and kept.info.place == place), None)

    def _drop_older(self) -> None:
        older, self._older = self._older, None
        if older is not None:
            self._held.discard(older.info.place)
            remove(self._files, older.info.name)

    def _read(self, stored: Stored, number: int) -> bytes:
        reader = SnapshotReader(self._files, stored.info.name, stored.seed, stored.offsets[number])
        frame, body = reader.next()
        if (frame.kind, frame.number) != (FrameKind.CHUNK, number):
            raise reader.damage(f"chunk {number} is due, not {frame.kind} number {frame.number}")
        return body


class SnapshotWriter:
    """A snapshot that is being written. After an OSError: `abort`, and nothing else."""

    def __init__(self, store: SnapshotStore, files: Files, header: SnapshotHeader) -> None:
        """Begin the file. Use `SnapshotStore.begin`."""
        self.place = (header.index, header.term)
        self._store = store
        self._files = files
        self._seed = header.seed
        self._name = snapshot_name(*self.place)
        self._temporary = self._name + TEMPORARY_SUFFIX
        self._offsets: list[int] = []
        self._offset = HEADER_BYTES
        self._total_bytes = 0
        self._unsynced_bytes = 0
        newest = store.newest()
        self._known = newest if newest is not None and newest.place == self.place else None
        """Set if this very snapshot is there already. It is not written again: others may be reading it."""
        self._is_begun = self._known is None
        if self._is_begun:
            files.begin(self._temporary)
            try:
                files.append(self._temporary, header.encode())
            except OSError:
                # Nobody gets this writer to abort it.
                with contextlib.suppress(OSError):
                    files.delete(self._temporary)
                raise

    def add(self, number: int, chunk: bytes) -> None:
        """Write the next chunk.

        Raises:
            OSError: the disk refused.

        """
        assert number == len(self._offsets), f"chunk {len(self._offsets)} is due, not {number}"
        self._offsets.append(self._offset)
        self._total_bytes += len(chunk)
        self._append(encode_chunk(number, chunk, self._seed, self._offset))

    def finish(self) -> SnapshotInfo:
        """Make the snapshot durable, prove it readable, and let it be the newest.

        Raises:
            OSError: the disk refused, or gives back other than was written.

        """
        for _ in self.finish_steps():
            pass
        return self.info

    def finish_steps(self) -> Iterator[None]:
        """Do what `finish` does, in steps of about a chunk each; afterwards `info` is there."""
        if self._known is not None:
            return
        self._append(encode_end(len(self._offsets), self._total_bytes, self._seed, self._offset))
        self._files.sync(self._temporary)
        yield
        self._files.uncache(self._temporary)
        index, term = self.place
        self._known = SnapshotInfo(index, term, len(self._offsets), self._total_bytes, self._name)
        scan = SnapshotScan(self._files, self._temporary)
        try:
            for _ in scan:
                yield
        except DamagedError as error:
            raise OSError(errno.EIO, f"a snapshot can't be read back: {error.message}") from error
        found = scan.stored
        if found.info != self._known:
            raise OSError(errno.EIO, f"{found.info} was read back instead of {self._known}")
        self._files.rename(self._temporary, self._name)
        self._is_begun = False
        self._store.put(found)

    @property
    def info(self) -> SnapshotInfo:
        """What was written. There after `finish`."""
        assert self._known is not None
        assert not self._is_begun
        return self._known

    def abort(self) -> None:
        """Remove what was written. After `finish` it does nothing.

        Raises:
            OSError: the disk refused.

        """
        if self._is_begun:
            self._is_begun = False
            remove(self._files, self._temporary)

    def _append(self, data: bytes) -> None:
        self._offset += len(data)
        if self._known is not None:
            return
        self._files.append(self._temporary, data)
        self._unsynced_bytes += len(data)
        if self._unsynced_bytes >= SYNC_BYTES:
            self._files.sync(self._temporary)
            self._unsynced_bytes = 0


@attrs.define
class SnapshotReader:
    """Reads the frames of a snapshot's file one after the other."""

    files: Files
    name: str
    seed: int
    offset: int
    """Of the next frame."""

    def next(self) -> tuple[SnapshotFrame, bytes]:
        """Return the next frame and its body.

        Raises:
            DamagedError: it is not what was written.
            OSError: the disk refused.

        """
        data = self.files.read_at(self.name, self.offset, FRAME_HEADER_BYTES)
        try:
            frame = decode_frame(data, self.seed, self.offset)
        except FrameError as error:
            raise self.damage(str(error)) from error
        body = self.files.read_at(self.name, self.offset + FRAME_HEADER_BYTES, frame.length)
        try:
            frame.check(body)
        except FrameError as error:
            raise self.damage(str(error)) from error
        self.offset += FRAME_HEADER_BYTES + frame.length
        return frame, body

    def damage(self, reason: str) -> DamagedError:
        """Say that the file is damaged where the next frame is due."""
        return DamagedError(self.files.location(self.name), self.offset, reason)


class SnapshotScan:
    """Reads a whole snapshot and compares every check: iterating yields each chunk's offset, frame and body.

    Args:
        files: its directory.
        name: its name, final or temporary.
        identity: whose it must be; None takes anybody's.
        is_named: whether its name must be that of its place; a copy may have any.

    Raises of iterating:
        DamagedError: it is not what was written.
        OSError: the disk refused.

    """

    def __init__(
        self, files: Files, name: str, identity: Identity | None = None, *, is_named: bool = True
    ) -> None:
        """Read nothing yet."""
        self._files = files
        self._name = name
        self._identity = identity
        self._is_named = is_named
        self._stored: Stored | None = None

    @property
    def stored(self) -> Stored:
        """The snapshot. There after iterating to the end."""
        assert self._stored is not None
        return self._stored

    def __iter__(self) -> Iterator[tuple[int, SnapshotFrame, bytes]]:
        header = self._read_header()
        reader = SnapshotReader(self._files, self._name, header.seed, HEADER_BYTES)
        offsets: list[int] = []
        total_bytes = 0
        while True:
            offset = reader.offset
            frame, body = reader.next()
            if frame.number != len(offsets):
                raise self._damage(offset, f"frame {len(offsets)} is due, not {frame.number}")
            if frame.kind == FrameKind.END:
                break
            offsets.append(offset)
            total_bytes += frame.length
            yield offset, frame, body
        if decode_total(body) != total_bytes:
            raise self._damage(offset, "the snapshot's end does not go with what comes before it")
        if self._files.size(self._name) != reader.offset:
            raise self._damage(reader.offset, "there is data behind the end of the snapshot")
        name = self._name.removesuffix(TEMPORARY_SUFFIX)
        info = SnapshotInfo(header.index, header.term, len(offsets), total_bytes, name)
        self._stored = Stored(info, header.seed, offsets)

    def _read_header(self) -> SnapshotHeader:
        try:
            header = decode_snapshot_header(self._files.read_at(self._name, 0, HEADER_BYTES))
        except FrameError as error:
            raise self._damage(0, str(error)) from error
        if self._identity is not None and header.identity != self._identity:
            raise self._damage(0, f"it belongs to {header.identity}, not to {self._identity}")
        due = snapshot_name(header.index, header.term)
        if self._is_named and self._name.removesuffix(TEMPORARY_SUFFIX) != due:
            raise self._damage(0, f"it is the snapshot up to {header.index}@{header.term}")
        return header

    def _damage(self, offset: int, reason: str) -> DamagedError:
        return DamagedError(self._files.location(self._name), offset, reason)


def verify_snapshot(files: Files, name: str, identity: Identity | None = None) -> Stored:
    """Read a whole snapshot and compare every check.

    Raises:
        DamagedError: it is not what was written.
        OSError: the disk refused.

    """
    scan = SnapshotScan(files, name, identity)
    for _ in scan:
        pass
    return scan.stored
