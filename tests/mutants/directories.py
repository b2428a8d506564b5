"""The data directory: who holds it, where it is, and which of its names may be believed."""

import contextlib
from pathlib import Path
from random import Random
from typing import Any

import attrs

from tests.mutants.registry import Patch, mutant
from trio_kv.storage import data_directory, host, lock, making, rebuild
from trio_kv.storage.data_directory import UNFINISHED_NAME, DataDirectory
from trio_kv.storage.errors import StorageError
from trio_kv.storage.manifest import Manifest, write_manifest
from trio_kv.storage.node_directory import NodeDirectory, make_node, node_name
from trio_kv.storage.place import Place
from trio_kv.storage.recovery import Recovery
from trio_kv.wire.frames import Identity
from trio_kv.wire.incarnations import draw_successor


def states_tests(*names: str) -> tuple[str, ...]:
    """Return tests of the states that kills and power cuts leave."""
    return tuple(f"tests/unit/test_directory_states.py::{name}" for name in names)


def directory_tests(*names: str) -> tuple[str, ...]:
    """Return tests of the real data directory."""
    return tuple(f"tests/unit/test_data_directory.py::{name}" for name in names)


def host_tests(*names: str) -> tuple[str, ...]:
    """Return tests of the data directory of a host."""
    return tuple(f"tests/unit/test_host_directory.py::{name}" for name in names)


@mutant(
    "D3 a manifest that is found is taken for durable",
    world="whole",
    tests=states_tests("test_what_is_acknowledged_after_a_kill_survives_a_power_cut"),
)
def _(patch: Patch) -> None:
    patch.setattr(data_directory, "_believe", lambda root, files: None)


@mutant(
    "D3 files of a node that are found are taken for durable",
    tests=states_tests("test_what_was_never_synced_is_synced_before_it_is_believed"),
)
def _(patch: Patch) -> None:
    patch.setattr(Recovery, "_believe", lambda self, names: None)


@mutant(
    "D3 the names that lead to a directory are taken for durable",
    tests=directory_tests("test_the_names_that_lead_there_are_synced"),
)
def _(patch: Patch) -> None:
    patch.setattr("trio_kv.storage.folders.sync_names_above", lambda path: None)


def replace_in_old_order(self: DataDirectory, node: int, random: Random, known: int) -> Path | None:
    """Move the old directory away, make the new one in its place, and let the manifest come last."""
    name, old = node_name(node), self.identity(node)
    new = Identity(self.cluster, node, draw_successor(max(old.incarnation, known), random))
    if name in self.root.names():
        self.root.rename(name, f"{name}.replaced-{old.incarnation:x}")
    make_node(self.root, name, new, segment_bytes=self._segment_bytes, is_rebuilding=True)
    self.root.sync()
    self.manifest = self.manifest.with_incarnation(node, new.incarnation)
    with contextlib.closing(self.root.files()) as files:
        write_manifest(files, self.manifest)
    return None


@mutant(
    "D8 a rebuild moves the old directory away before there is a new one",
    world="whole",
    tests=(
        *states_tests("test_a_power_cut_at_any_step_leaves_what_was_or_what_is_to_be"),
        *directory_tests("test_a_rebuild_that_the_disk_refuses_changes_nothing"),
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(DataDirectory, "replace_node", replace_in_old_order)


@mutant(
    "D8 a manifest names an incarnation whose directory is not durable yet",
    world="whole",
    tests=states_tests("test_a_power_cut_at_any_step_leaves_what_was_or_what_is_to_be"),
)
def _(patch: Patch) -> None:
    real = make_node

    def make_node_late(root: Any, name: str, identity: Identity, **more: Any) -> None:
        if name.endswith(".new"):
            waiting.append((root, name, identity, more))
        else:
            real(root, name, identity, **more)

    def write(files: Any, manifest: Any) -> None:
        write_manifest(files, manifest)
        while waiting:
            root, name, identity, more = waiting.pop()
            real(root, name, identity, **more)
            root.sync()

    waiting: list[Any] = []
    patch.setattr(data_directory, "make_node", make_node_late)
    patch.setattr(data_directory, "write_manifest", write)


@mutant(
    "D8 a host's directory is started as that of a whole cluster",
    tests=host_tests("test_a_host_and_a_whole_cluster_are_not_mixed_up"),
)
def _(patch: Patch) -> None:
    real = data_directory._check_whole

    def check_whole(path: Path, manifest: Manifest, nodes: int | None) -> None:
        real(path, attrs.evolve(manifest, here=None), nodes)

    patch.setattr(data_directory, "_check_whole", check_whole)


@mutant(
    "D8 a host takes whatever node's directory is there",
    tests=host_tests("test_another_ones_directory_is_refused"),
)
def _(patch: Patch) -> None:
    patch.setattr(host, "_check_is", lambda *_: None)


@mutant(
    "D8 a rebuild counts on nodes that it can't look at",
    tests=host_tests("test_a_rebuild_needs_a_majority_that_is_known_to_be_sound"),
)
def _(patch: Patch) -> None:
    real = rebuild._why_unsound

    def why_unsound(directory: DataDirectory, node: int) -> str | None:
        return real(directory, node) if node in directory.nodes_here else None

    patch.setattr(rebuild, "_why_unsound", why_unsound)


@mutant(
    "D8 a node is taken for sound by the names of its files",
    tests=directory_tests("test_a_node_is_sound_by_its_log"),
)
def _(patch: Patch) -> None:
    def check_sound(self: NodeDirectory) -> None:
        if self.state != "ok" or self.is_rebuilding:
            raise StorageError(self.reason, self.way_out)

    patch.setattr(NodeDirectory, "check_sound", check_sound)


@mutant(
    "restore: what is left of an interrupted one loses its mark before it is gone",
    tests=states_tests("test_a_power_cut_at_any_step_leaves_what_was_or_what_is_to_be"),
)
def _(patch: Patch) -> None:
    real = making._remove_unfinished

    def remove_unfinished(root: Any, files: Any) -> None:
        if UNFINISHED_NAME in files.names():
            files.delete(UNFINISHED_NAME)
        real(root, files)

    patch.setattr(making, "_remove_unfinished", remove_unfinished)


@mutant(
    "lock: a file is locked, and not the directory", tests=directory_tests("test_the_lock_is_not_the_file")
)
def _(patch: Patch) -> None:
    real = lock._take

    def take(descriptor: int, directory: int, path: Path, kind: int) -> None:
        if descriptor != directory:
            real(descriptor, directory, path, kind)

    patch.setattr(lock, "_take", take)


@mutant(
    "place: nobody looks whether a directory is where it was",
    tests=directory_tests(
        "test_nothing_is_made_in_a_directory_that_is_gone",
        "test_a_server_keeps_to_the_directory_that_it_opened",
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(Place, "check", lambda self: None)
