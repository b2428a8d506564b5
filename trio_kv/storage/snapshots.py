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
from collections.abc import Iterator

from trio_kv.raft.entry import LogPosition
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.files import TEMPORARY_SUFFIX, Files, remove
from trio_kv.storage.snapshot_reading import (
    SNAPSHOT_SUFFIX,
    SnapshotInfo,
    SnapshotReader,
    SnapshotScan,
    Stored,
    snapshot_name,
    snapshot_names,
)
from trio_kv.wire.frames import Identity
from trio_kv.wire.snapshot_file import HEADER_BYTES, FrameKind, SnapshotHeader, encode_chunk, encode_end

SYNC_BYTES = 4 << 20
"""A snapshot is synced whenever so much of it was written."""


class SnapshotStore:
    """The snapshots of one node. Made by `storage.opening.open_node`.

    Invariant: `newest` never goes back, and is whole on the disk.

    Raises of all methods:
        OSError: the disk refused.

    """

    def __init__(self, files: Files, identity: Identity, newest: Stored | None = None) -> None:
        """Take over the directory, whose newest whole snapshot this is; `clean` removes the others."""
        self._files = files
        self._identity = identity
        self._newest = newest
        self._older: Stored | None = None
        """The one before, while it is being read."""
        self._held: set[LogPosition] = set()
        """Those that were read and not released."""

    def newest(self) -> SnapshotInfo | None:
        """Return the newest snapshot."""
        return None if self._newest is None else self._newest.info

    def find(self, position: LogPosition) -> SnapshotInfo | None:
        """Return the snapshot of this position; None if it is gone."""
        stored = self._find(position)
        return None if stored is None else stored.info

    def begin(self, index: int, term: int) -> "SnapshotWriter":
        """Begin to write a snapshot; the one before stays until the new one is proved readable."""
        newest = self.newest()
        assert newest is None or index >= newest.index, f"{index}@{term} is older than {newest}"
        return SnapshotWriter(self, self._files, SnapshotHeader(self._identity, index, term))

    def read_chunk(self, position: LogPosition, number: int) -> bytes | None:
        """Return a chunk, to send it; None if that snapshot is gone. Holds the snapshot until `release`.

        Raises:
            DamagedError: it is not what was written.

        """
        stored = self._find(position)
        if stored is None or not 0 <= number < stored.info.chunks:
            return None
        self._held.add(position)
        return self._read(stored, number)

    def release(self, position: LogPosition) -> None:
        """Take note that a reader is done with a snapshot."""
        self._held.discard(position)
        if self._older is not None and self._older.info.position == position:
            self._drop_older()

    def chunks(self, info: SnapshotInfo) -> Iterator[bytes]:
        """Yield the chunks of the newest snapshot, in order.

        Raises:
            DamagedError: it is not what was written.

        """
        stored = self._newest
        assert stored is not None
        assert stored.info == info
        for number in range(info.chunks):
            yield self._read(stored, number)

    def clean(self) -> None:
        """Remove all but the newest snapshot. Call it when the log was found to go with that one."""
        names = self._files.names()
        kept = None if self._newest is None else self._newest.info.name
        for name in names:
            is_old = bool(snapshot_names([name])) and name != kept
            if is_old or name.endswith(SNAPSHOT_SUFFIX + TEMPORARY_SUFFIX):
                remove(self._files, name)

    def put(self, stored: Stored) -> None:
        """Let a snapshot with a durable name be the newest, and remove the one it replaces."""
        self._drop_older()
        replaced, self._newest = self._newest, stored
        if replaced is not None:
            self._older = replaced
            if replaced.info.position not in self._held:
                self._drop_older()

    def close(self) -> None:
        """Let go of the files."""
        self._files.close()

    def _find(self, position: LogPosition) -> Stored | None:
        return next(
            (kept for kept in (self._newest, self._older) if kept and kept.info.position == position), None
        )

    def _drop_older(self) -> None:
        older, self._older = self._older, None
        if older is not None:
            self._held.discard(older.info.position)
            remove(self._files, older.info.name)

    def _read(self, stored: Stored, number: int) -> bytes:
        reader = SnapshotReader(self._files, stored.info.name, stored.seed, stored.offsets[number])
        frame, body = reader.next()
        if (frame.kind, frame.number) != (FrameKind.CHUNK, number):
            raise reader.damage(f"chunk {number} is due, not {frame.kind} number {frame.number}")
        return body


class SnapshotWriter:
    """A snapshot that is being written.

    Raises of all methods:
        OSError: the disk refused, or gave back other than was written. `abort` then, and nothing else.

    """

    def __init__(self, store: SnapshotStore, files: Files, header: SnapshotHeader) -> None:
        """Begin the file. Use `SnapshotStore.begin`."""
        self.position = LogPosition(header.index, header.term)
        self._store = store
        self._files = files
        self._seed = header.seed
        self._name = snapshot_name(*self.position)
        self._temporary = self._name + TEMPORARY_SUFFIX
        self._offsets: list[int] = []
        self._offset = HEADER_BYTES
        self._total_bytes = 0
        self._unsynced_bytes = 0
        newest = store.newest()
        self._known = newest if newest is not None and newest.position == self.position else None
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
        """Write the next chunk."""
        assert number == len(self._offsets), f"chunk {len(self._offsets)} is due, not {number}"
        self._offsets.append(self._offset)
        self._total_bytes += len(chunk)
        self._append(encode_chunk(number, chunk, self._seed, self._offset))

    def finish(self) -> SnapshotInfo:
        """Make the snapshot durable, prove it readable, and let it be the newest."""
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
        index, term = self.position
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
        """Remove what was written. After `finish` it does nothing."""
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
