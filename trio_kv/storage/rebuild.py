"""A new directory for a node whose own is lost or damaged, to be filled by the others.

The node keeps its number and gets a **new incarnation**, higher than the last: what its former self
acknowledged is void. A file `rebuilding` in the new directory says that the node must not count yet. It
votes for nobody and counts for no majority until a majority of the *others* has confirmed what was
committed and it has all of that (see `raft.server`); only then is the file removed.

The old directory is moved aside, never deleted: it may be somebody's last hope. Order makes each step
safe to be interrupted: as long as the manifest names the old incarnation, the new directory belongs to
nobody, and the rebuild is simply asked for again.
"""

from pathlib import Path
from random import Random

from trio_kv.storage.errors import StorageError
from trio_kv.storage.manifest import REBUILDING_NAME, DataDirectory, NodeDirectory


def rebuild_node(directory: DataDirectory, node: int, random: Random) -> Path | None:
    """Put a new, empty directory in the place of a node's; the node must not run.

    Args:
        directory: the cluster's.
        node: whose directory.
        random: draws the new incarnation.

    Returns:
        where the old directory was moved, if there was one.

    Raises:
        StorageError: it can't be rebuilt: too few of the other nodes are in order.
        OSError: the disk refused.

    """
    others = [directory.node(other) for other in directory.nodes if other != node]
    sound = [other for other in others if other.state == "ok" and not other.is_rebuilding]
    needed = len(directory.nodes) // 2 + 1
    if len(sound) < needed:
        raise StorageError(
            f"node {node} can't be rebuilt: that takes {needed} other nodes that have all of their data, and "
            f"{len(sound)} of {len(others)} have.",
            "Put back the directories that are missing, or restore a backup into a new data directory.",
        )
    return directory.replace_node(node, random)


def end_rebuild(directory: NodeDirectory) -> None:
    """Note that a rebuilt node counts again. Forgetting it in a crash costs one more confirmation, and no safety."""
    (directory.path / REBUILDING_NAME).unlink(missing_ok=True)
