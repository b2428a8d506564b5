"""Opening one node's directory: its newest snapshot and its log, made to go together.

A crash may fall anywhere between a snapshot that became durable, the record that lets it take the log's place, and
the removal of what it covers. So the two are compared at each start (scenarios N1, N2, N6, N9):

- The log holds the snapshot's last entry: it goes on from there, and what it holds before is not needed.
- It ends before that entry, or has one of another term there: it is *in conflict*. All that it holds is covered,
  or was never committed; it is reset to the snapshot, durably, before anybody sees it.
- It begins after it: entries are missing. That is damage.

A damaged snapshot is passed over only if nothing depends on it: the log holds the snapshot's last entry, and all
entries back to the next older snapshot, or to the first. Otherwise the node refuses to start.
"""

from collections.abc import Callable

import attrs

from trio_kv.kv.commands import decode_command as decode_kv_command
from trio_kv.kv.machine import Machine
from trio_kv.kv.reply import Item
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.entry import Command
from trio_kv.raft.runs import Entries
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.files import Files
from trio_kv.storage.place import Place
from trio_kv.storage.recovery import Recovered, Recovery
from trio_kv.storage.segments import SEGMENT_BYTES
from trio_kv.storage.snapshot_reading import (
    SnapshotInfo,
    Stored,
    snapshot_names,
    snapshot_position,
    verify_snapshot,
)
from trio_kv.storage.snapshots import SnapshotStore
from trio_kv.storage.wal import Wal
from trio_kv.wire.frames import Base, Identity


@attrs.frozen
class Opened:
    """A node's disk, ready to go on."""

    wal: Wal
    snapshots: SnapshotStore
    recovered: Recovered
    """Its base is the newest snapshot's place, and its entries follow on that."""
    place: Place | None = None
    """Where its directory was found; None in memory."""

    def restore(
        self,
        known: Callable[[str], Item | None] | None = None,
        on_chunk: Callable[[bytes], object] | None = None,
    ) -> Machine:
        """Return the state machine that the newest snapshot holds; an empty one if there is none.

        Args:
            known: finds items that are in memory already, to share them.
            on_chunk: called after each piece of the snapshot.

        """
        snapshot = self.recovered.snapshot
        if snapshot is None:
            return Machine()
        restorer = Restorer(known)
        for chunk in self.snapshots.chunks(snapshot):
            restorer.feed(chunk)
            if on_chunk is not None:
                on_chunk(chunk)
        return restorer.finish()

    def close(self) -> None:
        """Let go of the files."""
        self.wal.close()
        self.snapshots.close()


@attrs.define
class Examination:
    """Reads a node's directory and judges it. Nothing is changed by it.

    Args:
        files: the directory.
        identity: whose it must be.
        decode_command: what turns the bytes of a command into the command.

    """

    files: Files
    identity: Identity
    decode_command: Callable[[bytes], Command] = decode_kv_command
    damaged: list[DamagedError] = attrs.field(factory=list)
    """Snapshots that were passed over, the newest first."""

    def run(self) -> tuple[Recovery, Recovered, Stored | None]:
        """Return the log, what it holds, and the newest whole snapshot.

        Raises:
            DamagedError: what is there can't be believed.
            OSError: the disk refused.

        """
        damaged: list[tuple[tuple[int, int], DamagedError]] = []
        stored: Stored | None = None
        for name in snapshot_names(self.files.names()):
            try:
                stored = verify_snapshot(self.files, name, self.identity)
            except DamagedError as error:
                damaged.append((snapshot_position(name), error))
            if stored is not None:
                break
        covered_index = 0 if stored is None else stored.info.index
        recovery = Recovery(self.files, self.identity, self.decode_command, covered_index)
        try:
            recovered = recovery.read()
        except DamagedError as error:
            if damaged:
                raise damaged[0][1] from error
            raise
        for (index, term), damage in damaged:
            if recovery.shape.term_at(index) != term:
                raise damage
        self.damaged = [damage for _, damage in damaged]
        return recovery, recovered, stored


def open_node(
    files: Files,
    snapshot_files: Files,
    identity: Identity,
    *,
    segment_bytes: int = SEGMENT_BYTES,
    decode_command: Callable[[bytes], Command] = decode_kv_command,
) -> Opened:
    """Open a node's log and snapshots; what is returned is durable.

    Args:
        files: its directory, for the log.
        snapshot_files: the same directory, for the snapshots: they may be written by another thread.
        identity: whose directory it must be.
        segment_bytes: size of segments made from now on.
        decode_command: what turns the bytes of a command into the command.

    Raises:
        DamagedError: what is there can't be believed; no file was changed.
        OSError: the disk refused.

    """
    examination = Examination(files, identity, decode_command)
    recovery, recovered, stored = examination.run()
    # From here on the directory is changed. The repair comes first: it also makes the names durable, that of the
    # snapshot among them, before anything is removed because of it.
    wal = Wal.resume(files, recovery, segment_bytes=segment_bytes)
    warnings = [*recovered.warnings]
    warnings += [
        f"{error.message}. The log still holds what is in it: it is removed." for error in examination.damaged
    ]
    info = None if stored is None else stored.info
    if info is not None:
        recovered = _join(wal, recovered, info)
    store = SnapshotStore(snapshot_files, identity, stored)
    store.clean()
    return Opened(wal, store, attrs.evolve(recovered, warnings=tuple(warnings), snapshot=info))


def _join(wal: Wal, recovered: Recovered, info: SnapshotInfo) -> Recovered:
    """Let the log go on from the snapshot."""
    entries = recovered.entries
    assert isinstance(entries, Entries)
    if wal.term_at(info.index) == info.term:
        entries.drop(info.index - recovered.base.index)
    else:
        entries.clear()
        wal.reset(info.index, info.term)
    wal.compact(info.index)
    return Recovered(wal.hard_state, Base(info.index, info.term), entries, recovered.warnings)
