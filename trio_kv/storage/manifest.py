"""The data directory: who may open it, which cluster lives in it, and in what state each node is.

::

    lock              held (flock) as long as a process uses the directory; holds its process id, for people
    manifest.json     format, cluster id, and every node with its incarnation
    node-N/           identity.json, the segments of the node's log, and its snapshots

The manifest is written **last**, when all node directories are durable: from then on the cluster exists, and
a node whose directory is gone has *lost* its log and must not vote as if it were new (scenario D8). Without a
manifest there is no cluster yet, and a first start that was interrupted begins anew - unless a log was
already written to, which means that the manifest was lost.

A node that can't be opened does not keep the others from starting: it is `needs_rebuild` (its log is gone) or
`damaged` (what is there can't be believed). Everything here blocks; call it in a thread.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Literal, Self, TypeVar

import attrs
import msgspec

from trio_kv.kv.commands import decode_command as decode_kv_command
from trio_kv.raft.entry import Command
from trio_kv.storage.errors import REBUILD, LockedError, ManifestError, NodesDifferError, StorageError
from trio_kv.storage.files import TEMPORARY_SUFFIX, RealFiles, sync_directory
from trio_kv.storage.opening import Opened, open_node
from trio_kv.storage.recovery import segment_name, segment_numbers
from trio_kv.storage.snapshots import snapshot_names
from trio_kv.storage.wal import SEGMENT_BYTES, Wal
from trio_kv.wire.frames import SECTOR_BYTES, Identity

FORMAT = 1
"""Version of the directory's layout."""
NODES_DEFAULT = 5
NODES_MAX = 9
LOCK_NAME = "lock"
MANIFEST_NAME = "manifest.json"
IDENTITY_NAME = "identity.json"
UNFINISHED_NAME = "unfinished"
"""Stands in a directory that `storage.making` works on, until there is a manifest."""
REBUILDING_NAME = "rebuilding"
"""Stands in the directory of a node that is rebuilt and does not count yet (see `storage.rebuild`)."""
_INCARNATION_BITS = 53
"""Every JSON reader keeps a whole number of so many bits."""
_REPLACED_BITS = 32
"""By up to so many bits a replaced node's incarnation is higher than the one before."""
_CLUSTER_BITS = 128
_T = TypeVar("_T")


@attrs.frozen
class ManifestNode:
    """One node of the cluster."""

    node: int
    incarnation: int


@attrs.frozen
class Manifest:
    """The cluster that lives in the directory. Never changes, but for a node that is rebuilt."""

    format: int
    cluster: str
    nodes: list[ManifestNode]

    @property
    def incarnations(self) -> dict[int, int]:
        """Each node's incarnation, by node."""
        return {node.node: node.incarnation for node in self.nodes}


@attrs.frozen
class _Format:
    format: int


@attrs.frozen
class NodeDirectory:
    """What was found of one node."""

    identity: Identity
    path: Path
    state: Literal["ok", "needs_rebuild", "damaged"]
    reason: str = ""
    """Why the state isn't ok, for people."""
    segment_bytes: int = SEGMENT_BYTES
    is_synced: bool = True

    @property
    def way_out(self) -> str:
        """What a person can do if the state isn't ok."""
        return "" if self.state == "ok" else REBUILD

    @property
    def is_rebuilding(self) -> bool:
        """Whether the directory was made anew, and the others have not filled it yet (see `storage.rebuild`)."""
        return (self.path / REBUILDING_NAME).exists()

    @property
    def incarnation(self) -> int:
        """The node's incarnation, for its messages."""
        return self.identity.incarnation

    def open(self, decode_command: Callable[[bytes], Command] = decode_kv_command) -> Opened:
        """Open the node's log and its snapshots.

        Args:
            decode_command: what turns the bytes of a command into the command.

        Raises:
            DamagedError: what is there can't be believed.
            OSError: the disk refused.

        """
        assert self.state == "ok", (
            f"the directory of node {self.identity.node} is {self.state}: {self.reason}"
        )
        # Two views of the directory: the disk's two threads use one each.
        log_files = RealFiles(self.path, is_synced=self.is_synced)
        snapshot_files = RealFiles(self.path, is_synced=self.is_synced)
        return open_node(
            log_files,
            snapshot_files,
            self.identity,
            segment_bytes=self.segment_bytes,
            decode_command=decode_command,
        )


