"""The data directory: who may open it, which cluster lives in it, and in what state each node is.

::

    lock              holds the process id of whoever uses the directory, for people (see `storage.lock`)
    manifest.json     format, cluster id, every node with its incarnation, and who of them lives here
    node-N/           identity.json, the segments of the node's log, and its snapshots

The manifest is written **last**, when all node directories are durable: from then on the cluster exists, and
a node whose directory is gone has *lost* its log and must not vote as if it were new (scenario D8). Without a
manifest there is no cluster yet, and a first start that was interrupted begins anew - unless a log was
already written to, which means that the manifest was lost.

**A name is believed only after it was synced.** Whoever gave it may have died between that and the sync; what is found
then is gone with the next power cut, together with all that was acknowledged on top of it. So a start syncs what it
builds on, before it does: the names that lead to the directory and those in it, the manifest, each node's identity, and
of each node's log and snapshots what it reads (`storage.opening`).

A node that can't be opened does not keep the others from starting: it is `needs_rebuild` (its log is gone) or
`damaged` (what is there can't be believed). Everything here blocks; call it in a thread.
"""

import contextlib
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Self

import attrs

from trio_kv.storage.errors import ManifestError, NodesDifferError, StorageError
from trio_kv.storage.files import TEMPORARY_SUFFIX, Files, remove
from trio_kv.storage.folders import Folder, RealFolder
from trio_kv.storage.manifest import (
    FORMAT,
    MANIFEST_NAME,
    NODES_DEFAULT,
    Manifest,
    check_nodes,
    draw_manifest,
    read_manifest,
    write_manifest,
)
from trio_kv.storage.node_directory import (
    NEW_SUFFIX,
    NodeDirectory,
    examine,
    is_written,
    make_node,
    node_name,
    settle,
)
from trio_kv.storage.segments import SEGMENT_BYTES
from trio_kv.wire.frames import Identity
from trio_kv.wire.incarnations import draw_successor

UNFINISHED_NAME = "unfinished"
"""Stands in a directory that `storage.making` works on, until there is a manifest."""
_TEMPORARY = frozenset(name + TEMPORARY_SUFFIX for name in (MANIFEST_NAME, UNFINISHED_NAME))


