"""Clusters of `trio_kv.testing`: disks in memory that are none, and waits that do not wait."""

from typing import Any

import trio

from tests.mutants.registry import Patch, mutant
from trio_kv.raft.ready import Write
from trio_kv.replica.jobs import Stored
from trio_kv.storage.node_directory import node_name
from trio_kv.testing.cluster import Cluster
from trio_kv.testing.disks import MemoryDisk, MemoryDisks

FIXTURE = "tests/unit/test_testing_cluster.py::"


@mutant(
    "testing: a disk in memory keeps nothing", tests=(FIXTURE + "test_all_nodes_die_and_nothing_is_lost",)
)
def _(patch: Patch) -> None:
    real = MemoryDisk.submit

    def submit(self: MemoryDisk, item: Any) -> None:
        if isinstance(item, Write):
            trio.lowlevel.current_trio_token().run_sync_soon(self._post, Stored(item.ticket))
        else:
            real(self, item)

    patch.setattr(MemoryDisk, "submit", submit)


@mutant(
    "testing: a slow disk in memory is as fast as others",
    tests=(FIXTURE + "test_slow_and_stalled_disks_take_time",),
)
def _(patch: Patch) -> None:
    async def pass_gate(self: MemoryDisk) -> None:
        await trio.lowlevel.checkpoint()

    patch.setattr(MemoryDisk, "_pass_gate", pass_gate)


@mutant(
    "testing: a node that starts again finds its disk as full as it was",
    tests=(FIXTURE + "test_full_disks_are_read_only_until_there_is_room",),
)
def _(patch: Patch) -> None:
    real = MemoryDisks.load

    async def load(self: MemoryDisks, node: int, *others: Any) -> Any:
        files = self._content.folders[node_name(node)]
        capacity_bytes = files.capacity_bytes
        loaded = await real(self, node, *others)
        files.capacity_bytes = capacity_bytes
        return loaded

    patch.setattr(MemoryDisks, "load", load)


@mutant(
    "testing: nodes have caught up as soon as somebody leads",
    tests=(FIXTURE + "test_who_waits_for_nodes_to_agree_finds_them_equal",),
)
def _(patch: Patch) -> None:
    patch.setattr(Cluster, "_has_converged", lambda self: self.leader is not None)
