"""Making a cluster that does not begin with nothing, so that it is there as a whole or not at all.

As for every cluster its manifest comes last. A mark that comes first tells what an interrupted call left behind
from somebody's data: it is never started, and makes way for the next call.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from trio_kv.storage.errors import ManifestError
from trio_kv.storage.files import TEMPORARY_SUFFIX, RealFiles
from trio_kv.storage.manifest import (
    LOCK_NAME,
    NODES_MAX,
    UNFINISHED_NAME,
    DataDirectory,
    NodeDirectory,
    is_unfinished,
    make_cluster,
    make_directory,
    take_lock,
    write_json,
)
from trio_kv.storage.wal import SEGMENT_BYTES

_NOTHING = frozenset({LOCK_NAME, "lost+found", UNFINISHED_NAME + TEMPORARY_SUFFIX})
"""What may lie in a directory that counts as empty. Every new ext4 file system has a lost+found."""


def make_data_directory(
    path: Path,
    *,
    nodes: int,
    random: Random,
    fill: Callable[[Sequence[NodeDirectory]], object],
    segment_bytes: int = SEGMENT_BYTES,
    is_synced: bool = True,
) -> DataDirectory:
    """Make the data directory of a new cluster that does not begin with nothing.

    Args:
        path: where; nothing may be there, but for an empty directory.
        nodes: how many nodes the cluster has.
        random: where its ids come from.
        fill: gives the new nodes what they begin with, durably. The cluster exists only when that is done: what an
            interrupted call leaves behind can't be taken for one, and makes way for the next call.
        segment_bytes: size of new log segments.
        is_synced: False leaves out every sync.

    Raises:
        ManifestError: there is something already.
        LockedError: another process makes one there.
        ValueError: no cluster can have so many nodes.
        OSError: the disk refused.

    """
    if not 1 <= nodes <= NODES_MAX:
        raise ValueError(f"a cluster has 1 to {NODES_MAX} nodes, not {nodes}")
    _check_vacant(path)
    make_directory(path, is_synced=is_synced)
    lock = take_lock(path)
    try:
        _check_vacant(path)
        _remove_unfinished(path)
        files = RealFiles(path, is_synced=is_synced)
        write_json(files, UNFINISHED_NAME, {"nodes": nodes})
        try:
            manifest = make_cluster(
                path, nodes, random, segment_bytes=segment_bytes, is_synced=is_synced, fill=fill
            )
        except BaseException:
            if is_unfinished(path):
                _remove_unfinished(path)
            raise
        files.delete(UNFINISHED_NAME)
    except BaseException:
        os.close(lock)
        raise
    return DataDirectory(path, manifest, lock, segment_bytes=segment_bytes, is_synced=is_synced)


def _check_vacant(path: Path) -> None:
    names = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if names - _NOTHING and not is_unfinished(path):
        raise ManifestError(
            f"{path} is not empty.", "Nothing was changed. Name a directory that is new, or empty."
        )


def _remove_unfinished(path: Path) -> None:
    """Remove what an interrupted `make_data_directory` left; its mark goes last."""
    for directory in sorted(path.glob("node-*")):
        shutil.rmtree(directory)
    (path / UNFINISHED_NAME).unlink(missing_ok=True)