class DataDirectory:
    """An open data directory: this process alone uses it until `close`, and further ones that inherit it.

    Each of several processes uses the directories of its own nodes.
    """

    def __init__(
        self, root: Folder, manifest: Manifest, *, segment_bytes: int, is_shared: bool = False
    ) -> None:
        """Take over the folder, locked or not. Use `open_data_directory`, or `share_data_directory`."""
        self.root = root
        self.manifest = manifest
        self.is_shared = is_shared
        """Whether other processes may give their nodes new incarnations."""
        self._segment_bytes = segment_bytes

    @property
    def path(self) -> Path:
        """How a person finds it."""
        return self.root.path

    @property
    def cluster(self) -> str:
        """The cluster's id: 32 hexadecimal digits."""
        return self.manifest.cluster

    @property
    def nodes(self) -> tuple[int, ...]:
        """All nodes of the cluster, in order, wherever they live."""
        return tuple(sorted(self.manifest.incarnations))

    @property
    def nodes_here(self) -> tuple[int, ...]:
        """The nodes that live here, in order. No other one is ever looked for in the directory."""
        return self.manifest.nodes_here

    def identity(self, node: int) -> Identity:
        """Return whose directory a node's must be, which lives here."""
        assert node in self.nodes_here, f"node {node} lives elsewhere"
        return Identity(self.cluster, node, self.manifest.incarnations[node])

    def node(self, node: int) -> NodeDirectory:
        """Look at a node's directory, or at the one that replaces it once it is settled. Raises OSError."""
        name, identity = node_name(node), self.identity(node)
        found = examine(self.root, name, identity, segment_bytes=self._segment_bytes)
        if found.state != "ok":
            new = examine(self.root, name + NEW_SUFFIX, identity, segment_bytes=self._segment_bytes)
            found = new if new.state == "ok" else found
        return found

    def settle(self, node: int) -> None:
        """End what was begun with a node's directory, before it is used. Raises StorageError and OSError."""
        settle(self.root, self.identity(node))

    def replace_node(self, node: int, random: Random, known: int = 0) -> Path | None:
        """Give a node a new incarnation and an empty directory; return where the old one was moved.

        The incarnation is higher than its own, and than the one that others are `known` to have heard of.

        Use `storage.rebuild.rebuild_node`, which checks that the others can fill it.

        Raises:
            StorageError: the directory can't be replaced; it is where it was.
            OSError: the disk refused; the directory is where it was, unless the manifest was written.

        """
        self.root.check_here()
        self.refresh()
        old = self.identity(node)
        new = Identity(self.cluster, node, draw_successor(max(old.incarnation, known), random))
        with self.root.home(node_name(node)) as (home, name):
            made = name + NEW_SUFFIX
            manifest = self.manifest.with_incarnation(node, new.incarnation)
            try:
                if made in home.names():
                    home.remove(made)
                make_node(home, made, new, segment_bytes=self._segment_bytes, is_rebuilding=True)
                home.sync()
                # Another process may have written it while the disk took its time.
                self.refresh()
                manifest = self.manifest.with_incarnation(node, new.incarnation)
                with contextlib.closing(self.root.files()) as files:
                    write_manifest(files, manifest)
            except OSError:
                found = self._read_again()
                if found == manifest:
                    # It has its name, and perhaps for good.
                    self.manifest = manifest
                elif found == self.manifest:
                    with contextlib.suppress(OSError):
                        home.remove(made)
                raise
        self.manifest = manifest
        return settle(self.root, new, old.incarnation)

    def refresh(self) -> None:
        """Learn which nodes got new incarnations from other processes.

        Raises:
            ManifestError: the manifest can't be understood any more.
            OSError: the disk refused.

        """
        if self.is_shared:
            with contextlib.closing(self.root.files()) as files:
                self.manifest = read_manifest(files) or self.manifest

    def _read_again(self) -> Manifest | None:
        with contextlib.suppress(OSError, StorageError), contextlib.closing(self.root.files()) as files:
            return read_manifest(files)
        return None

    def close(self) -> None:
        """Let other processes use the directory. May be called again."""
        self.root.close()

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
        StorageError: its file system can't lock it.
        ValueError: no cluster can have so many nodes.
        OSError: the disk refused.

    """
    if nodes is not None:
        check_nodes(nodes)
    root = RealFolder.open_new(path, is_synced=is_synced)
    return open_folder(root, random=random, nodes=nodes, segment_bytes=segment_bytes)


def share_data_directory(
    descriptor: int, path: Path, *, segment_bytes: int = SEGMENT_BYTES, is_synced: bool = True
) -> DataDirectory:
    """Use a data directory that the first process of the server has opened, and made durable.

    Args:
        descriptor: of the directory, inherited from that process, and the lock with it.
        path: how a person finds it.
        segment_bytes: size of new log segments.
        is_synced: as in `open_data_directory`.

    Raises:
        ManifestError: there is no cluster in it, or it can't be understood.
        OSError: the disk refused.

    """
    root = RealFolder.inherited(descriptor, path, is_synced=is_synced)
    with contextlib.closing(root.files()) as files:
        manifest = read_manifest(files)
    if manifest is None:
        raise ManifestError(f"there is no cluster in {path}.", "Start the server again.")
    return DataDirectory(root, manifest, segment_bytes=segment_bytes, is_shared=True)


def open_folder(
    root: Folder, *, random: Random, nodes: int | None = None, segment_bytes: int = SEGMENT_BYTES
) -> DataDirectory:
    """Open a data directory that is a folder; it is closed with it, or when this raises.

    Arguments and errors are those of `open_data_directory`.
    """

    def make(files: Files) -> Manifest:
        if is_unfinished(files):
            raise ManifestError(
                f"{root.path} is not complete: what was to be put into it was interrupted.",
                "Nothing was changed. Restore into it again, or remove it.",
            )
        draw = partial(draw_manifest, nodes or NODES_DEFAULT, random)
        return make_cluster(root, draw, segment_bytes=segment_bytes)

    return take(root, make, lambda manifest: _check_whole(root.path, manifest, nodes), segment_bytes)


def take(
    root: Folder,
    make: Callable[[Files], Manifest],
    check: Callable[[Manifest], object],
    segment_bytes: int,
) -> DataDirectory:
    """Lock a folder and open the cluster that lives in it; the folder is closed with it, or when this raises.

    Args:
        root: the folder.
        make: called where there is none: makes one, or raises.
        check: raises if it is not the one that was meant.
        segment_bytes: size of new log segments.

    Raises:
        LockedError: another process uses it.
        ManifestError: it can't be understood.
        StorageError: its file system can't lock it.
        OSError: the disk refused.

    """
    with contextlib.ExitStack() as undo:
        undo.callback(root.close)
        root.lock()
        files = undo.enter_context(contextlib.closing(root.files()))
        root.sync_above()
        _remove(files, _TEMPORARY)
        manifest = read_manifest(files)
        if manifest is None:
            manifest = make(files)
        else:
            check(manifest)
            _believe(root, files)
            if manifest.format < FORMAT:
                manifest = attrs.evolve(manifest, format=FORMAT)
                write_manifest(files, manifest)
        # The mark goes last: once the manifest is durable, the directory is complete.
        _remove(files, {UNFINISHED_NAME})
        files.close()
        undo.pop_all()
    return DataDirectory(root, manifest, segment_bytes=segment_bytes)


def _believe(root: Folder, files: Files) -> None:
    """Make the manifest and all names in the directory durable: whoever made them may have died before they were."""
    files.sync(MANIFEST_NAME)
    root.sync()


def is_unfinished(files: Files) -> bool:
    """Return whether the making of a cluster that does not begin with nothing was interrupted here."""
    names = files.names()
    return UNFINISHED_NAME in names and MANIFEST_NAME not in names


def _remove(files: Files, left: Collection[str]) -> None:
    """Remove these files, as far as an interrupted call left them. All others may be somebody's."""
    for name in sorted({*files.names()} & {*left}):
        remove(files, name)


