"""What a simulated node starts with: its replica, made of what its disk holds."""

from random import Random
from typing import TYPE_CHECKING

from trio_kv.kv.machine import Machine
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.log import Log
from trio_kv.replica.replica import Replica
from trio_kv.storage.opening import Opened

if TYPE_CHECKING:
    from trio_kv.sim.node import SimulatedNode


def make_replica(node: "SimulatedNode", opened: Opened) -> Replica:
    """Make a replica of what the disk holds, as `cluster.cluster` does."""
    world, recovered = node.world, opened.recovered
    if any("interrupted" in warning for warning in recovered.warnings):
        world.coverage.reach("torn tail cut")
    machine, snapshot, base = Machine(), recovered.snapshot, recovered.base
    if snapshot is not None:
        world.coverage.reach("restart from snapshot")
        restorer = Restorer()
        for chunk in opened.snapshots.chunks(snapshot):
            restorer.feed(chunk)
        machine = restorer.finish()
    return Replica(
        id=node.id,
        peers=tuple(other for other in world.members if other != node.id),
        config=world.plan.raft,
        random=Random(world.random.getrandbits(64)),
        incarnation=node.incarnation,
        incarnations=world.incarnations(),
        is_rebuilding=node.is_rebuilding,
        now=node.clock.at(world.now),
        hard_state=recovered.hard_state,
        log=Log(recovered.entries, base_index=base.index, base_term=base.term, base_time_us=machine.time_us),
        machine=machine,
        snapshot=None if snapshot is None else snapshot.place,
        snapshot_bytes=0 if snapshot is None else snapshot.total_bytes,
        snapshot_log_bytes_min=world.plan.snapshot_log_bytes_min,
        events_level=world.events_level,
    )