class DataDirectory:
    """An open data directory: this process alone uses it until `close`."""

    def __init__(
        self, path: Path, manifest: Manifest, lock: int, *, segment_bytes: int, is_synced: bool
    ) -> None:
        """Take over the held lock. Use `open_data_directory`."""
        self.path = path
        self.manifest = manifest
        self._lock = lock
        self._segment_bytes = segment_bytes
        self._is_synced = is_synced

    @property
    def cluster(self) -> str:
        """The cluster's id: 32 hexadecimal digits."""
        return self.manifest.cluster

    @property
    def nodes(self) -> tuple[int, ...]:
        """All nodes, in order."""
        return tuple(sorted(self.manifest.incarnations))

    def node(self, node: int) -> NodeDirectory:
        """Look at a node's directory, as it is now."""
        identity = Identity(self.cluster, node, self.manifest.incarnations[node])
        path = _node_path(self.path, node)
        state, reason = _examine(path, identity)
        return NodeDirectory(identity, path, state, reason, self._segment_bytes, self._is_synced)

    def replace_node(self, node: int, random: Random) -> Path | None:
        """Give a node a new incarnation and an empty directory; return where the old one was moved.

        Use `storage.rebuild.rebuild_node`, which checks that the others can fill it.
        """
        path = _node_path(self.path, node)
        incarnation = self.manifest.incarnations[node] + random.randrange(1, 1 << _REPLACED_BITS)
        aside: Path | None = None
        if path.exists():
            aside = path.with_name(f"{path.name}.replaced-{self.manifest.incarnations[node]:x}")
            while aside.exists():
                aside = aside.with_name(aside.name + "x")
            path.rename(aside)
        make_directory(path, is_synced=self._is_synced)
        write_json(RealFiles(path, is_synced=self._is_synced), REBUILDING_NAME, {"since": incarnation})
        identity = Identity(self.cluster, node, incarnation)
        _make_node(path, identity, segment_bytes=self._segment_bytes, is_synced=self._is_synced)
        members = [each for each in self.manifest.nodes if each.node != node] + [
            ManifestNode(node, incarnation)
        ]
        manifest = attrs.evolve(self.manifest, nodes=sorted(members, key=lambda each: each.node))
        files = RealFiles(self.path, is_synced=self._is_synced)
        files.sync_directory()
        write_json(files, MANIFEST_NAME, attrs.asdict(manifest))
        self.manifest = manifest
        return aside

    def close(self) -> None:
        """Let other processes use the directory. May be called again."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_data_directory(
    path: Path,
    *,
    random: Random,
    nodes: int | None = None,
    segment_bytes: int = SEGMENT_BYTES,
    is_synced: bool = True,
) -> DataDirectory:
    """Open a data directory; at the first start, make the cluster that lives in it.

    Args:
        path: the directory; it is made if it isn't there.
        random: where the ids of a new cluster come from: `random.SystemRandom()` outside of tests.
        nodes: how many nodes the cluster must have; None takes it as it is, or 5 for a new one.
        segment_bytes: size of new log segments.
        is_synced: False leaves out every sync, for a directory that need not outlive the process.

    Raises:
        LockedError: another process uses it.
        ManifestError: it can't be understood.
        NodesDifferError: its cluster has another number of nodes.
        ValueError: no cluster can have so many nodes.
        OSError: the disk refused.

    """
    if nodes is not None and not 1 <= nodes <= NODES_MAX:
        raise ValueError(f"a cluster has 1 to {NODES_MAX} nodes, not {nodes}")
    make_directory(path, is_synced=is_synced)
    lock = take_lock(path)
    try:
        manifest = read_manifest(path)
        if manifest is None:
            _check_finished(path)
            count = nodes or NODES_DEFAULT
            manifest = make_cluster(path, count, random, segment_bytes=segment_bytes, is_synced=is_synced)
        # With a manifest it is complete, whatever was interrupted then.
        (path / UNFINISHED_NAME).unlink(missing_ok=True)
        _check_nodes(path, manifest, nodes)
    except BaseException:
        os.close(lock)
        raise
    return DataDirectory(path, manifest, lock, segment_bytes=segment_bytes, is_synced=is_synced)


def is_unfinished(path: Path) -> bool:
    """Return whether the making of a cluster that does not begin with nothing was interrupted here."""
    return (path / UNFINISHED_NAME).exists() and not (path / MANIFEST_NAME).exists()


def _check_finished(path: Path) -> None:
    if is_unfinished(path):
        raise ManifestError(
            f"{path} is not complete: what was to be put into it was interrupted.",
            "Nothing was changed. Restore into it again, or remove it.",
        )


def _check_nodes(path: Path, manifest: Manifest, nodes: int | None) -> None:
    count = len(manifest.nodes)
    if nodes not in {None, count}:
        raise NodesDifferError(
            f"{path} holds a cluster of {count} nodes; it can't be started with {nodes}.",
            f"Leave out --nodes, or say --nodes {count}, or name another --data-dir for a new cluster.",
        )


def _node_path(path: Path, node: int) -> Path:
    return path / f"node-{node}"


def make_directory(path: Path, *, is_synced: bool) -> None:
    """Make a directory and those above it, durably: a file can be lost with any name that leads to it."""
    if path.is_dir():
        return
    make_directory(path.parent, is_synced=is_synced)
    path.mkdir(mode=0o700, exist_ok=True)
    if is_synced:
        sync_directory(path.parent)


def take_lock(path: Path) -> int:
    """Let this process alone use the directory, until the returned descriptor is closed.

    Raises:
        LockedError: another process uses it.
        OSError: the disk refused.

    """
    descriptor = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise LockedError(
            f"{path} is in use by process {owner}." if owner else f"{path} is in use by another process.",
            "Stop that process, or name another --data-dir. Don't remove the file: it isn't the lock.",
        ) from error
    except OSError:
        os.close(descriptor)
        raise
    # For people only: a full disk must not keep a store from being read.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def read_json(path: Path, kind: type[_T]) -> _T:
    """Read a file of ours.

    Raises:
        ManifestError: it can't be read or understood.

    """
    try:
        data = path.read_bytes()
        found = msgspec.json.decode(data, type=_Format).format
        if found == FORMAT:
            return msgspec.json.decode(data, type=kind)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManifestError(
            f"{path} can't be read: {error}",
            "Nothing was changed. Put back the file as it was; it never changes while a cluster lives.",
        ) from error
    raise ManifestError(
        f"{path} has format {found}, this program reads format {FORMAT}.",
        "Use the version of trio_kv that wrote it.",
    )


def read_manifest(path: Path) -> Manifest | None:
    """Return the cluster that lives in a directory; None if there is none.

    Raises:
        ManifestError: it can't be understood.

    """
    file = path / MANIFEST_NAME
    if not file.exists():
        return None
    manifest = read_json(file, Manifest)
    numbers = sorted(manifest.incarnations)
    is_cluster = len(manifest.cluster) * 4 == _CLUSTER_BITS and not manifest.cluster.strip("0123456789abcdef")
    if (
        numbers != list(range(1, len(manifest.nodes) + 1))
        or not 1 <= len(numbers) <= NODES_MAX
        or not is_cluster
    ):
        raise ManifestError(
            f"{file} does not describe a cluster of nodes 1 to N.",
            "Nothing was changed. Put back the file as it was; it never changes while a cluster lives.",
        )
    return manifest


def make_cluster(
    path: Path,
    nodes: int,
    random: Random,
    *,
    segment_bytes: int,
    is_synced: bool,
    fill: Callable[[Sequence[NodeDirectory]], object] | None = None,
) -> Manifest:
    """Make a cluster's directories, let `fill` work on them, and last write the manifest: before that it isn't there.

    Raises:
        ManifestError: there is a log already.
        OSError: the disk refused.

    """
    for directory in sorted(path.glob("node-*")):
        if _is_written(directory):
            raise ManifestError(
                f"{directory} holds a log, but {path / MANIFEST_NAME} is missing.",
                "Nothing was changed. Put back the manifest, or move the directory away if it isn't needed.",
            )
    cluster = f"{random.getrandbits(_CLUSTER_BITS):032x}"
    members = [
        ManifestNode(node, random.randrange(1, 1 << _INCARNATION_BITS)) for node in range(1, nodes + 1)
    ]
    directories = [
        NodeDirectory(
            Identity(cluster, member.node, member.incarnation),
            _node_path(path, member.node),
            "ok",
            segment_bytes=segment_bytes,
            is_synced=is_synced,
        )
        for member in members
    ]
    for each in directories:
        _make_node(each.path, each.identity, segment_bytes=segment_bytes, is_synced=is_synced)
    if fill is not None:
        fill(directories)
    manifest = Manifest(FORMAT, cluster, members)
    # This also makes the names of the node directories durable, in the same sync or earlier.
    files = RealFiles(path, is_synced=is_synced)
    files.sync_directory()
    write_json(files, MANIFEST_NAME, attrs.asdict(manifest))
    return manifest


def _make_node(path: Path, identity: Identity, *, segment_bytes: int, is_synced: bool) -> None:
    """Make one node's directory, in place of what an interrupted start left of it."""
    make_directory(path, is_synced=is_synced)
    files = RealFiles(path, is_synced=is_synced)
    for name in files.names():
        if name.endswith(TEMPORARY_SUFFIX) or segment_numbers([name]):
            files.delete(name)
    write_json(files, IDENTITY_NAME, {"format": FORMAT, **attrs.asdict(identity)})
    with contextlib.closing(Wal.create(files, identity, segment_bytes=segment_bytes)):
        pass