def _check_whole(path: Path, manifest: Manifest, nodes: int | None) -> None:
    count = len(manifest.nodes)
    if manifest.here is not None:
        raise ManifestError(
            f"{path} holds node {manifest.here} alone of a cluster of {count}: the others live on other hosts.",
            "Without them it can be neither served nor rebuilt. Nothing was changed.",
        )
    if nodes not in {None, count}:
        raise NodesDifferError(
            f"{path} holds a cluster of {count} nodes; it can't be started with {nodes}.",
            f"Leave out --nodes, or say --nodes {count}, or name another --data-dir for a new cluster.",
        )


def make_cluster(
    root: Folder,
    draw: Callable[[], Manifest],
    *,
    segment_bytes: int,
    fill: Callable[[Sequence[NodeDirectory]], object] | None = None,
) -> Manifest:
    """Make the nodes' directories, let `fill` work on them, and last write the manifest: before that it isn't there.

    Args:
        root: where they are made.
        draw: returns the cluster, when it is known that there is none yet.
        segment_bytes: size of the log segments.
        fill: gives those who live here what they begin with, durably.

    Raises:
        ManifestError: there is a log already.
        OSError: the disk refused.

    """
    for name in root.names():
        if name.startswith("node-") and is_written(root, name):
            raise ManifestError(
                f"{root.path / name} holds a log, but {root.path / MANIFEST_NAME} is missing.",
                "Nothing was changed. Put back the manifest, or move the directory away if it isn't needed.",
            )
    manifest = draw()
    identities = [
        Identity(manifest.cluster, node, manifest.incarnations[node]) for node in manifest.nodes_here
    ]
    directories = [
        NodeDirectory(identity, root, node_name(identity.node), "ok", segment_bytes=segment_bytes)
        for identity in identities
    ]
    for each in directories:
        make_node(root, each.name, each.identity, segment_bytes=segment_bytes)
    if fill is not None:
        fill(directories)
    # The names of the node directories become durable before the one that speaks of them.
    root.sync()
    with contextlib.closing(root.files()) as files:
        write_manifest(files, manifest)
    return manifest
