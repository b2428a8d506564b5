"""A new directory for a node whose own is lost or damaged, to be filled by the others.

The node keeps its number and gets a **new incarnation**, higher than the last: what its former self
acknowledged is void. A file `rebuilding` in the new directory says that the node must not count yet. It
votes for nobody and counts for no majority until a majority of the *others* has confirmed what was
committed and it has all of that (see `raft.state`); only then is the file removed.

A majority of the others must be **sound**: a start would find all of their data. That is read, and not guessed from
names of files. A node that runs was read when it started, and its files change while they would be read; its disk may
hang, too.

The old directory is moved aside, never deleted: it may be somebody's last hope. `storage.node_directory` has the order
of the steps, of which each may be interrupted.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from random import Random

from trio_kv.raft.voters import Voters
from trio_kv.storage.data_directory import DataDirectory
from trio_kv.storage.errors import FULL, GoneError, StorageError
from trio_kv.storage.manifest import write_json
from trio_kv.storage.node_directory import REBUILDING_NAME, NodeDirectory


def rebuild_node(
    directory: DataDirectory, node: int, random: Random, running: Collection[int] = (), known: int = 0
) -> Path | None:
    """Put a new, empty directory in the place of a node's; the node must not run.

    Args:
        directory: the cluster's.
        node: whose directory.
        random: draws the new incarnation.
        running: nodes that run with all of their data, here or elsewhere. They are not looked at.
        known: the highest incarnation of the node that others are known to have heard of.

    Returns:
        where the old directory was moved, if there was one.

    Raises:
        StorageError: it can't be rebuilt: too few of the other nodes are in order, or the disk refuses; the old
            directory is where it was, or the message says that it is not.

    """
    others = [other for other in directory.nodes if other != node]
    reasons = {other: _why_unsound(directory, other) for other in others if other not in running}
    unsound = {other: reason for other, reason in reasons.items() if reason is not None}
    check_enough(directory.nodes, node, unsound)
    before = directory.manifest
    try:
        return directory.replace_node(node, random, known)
    except GoneError as error:
        raise StorageError(f"node {node} can't be rebuilt: {error.text}.", "Nothing was changed.") from error
    except OSError as error:
        if directory.manifest is not before:
            raise StorageError(
                f"the new directory of node {node} is made, but can't be put in its place: {error}.",
                "See to the disk, and start the server again.",
            ) from error
        is_full = error.errno in FULL
        raise StorageError(
            f"there is no room for a new directory of node {node}: {error.strerror}."
            if is_full
            else f"no new directory of node {node} can be made: {error}.",
            "The old one is where it was. "
            + ("Make room" if is_full else "See to the disk")
            + ", and try again.",
        ) from error


def check_enough(
    nodes: Collection[int],
    node: int,
    unsound: Mapping[int, str],
    way_out: str = "Put back the directories that are missing, or restore a backup into a new data directory.",
) -> None:
    """Check that the others can fill a node.

    Args:
        nodes: all of the cluster.
        node: which one is to be filled.
        unsound: why a node can't help, for each of the others that can't.
        way_out: what to do where they are too few.

    Raises:
        StorageError: they can't.

    """
    count, voters = len(nodes) - 1, Voters(nodes)
    sound = [other for other in nodes if other != node and other not in unsound]
    if not voters.has_majority(sound):
        told = "".join(f"\nNode {other}: {reason}." for other, reason in sorted(unsound.items()))
        raise StorageError(
            f"node {node} can't be rebuilt: that takes {voters.majority_size()} other nodes that have all of their "
            f"data, and {len(sound)} of {count} have.{told}",
            way_out,
        )


def _why_unsound(directory: DataDirectory, node: int) -> str | None:
    """Return why a node has not all of its data, or may not have; None if it has."""
    if node not in directory.nodes_here:
        return "it lives elsewhere, and is not known to have all of its data"
    try:
        directory.node(node).check_sound()
    except StorageError as error:
        return error.message.rstrip(".")
    except OSError as error:
        return f"it can't be read: {error}"
    return None


def begin_rebuild(directory: NodeDirectory) -> None:
    """Note that a new directory, which nobody uses yet, is to be filled by the others, durably. Raises OSError."""
    with directory.files() as files:
        write_json(files, REBUILDING_NAME, {"since": directory.incarnation})


def end_rebuild(directory: NodeDirectory) -> None:
    """Note that a rebuilt node counts again, durably. May be called again.

    Should the mark come back, as after a power cut in the middle of this, that costs one more confirmation, and no
    safety: what the node promised since is in its log. Raises OSError.
    """
    with directory.files() as files:
        if REBUILDING_NAME in files.names():
            files.delete(REBUILDING_NAME)
