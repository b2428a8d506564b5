"""Making a cluster that does not begin with nothing, so that it is there as a whole or not at all.

As for every cluster its manifest is written last. A mark is written first. It tells what an interrupted call left
behind from somebody's data: a directory with a mark is never started, and the next call empties it. The mark is removed
when the manifest is durable, or when all else is gone, durably: no power cut leaves somebody's data with a mark, or a
part of a cluster without one.
"""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

from trio_kv.storage.data_directory import UNFINISHED_NAME, DataDirectory, is_unfinished, make_cluster
from trio_kv.storage.errors import ManifestError
from trio_kv.storage.files import TEMPORARY_SUFFIX, Files
from trio_kv.storage.folders import Folder, RealFolder
from trio_kv.storage.lock import LOCK_NAME
from trio_kv.storage.manifest import Manifest, check_nodes, draw_manifest, write_json
from trio_kv.storage.node_directory import NodeDirectory
from trio_kv.storage.segments import SEGMENT_BYTES

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
    check_nodes(nodes)
    root = open_vacant(path, is_synced=is_synced)
    return make_in_folder(root, nodes=nodes, random=random, fill=fill, segment_bytes=segment_bytes)


def open_vacant(path: Path, *, is_synced: bool) -> RealFolder:
    """Open a directory that may become a data directory; make it, if it isn't there.

    Raises:
        ManifestError: there is something in it.
        OSError: the disk refused.

    """
    if path.exists():
        with contextlib.closing(RealFolder.open(path)) as found, contextlib.closing(found.files()) as files:
            _check_vacant(found, files)
    return RealFolder.open_new(path, is_synced=is_synced)


def make_in_folder(
    root: Folder,
    *,
    nodes: int,
    random: Random,
    fill: Callable[[Sequence[NodeDirectory]], object],
    segment_bytes: int = SEGMENT_BYTES,
) -> DataDirectory:
    """Make the data directory of a new cluster in a folder; it is closed with it, or when this raises.

    Arguments and errors are those of `make_data_directory`.
    """
    return make_whole(root, partial(draw_manifest, nodes, random), fill, segment_bytes=segment_bytes)


def make_whole(
    root: Folder,
    draw: Callable[[], Manifest],
    fill: Callable[[Sequence[NodeDirectory]], object] | None = None,
    *,
    segment_bytes: int,
) -> DataDirectory:
    """Make what `draw` returns in a folder, as `make_cluster` does; it is there as a whole, or not at all.

    The folder is closed with it, or when this raises.

    Raises:
        ManifestError: there is something already.
        LockedError: another process makes one there.
        OSError: the disk refused.

    """
    with contextlib.ExitStack() as undo:
        undo.callback(root.close)
        root.lock()
        files = undo.enter_context(contextlib.closing(root.files()))
        _check_vacant(root, files)
        root.sync_above()
        _remove_unfinished(root, files)
        write_json(files, UNFINISHED_NAME, {})
        try:
            manifest = make_cluster(root, draw, segment_bytes=segment_bytes, fill=fill)
        except BaseException:
            if is_unfinished(files):
                _remove_unfinished(root, files)
            raise
        files.delete(UNFINISHED_NAME)
        files.close()
        undo.pop_all()
    return DataDirectory(root, manifest, segment_bytes=segment_bytes)


def _check_vacant(root: Folder, files: Files) -> None:
    if {*root.names()} - _NOTHING and not is_unfinished(files):
        raise ManifestError(
            f"{root.path} is not empty.", "Nothing was changed. Name a directory that is new, or empty."
        )


def _remove_unfinished(root: Folder, files: Files) -> None:
    """Remove what an interrupted `make_data_directory` left; its mark goes last, when all else is gone for good."""
    for name in root.names():
        if name.startswith("node-"):
            root.remove(name)
    if UNFINISHED_NAME in files.names():
        files.delete(UNFINISHED_NAME)