def write_json(files: RealFiles, name: str, content: dict[str, object]) -> None:
    """Put a small file into a directory, durably."""
    data = msgspec.json.format(msgspec.json.encode(content)) + b"\n"
    files.create(name, len(data), data)


def _is_written(directory: Path) -> bool:
    """Return whether a log in this directory was ever written to, or may have been."""
    names = [file.name for file in directory.iterdir()] if directory.is_dir() else []
    numbers = segment_numbers(names)
    if numbers in ([], [1]) and not snapshot_names(names):
        return any(
            segment.read_bytes()[SECTOR_BYTES:].strip(b"\0")
            for segment in map(directory.joinpath, map(segment_name, numbers))
        )
    return True


def _examine(path: Path, identity: Identity) -> tuple[Literal["ok", "needs_rebuild", "damaged"], str]:
    """Return a node's state and the reason for it."""
    if not path.is_dir():
        return "needs_rebuild", f"its directory {path} is missing"
    if not segment_numbers([file.name for file in path.iterdir()]):
        return "needs_rebuild", f"its directory {path} holds no log"
    try:
        found = read_json(path / IDENTITY_NAME, Identity)
    except StorageError as error:
        return "damaged", error.message
    if found != identity:
        return "damaged", f"its directory {path} belongs to {found}, not to {identity}"
    return "ok", ""
