"""Reading snapshots back, and what they are called. Nothing is believed before its check was compared."""

import re
from collections.abc import Iterator, Sequence

import attrs

from trio_kv.raft.entry import LogPosition
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.files import TEMPORARY_SUFFIX, Files
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
)

SNAPSHOT_SUFFIX = ".snap"
_NAME = re.compile(r"snapshot-(\d{16})-(\d{16})\.snap")


def snapshot_name(index: int, term: int) -> str:
    """Return the file name of a snapshot. Sorted by name they are sorted by index."""
    return f"snapshot-{index:016d}-{term:016d}{SNAPSHOT_SUFFIX}"


def snapshot_names(names: Sequence[str]) -> list[str]:
    """Return the names of the snapshots among these file names, the newest first."""
    return sorted(filter(_NAME.fullmatch, names), reverse=True)


def snapshot_position(name: str) -> LogPosition:
    """Return (index, term) of the snapshot with this file name."""
    match = _NAME.fullmatch(name)
    assert match is not None
    return LogPosition(int(match[1]), int(match[2]))


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
    def position(self) -> LogPosition:
        """(index, term): what names a snapshot between nodes."""
        return LogPosition(self.index, self.term)


@attrs.frozen
class Stored:
    """A snapshot that was read whole, or written, and where its chunks are."""

    info: SnapshotInfo
    seed: int
    offsets: Sequence[int]
    """Of each chunk's frame, in bytes of the file."""


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
        is_named: whether its name must be that of its position; a copy may have any.

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
