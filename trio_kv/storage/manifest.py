"""The manifest: which cluster lives in a data directory. And how our other small files are written and read.

To write it is the step that makes a cluster exist, and the one that replaces a node. All that it names is durable
before it is written. A start that finds it makes it durable before it builds on it.

A directory of an earlier format that is read here is taken as it is. Its manifest is raised before anything is written
that the earlier version would not understand: from then on that one refuses it.
"""

from random import Random
from typing import TypeVar

import attrs
import msgspec

from trio_kv.storage.errors import ManifestError
from trio_kv.storage.files import Files
from trio_kv.wire.frames import FORMAT as LOG_FORMAT
from trio_kv.wire.frames import FORMATS_READ
from trio_kv.wire.incarnations import draw_first, draw_successor

FORMAT = LOG_FORMAT
"""Version of the directory: a log of another format makes it another one."""
NODES_DEFAULT = 5
NODES_MAX = 9
MANIFEST_NAME = "manifest.json"
IDENTITY_NAME = "identity.json"
"""Stands in a node's directory, and says whose that is."""
CLUSTER_BITS = 128
_PUT_BACK = "Nothing was changed. Put back the file as it was; it never changes while a cluster lives."
_BACKUP_AND_RESTORE = (
    "An earlier version of trio_kv wrote it, and nothing was changed. The way over: `trio-kv serve` it with that"
    " version and `trio-kv backup FILE`; then `trio-kv restore FILE --data-dir NEW` with this one."
)
_T = TypeVar("_T")


@attrs.frozen
class ManifestNode:
    """One node of the cluster."""

    node: int
    incarnation: int
    """0 where it is not known: of a node that lives elsewhere."""


@attrs.frozen
class Manifest:
    """The cluster that lives in the directory, or a part of it.

    Never changes, but for a node that is rebuilt, and for the format.
    """

    format: int
    """Of the newest version that worked on the directory."""
    cluster: str
    nodes: list[ManifestNode]
    """All of the cluster."""
    here: int | None = None
    """The one that lives in this directory, where each has a host of its own; None: all do."""

    @property
    def nodes_here(self) -> tuple[int, ...]:
        """The nodes that live in this directory, in order."""
        return tuple(sorted(self.incarnations)) if self.here is None else (self.here,)

    @property
    def incarnations(self) -> dict[int, int]:
        """Each node's incarnation, by node."""
        return {node.node: node.incarnation for node in self.nodes}

    def with_incarnation(self, node: int, incarnation: int) -> "Manifest":
        """Return a manifest that differs in one node's incarnation."""
        changed = {**self.incarnations, node: incarnation}
        return attrs.evolve(self, nodes=[ManifestNode(*each) for each in sorted(changed.items())])


@attrs.frozen
class _Format:
    format: int


def check_nodes(nodes: int) -> None:
    """Check that a cluster may have so many nodes.

    Raises:
        ValueError: it may not.

    """
    if not 1 <= nodes <= NODES_MAX:
        raise ValueError(f"a cluster has 1 to {NODES_MAX} nodes, not {nodes}")


def is_cluster_id(text: str) -> bool:
    """Return whether this can be a cluster's id: 32 hexadecimal digits, in small letters."""
    return len(text) * 4 == CLUSTER_BITS and not text.strip("0123456789abcdef")


def draw_cluster_id(random: Random) -> str:
    """Return the id of a new cluster."""
    return f"{random.getrandbits(CLUSTER_BITS):032x}"


def draw_manifest(nodes: int, random: Random) -> Manifest:
    """Return a new cluster of so many nodes, all of which live in one directory."""
    cluster = draw_cluster_id(random)
    members = [ManifestNode(node, draw_first(random)) for node in range(1, nodes + 1)]
    return Manifest(FORMAT, cluster, members)


def draw_host_manifest(
    cluster: str, nodes: int, here: int, random: Random, replaces: int | None = None
) -> Manifest:
    """Return a cluster of so many nodes, of which one lives in a directory of its own.

    Args:
        cluster: its id.
        nodes: how many.
        here: the one.
        random: draws its incarnation.
        replaces: the highest that is known of its former selves, 0 if none is; None: it is new.

    """
    incarnation = draw_first(random) if replaces is None else draw_successor(replaces, random)
    members = [ManifestNode(node, incarnation if node == here else 0) for node in range(1, nodes + 1)]
    return Manifest(FORMAT, cluster, members, here)


def read_manifest(files: Files) -> Manifest | None:
    """Return the cluster that lives in a directory; None if there is none.

    Raises:
        ManifestError: it can't be understood.
        OSError: the disk refused.

    """
    if MANIFEST_NAME not in files.names():
        return None
    manifest = read_json(files, MANIFEST_NAME, Manifest)
    numbers = sorted(manifest.incarnations)
    if (
        numbers != list(range(1, len(manifest.nodes) + 1))
        or not 1 <= len(numbers) <= NODES_MAX
        or not is_cluster_id(manifest.cluster)
        or (manifest.here is not None and not manifest.incarnations.get(manifest.here))
    ):
        raise ManifestError(
            f"{files.location(MANIFEST_NAME)} does not describe a cluster of nodes 1 to N.", _PUT_BACK
        )
    return manifest


def write_manifest(files: Files, manifest: Manifest) -> None:
    """Let this be the cluster that lives in a directory, durably. Raises OSError."""
    content = attrs.asdict(manifest)
    if manifest.here is None:
        del content["here"]
    write_json(files, MANIFEST_NAME, content)


def read_json(files: Files, name: str, kind: type[_T]) -> _T:
    """Read a file of ours.

    Raises:
        ManifestError: it isn't there, or can't be understood.
        OSError: the disk refused, which says nothing of the file.

    """
    location = files.location(name)
    try:
        data = files.read(name)
        found = msgspec.json.decode(data, type=_Format).format
        if found in FORMATS_READ:
            return msgspec.json.decode(data, type=kind)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestError(f"{location} can't be read: {error}", _PUT_BACK) from error
    way_out = _BACKUP_AND_RESTORE if found < FORMAT else "Use the version of trio_kv that wrote it."
    raise ManifestError(f"{location} has format {found}, this program reads format {FORMAT}.", way_out)


def write_json(files: Files, name: str, content: dict[str, object]) -> None:
    """Put a small file into a directory, durably. Raises OSError."""
    data = msgspec.json.format(msgspec.json.encode(content)) + b"\n"
    files.create(name, len(data), data)
