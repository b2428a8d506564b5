"""The data directory of one node of a cluster whose nodes live on hosts of their own.

It looks as that of a whole cluster, and holds one node's directory. Its manifest says who lives `here`, and knows of
the others no more than that there are these: their incarnations are 0.

**It is made once.** A first start can't be told from one whose disk was lost, so no start ever makes a directory: what
is not there is lost (scenario D8), also an empty directory on which the disk was not mounted. A node that began anew
under its old number would have forgotten its votes, and what it acknowledged.

Everything here blocks; call it in a thread.
"""

import contextlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from random import Random

from trio_kv.storage.data_directory import UNFINISHED_NAME, DataDirectory, take
from trio_kv.storage.errors import LostError, ManifestError
from trio_kv.storage.files import Files
from trio_kv.storage.folders import Folder, RealFolder
from trio_kv.storage.making import make_whole, open_vacant
from trio_kv.storage.manifest import MANIFEST_NAME, Manifest, check_nodes, draw_host_manifest, is_cluster_id
from trio_kv.storage.node_directory import NodeDirectory
from trio_kv.storage.rebuild import begin_rebuild
from trio_kv.storage.segments import SEGMENT_BYTES


def make_host_directory(
    path: Path,
    *,
    cluster: str,
    nodes: int,
    node: int,
    random: Random,
    replaces: int | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    is_synced: bool = True,
) -> DataDirectory:
    """Make the data directory of one node.

    Args:
        path: where; nothing may be there, but for an empty directory or what an interrupted call left.
        cluster: its id, 32 hexadecimal digits.
        nodes: how many nodes the cluster has.
        node: who lives here.
        random: draws its incarnation: `random.SystemRandom()` outside of tests.
        replaces: the highest incarnation of it that the others know, a majority of whom was asked, if its disk was
            lost; 0 if they know none. The new one is higher, and votes for nobody until the others have filled it.
            None: it never lived anywhere before.
        segment_bytes: size of the log segments.
        is_synced: False leaves out every sync.

    Raises:
        ManifestError: there is something already.
        LockedError: another process makes one there.
        ValueError: there can be no such cluster or node.
        OSError: the disk refused.

    """
    check_host(cluster, nodes, node)
    root = open_vacant(path, is_synced=is_synced)
    return make_host_folder(
        root,
        cluster=cluster,
        nodes=nodes,
        node=node,
        random=random,
        replaces=replaces,
        segment_bytes=segment_bytes,
    )


def make_host_folder(
    root: Folder,
    *,
    cluster: str,
    nodes: int,
    node: int,
    random: Random,
    replaces: int | None = None,
    segment_bytes: int = SEGMENT_BYTES,
) -> DataDirectory:
    """Make the data directory of one node in a folder; it is closed with it, or when this raises.

    Arguments and errors are those of `make_host_directory`.
    """
    draw = partial(draw_host_manifest, cluster, nodes, node, random, replaces)
    fill = None if replaces is None else _begin_rebuild
    return make_whole(root, draw, fill, segment_bytes=segment_bytes)


def open_host_directory(
    path: Path,
    *,
    cluster: str,
    nodes: int,
    node: int,
    segment_bytes: int = SEGMENT_BYTES,
    is_synced: bool = True,
) -> DataDirectory:
    """Open the data directory of one node; nothing is ever made.

    Args:
        path: the directory.
        cluster: the id of the cluster that must live there.
        nodes: how many nodes it must have.
        node: who must live there.
        segment_bytes: size of new log segments.
        is_synced: False leaves out every sync.

    Raises:
        LostError: there is no data directory.
        LockedError: another process uses it.
        ManifestError: it can't be understood, or is another cluster's or another node's.
        StorageError: its file system can't lock it.
        OSError: the disk refused.

    """
    try:
        root = RealFolder.open(path, is_synced=is_synced)
    except FileNotFoundError as error:
        raise _lost(path, node, "is not there") from error
    except NotADirectoryError as error:
        raise _lost(path, node, "is no directory") from error
    return open_host_folder(root, cluster=cluster, nodes=nodes, node=node, segment_bytes=segment_bytes)


def open_host_folder(
    root: Folder, *, cluster: str, nodes: int, node: int, segment_bytes: int = SEGMENT_BYTES
) -> DataDirectory:
    """Open the data directory of one node that is a folder; it is closed with it, or when this raises.

    Arguments and errors are those of `open_host_directory`.
    """

    def refuse(_files: Files) -> Manifest:
        raise _lost(root.path, node, f"holds no {MANIFEST_NAME}")

    with contextlib.ExitStack() as undo:
        undo.callback(root.close)
        names = root.names()
        if MANIFEST_NAME not in names:
            # Before it is locked, which would leave a file on whatever this is.
            if UNFINISHED_NAME not in names:
                raise _lost(root.path, node, f"holds no {MANIFEST_NAME}")
            raise ManifestError(
                f"{root.path} is not complete: its making was interrupted.",
                "Nothing was changed. Repeat the command that makes it.",
            )
        undo.pop_all()
    return take(root, refuse, partial(_check_is, root.path, cluster, nodes, node), segment_bytes)


def check_host(cluster: str, nodes: int, node: int) -> None:
    """Check that there may be such a cluster with such a node.

    Raises:
        ValueError: there may not.

    """
    check_nodes(nodes)
    if not 1 <= node <= nodes:
        raise ValueError(f"of {nodes} nodes none has the number {node}")
    if not is_cluster_id(cluster):
        raise ValueError(f"{cluster!r} is no cluster's id: 32 hexadecimal digits")


def _begin_rebuild(directories: Sequence[NodeDirectory]) -> None:
    for each in directories:
        begin_rebuild(each)


def _lost(path: Path, node: int, what: str) -> LostError:
    return LostError(
        f"{path} {what}: the data of node {node} is lost.",
        "Is its disk mounted? If the node never ran, `trio-kv cluster create` makes its directory, once. If it did, it"
        f" must not begin as a new one: its disk is lost, and `trio-kv rebuild {node} --cluster FILE` lets the other"
        " nodes fill a new one.",
    )


def _check_is(path: Path, cluster: str, nodes: int, node: int, manifest: Manifest) -> None:
    """Raise ManifestError if this is not the node that was meant."""
    found = manifest.here
    if manifest.cluster != cluster:
        what = f"belongs to cluster {manifest.cluster}, not to {cluster}"
    elif found is None:
        what = f"holds all nodes of a cluster, not node {node} alone"
    elif found != node:
        what = f"belongs to node {found}, not to node {node}"
    elif len(manifest.nodes) != nodes:
        what = f"was made for a cluster of {len(manifest.nodes)} nodes, not of {nodes}"
    else:
        return
    raise ManifestError(
        f"{path} {what}.", "Nothing was changed. Name its own data directory, and its own node."
    )
