"""Scenarios of disks and snapshots, each as a run of the core world with one fault at one moment.

The ids are those of the scenario list: D durable state, N snapshots and compaction, E a disk that stands still. What
must hold is judged after every step by all judges, as in the runs with drawn faults; a test adds where the fault falls.
"""

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from trio_kv.check.violation import Violation
from trio_kv.kv.commands import OpenSession
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.persistence import Persistence
from trio_kv.replica.driver import TakeSnapshot
from trio_kv.sim.node import SimulatedNode
from trio_kv.sim.plan import Plan
from trio_kv.sim.world import World
from trio_kv.storage.memory import PowerLossError
from trio_kv.transport.links import LinkFault
from trio_kv.wire.node_port import Propose, ReplyTo

RAFT = RaftConfig(
    election_timeout_min_s=0.2,
    election_timeout_max_s=0.4,
    heartbeat_interval_s=0.05,
    log_entries_kept=0,
    write_stall_s=1.0,
)
PLAN = Plan(
    seed=1,
    nodes=3,
    raft=RAFT,
    fault_phase_s=0.0,
    latency_s=0.001,
    stragglers=0.0,
    disk_s=0.001,
    think_s=0.0,
    segment_bytes=4096,
    snapshot_log_bytes_min=1000,
    clients=2,
    lanes=2,
    pause_between_s=0.02,
    client_timeout_s=0.3,
    keys=4,
    read_share=0.3,
    session_timeout_us=60_000_000,
    answer_loss=0.0,
    kinds=(),
    faults=(),
)


def make_world(**changes: Any) -> World:
    """Return a world that has a leader and some writes behind it."""
    world = World(attrs.evolve(PLAN, **changes))
    world.begin()
    world.run_until(1.0)
    return world


def leader_of(world: World) -> SimulatedNode:
    """Return who leads."""
    leader = world.leader()
    assert leader is not None
    return leader


def follower_of(world: World) -> SimulatedNode:
    """Return a node that does not lead."""
    leader = leader_of(world)
    return next(node for node in world.nodes.values() if node is not leader and node.is_up)


def stop(world: World, node: SimulatedNode) -> None:
    """Cut the power of a node; it comes back when it is told to."""
    world.crash(node, 1e6, is_answered=False, interruptions=0)


def is_behind(world: World, node: SimulatedNode) -> bool:
    """Return whether the leader's log does not reach back to the end of a node that is down."""
    replica = leader_of(world).replica
    assert replica is not None
    return replica.raft.log.base_index > world.durability.shadows[node.id].last_index


def fall_behind(world: World, node: SimulatedNode) -> None:
    """Keep a node down until what it needs next is gone from the leader's log."""
    stop(world, node)
    world.run_until_true(
        "the log is compacted", 20.0, lambda: world.leader() is not None and is_behind(world, node)
    )


def crash_at_step(world: World, node: SimulatedNode, step: int) -> None:
    """Let power fail at the node's disk after so many steps of it from now on."""
    files = node.drive.files
    last = files.steps + step

    def before_step() -> None:
        if files.steps >= last:
            files.before_step = None
            raise PowerLossError

    files.before_step = before_step


def with_crash_at_every_step(
    prepare: Callable[[], tuple[World, SimulatedNode]], for_s: float, stride: int
) -> int:
    """Run a world again and again, with a power failure one step of a disk later each time; return how often.

    It ends when nothing fails within `for_s` of simulated time any more, or after enough of it. The first steps are
    taken one by one, the later ones by fives; of all these one in `stride`.
    """
    steps: list[int] = [*range(16), *range(16, 120, 5)]
    for step in steps[::stride]:
        world, node = prepare()
        crash_at_step(world, node, step)
        world.run_until(world.now + for_s)
        was_hit = node.drive.files.before_step is None
        node.drive.files.before_step = None
        if node.drive.is_failed:
            # The twin called it an error of the disk; it was power.
            node.drive.is_failed = False
            node.drive.files.crash(world.random)
        world.finish()
        if not was_hit:
            return step
    return 120


def test_N1_a_snapshot_replaces_a_conflicting_log() -> None:
    """A deposed leader with entries nobody else has is brought up by a snapshot, and none of them survives."""
    world = make_world(seed=2)
    old = leader_of(world)
    others = [node.id for node in world.nodes.values() if node is not old]
    world.links.partition(((old.id,), tuple(others)))
    world.run_until_true("another leader", 5.0, lambda: leader_of(world) is not old)
    assert old.replica is not None
    tail = old.replica.raft.log.last_index
    assert tail > old.replica.raft.commit, "it has nothing of its own"

    def is_compacted() -> bool:
        replica = leader_of(world).replica
        return replica is not None and replica.raft.log.base_index > tail

    world.run_until_true("the log is compacted", 20.0, is_compacted)
    world.links.heal()
    world.finish()
    assert world.watch.conflicts_dropped


def test_N1_a_snapshot_ends_inside_a_conflicting_log() -> None:
    """What stands behind the snapshot's index contradicts it as well, and goes too."""
    world = make_world(snapshot_log_bytes_min=1 << 30)
    old = leader_of(world)
    others = [node.id for node in world.nodes.values() if node is not old]
    world.links.partition(((old.id,), tuple(others)))
    assert old.replica is not None
    begin = old.replica.raft.log.last_index
    for number in range(1_000_000, 1_000_100):
        world.request(old.id, Propose(ReplyTo(0, 1), number, [OpenSession(60_000_000)]))
    world.run_until_true("another leader", 5.0, lambda: leader_of(world) is not old)

    def is_committed() -> bool:
        return world.chronicle.commit > begin + 10

    world.run_until_true("writes go on", 5.0, is_committed)
    new = leader_of(world)
    new.post(TakeSnapshot())
    assert new.replica is not None
    log = new.replica.raft.log
    world.run_until_true("the log is compacted", 5.0, lambda: log.base_index > begin)
    assert log.base_index < old.replica.raft.log.last_index
    world.links.heal()
    world.finish()
    assert world.watch.conflicts_dropped


@pytest.mark.parametrize("is_conflicting", [False, True], ids=["short log", "conflicting log"])
def test_N2_a_crash_at_each_step_of_an_install(is_conflicting: bool, stride: int) -> None:
    """Wherever power fails while a snapshot comes and takes the log's place, the node comes back and converges."""

    def prepare() -> tuple[World, SimulatedNode]:
        world = make_world(seed=2)
        if is_conflicting:
            node = leader_of(world)
            world.links.partition(((node.id,), tuple(other for other in world.members if other != node.id)))
            world.run_until_true("another leader", 5.0, lambda: leader_of(world) is not node)
            stop(world, node)
            world.run_until_true("the log is compacted", 20.0, lambda: is_behind(world, node))
            world.links.heal()
        else:
            node = follower_of(world)
            fall_behind(world, node)
        node.start()
        return world, node

    assert with_crash_at_every_step(prepare, 0.4, stride) > 20


def test_N4_snapshots_back_to_back_while_one_is_being_sent() -> None:
    """The one that is being sent outlives the next one, and its receiver gets all of it."""
    world = make_world(snapshot_log_bytes_min=1 << 30, seed=4)
    node = follower_of(world)
    stop(world, node)
    world.run_until(2.0)
    leader_of(world).post(TakeSnapshot())
    world.run_until_true("the log is compacted", 5.0, lambda: is_behind(world, node))
    world.links.set_fault(LinkFault(delay_s=0.04))
    node.start()

    def take_snapshot() -> None:
        world.after(world.plan.latency_s * 4, lambda: leader_of(world).post(TakeSnapshot()))

    world.network.in_next_install = take_snapshot
    world.run_until(3.0)
    leader_of(world).post(TakeSnapshot())
    world.run_until(3.2)
    leader_of(world).post(TakeSnapshot())
    world.run_until(5.0)
    assert world.coverage["two snapshots back to back"]
    assert world.coverage["snapshot installed"]
    world.finish()


def test_N4_a_snapshot_that_is_gone_is_sent_anew() -> None:
    """Snapshots follow one another faster than a chunk arrives: the leader is told that the old one is gone."""
    world = make_world(snapshot_log_bytes_min=200, seed=6, segment_bytes=16384)
    node = follower_of(world)
    fall_behind(world, node)
    world.links.set_fault(LinkFault(delay_s=0.05))
    node.start()
    world.run_until(world.now + 3.0)
    assert world.coverage["two snapshots back to back"]
    world.finish()


@pytest.mark.parametrize("is_leader", [False, True], ids=["follower", "leader"])
def test_N6_a_crash_in_every_phase_of_a_snapshot_and_its_compaction(is_leader: bool, stride: int) -> None:
    """Snapshot and log go together whatever moment power fails at: no start is refused, nothing is missing."""

    def prepare() -> tuple[World, SimulatedNode]:
        world = make_world(seed=6, snapshot_log_bytes_min=1 << 30)
        node = leader_of(world) if is_leader else follower_of(world)
        node.post(TakeSnapshot())
        return world, node

    assert with_crash_at_every_step(prepare, 0.3, stride) > 20


@pytest.mark.parametrize("factor", [1.0, 100.0, 200.0])
def test_N8_a_slow_receiver_under_aggressive_compaction_converges(factor: float) -> None:
    """A snapshot takes longer to be received than many more take to be made: it is not taken away, and is enough.

    Each job of the receiver is shorter than the lease on the snapshot: a slower disk could not follow.
    """
    world = make_world(seed=7, snapshot_log_bytes_min=200)
    node = follower_of(world)
    fall_behind(world, node)
    node.drive.condition.job_factor = factor
    node.start()
    world.run_until_true("a snapshot is installed", 6.0, lambda: world.coverage["snapshot installed"] > 0)
    world.run_until(world.now + 0.5)
    leader = leader_of(world)
    assert node.replica is not None
    assert leader.replica is not None
    assert node.replica.machine.applied > leader.replica.raft.commit - 20
    assert world.coverage["snapshot installed"] == 1, "it goes from snapshot to snapshot"
    world.finish()


def test_N8_a_slow_link_under_aggressive_compaction_converges() -> None:
    """Writes go on, nothing is kept behind snapshots, and they are taken all the time: a late node catches up."""
    world = make_world(seed=8, snapshot_log_bytes_min=200)
    node = follower_of(world)
    fall_behind(world, node)
    world.links.set_fault(LinkFault(delay_s=0.02, jitter_s=0.01))
    node.start()

    def is_close() -> bool:
        leader = world.leader()
        if leader is None or leader.replica is None or node.replica is None:
            return False
        return node.replica.machine.applied > leader.replica.raft.commit - 10

    world.run_until_true("the late node catches up", 10.0, is_close)
    world.run_until(world.now + 0.5)
    began, installed = world.chronicle.commit, world.coverage["snapshot installed"]
    world.run_until(world.now + 1.0)
    assert world.chronicle.commit > began, "nobody wrote meanwhile"
    assert world.coverage["snapshot installed"] == installed, "it goes from snapshot to snapshot"
    assert is_close()
    world.finish()


@pytest.mark.parametrize("after_s", [0.001 * step for step in range(0, 40, 2)])
def test_N9_the_connection_is_lost_after_an_install_and_before_it_is_durable(after_s: float) -> None:
    """What was taken into memory only is gone with the node, and asked for again: no hole is left."""
    world = make_world(seed=10)
    node = follower_of(world)
    fall_behind(world, node)
    node.start()
    world.run_until_true(
        "chunks come", 2.0, lambda: node.replica is not None and node.replica.raft.incoming is not None
    )
    world.run_until(world.now + after_s)
    node.drive.condition.is_stalled = True
    world.run_until(world.now + 0.05)
    world.links.partition(((node.id,), tuple(other for other in world.members if other != node.id)))
    stop(world, node)
    world.run_until(world.now + 0.2)
    world.finish()


@pytest.mark.parametrize("seed", range(20))
def test_D3_power_fails_everywhere_at_once(seed: int) -> None:
    """What was acknowledged is there, though every disk loses what it had not synced."""
    world = make_world(seed=100 + seed, disk_s=0.01, pause_between_s=0.005)
    for _ in range(4):
        world.run_until(world.now + 0.5 + 0.013 * seed)
        for node in world.nodes.values():
            if node.is_up:
                world.crash(node, 0.05, is_answered=False, interruptions=1)
    result = world.finish()
    assert result.coverage["unsynced data lost"]


def test_D7_an_entry_is_never_durable_before_its_term(stride: int) -> None:
    """Power fails at each step of a follower's disk while terms change: no entry comes back without its term."""

    def prepare() -> tuple[World, SimulatedNode]:
        world = make_world(seed=7)
        old, node = leader_of(world), follower_of(world)
        world.links.partition(((old.id,), tuple(other for other in world.members if other != old.id)))
        return world, node

    assert with_crash_at_every_step(prepare, 0.7, stride) > 20


def test_D8_a_wiped_node_does_not_vote_before_it_has_all_again() -> None:
    """The only other node with an entry is down: the wiped one and the one that lacks it elect nobody."""
    world = make_world(seed=8)
    keeper = leader_of(world)
    wiped, lacking = (node for node in world.nodes.values() if node is not keeper)
    stop(world, lacking)
    world.run_until(2.0)
    stop(world, keeper)
    stop(world, wiped)
    wiped.wipe()
    wiped.start()
    lacking.start()
    commit = world.chronicle.commit
    world.run_until(8.0)
    assert world.leader() is None
    assert world.chronicle.commit == commit
    keeper.start()
    world.finish()
    assert wiped.replica is not None
    assert not wiped.replica.raft.is_rebuilding
    assert world.coverage["rebuild finished"] == 1


@pytest.mark.parametrize("seed", range(10))
def test_D8_a_wiped_node_is_rebuilt_under_load(seed: int) -> None:
    """Each node in turn loses its disk while clients write; each counts again, and nothing is lost."""
    world = make_world(seed=seed)
    for node in list(world.nodes.values()):
        stop(world, node)
        node.wipe()
        node.start()
        world.run_until_true("the rebuild ends", 5.0, lambda node=node: not node.drive.is_rebuilding)  # type: ignore[misc]
        world.run_until(world.now + 0.3)
    world.finish()
    assert world.coverage["rebuild finished"] == 3


@pytest.mark.parametrize("step", range(12))
def test_D11_an_error_of_a_disk_stops_its_node_for_good(step: int) -> None:
    """One error, whatever comes after it would work: nothing is tried again, and the others go on."""
    world = make_world(seed=11)
    node = leader_of(world)
    node.drive.files.fail_after(step, OSError(5, "once"))
    world.run_until(2.5)
    assert node.drive.is_failed
    assert not node.is_up
    assert leader_of(world) is not node
    world.finish()


@pytest.mark.parametrize("is_shared", [False, True])
@pytest.mark.parametrize("free_bytes", [0, 300, 700, 1500, 3000, 4500, 6000, 9000, 17_000, 20_000])
def test_D12_full_disks_are_read_only_and_recover_by_themselves(free_bytes: int, *, is_shared: bool) -> None:
    """Wherever space ends, no node stops; clients hear `read_only`; with space again all goes on, and restarts.

    So it is where somebody's copy shares the blocks of all files, so that nothing is reserved any more; but for reads
    after an election that finds no room.
    """
    world = make_world(seed=5, segment_bytes=16384, session_timeout_us=60_000_000)
    for node in world.nodes.values():
        if is_shared:
            node.drive.files.share()
        node.drive.files.capacity_bytes = node.drive.files.used_bytes + free_bytes
    world.run_until_true("clients hear of it", 30.0, lambda: world.coverage["read_only answered"] > 0)
    leader: Any = world.leader()
    role = None if leader is None else leader.replica.raft.role
    # Where nothing is reserved, the vote or the first entry of a new leader may find no room: then reads wait, too.
    is_led = role is not None and role.raft.commit >= role.first_index
    assert is_led or is_shared
    if is_led:
        reads = [world.clients[0].probe(node, "k0", "get") for node in world.members]
        # A node that has no room for the last entries can't answer; the gateway asks another one then.
        world.run_until_true(
            "reads go on", 1.0, lambda: sum(read.ended_at_s is not None for read in reads) >= 2
        )
    assert all(node.is_up for node in world.nodes.values())
    stop(world, follower_of(world) if is_led else next(iter(world.nodes.values())))
    for node in world.nodes.values():
        node.drive.unfill()
    commit = world.chronicle.commit
    world.run_until_true("writes go on", 5.0, lambda: world.chronicle.commit > commit + 10)
    for node in world.nodes.values():
        if node.is_up:
            stop(world, node)
    world.finish()


def test_D12_a_leader_whose_reserved_room_is_gone_hands_over() -> None:
    """It is short alone: the write that met it is kept, and the next ones are taken by somebody who has room."""
    world = make_world(seed=15, segment_bytes=16384)
    old = leader_of(world)
    old.drive.files.share()
    old.drive.files.capacity_bytes = old.drive.files.used_bytes
    world.run_until_true("somebody else leads", 5.0, lambda: world.leader() not in {None, old})
    commit = world.chronicle.commit
    world.run_until_true("writes go on", 5.0, lambda: world.chronicle.commit > commit + 10)
    assert old.is_up
    assert world.coverage["write found no room"] > 0
    world.finish()


def fill_behind(**changes: Any) -> tuple[World, SimulatedNode]:
    """Return a world whose one follower has a full disk and does not know: what will tell it is under way."""
    world = make_world(seed=14, clients=0, segment_bytes=16384, snapshot_log_bytes_min=1 << 30, **changes)
    node = follower_of(world)
    node.drive.files.capacity_bytes = 0
    node.drive.condition.is_stalled = True
    # After a quarter of its segment, a disk wants to make the next one.
    open_sessions(world, 100)
    assert node.replica is not None
    assert node.replica.raft.persistence.free_log_bytes is None
    return world, node


def open_sessions(world: World, count: int) -> None:
    """Let the leader take so many commands at once, and the followers soon."""
    world.request(
        leader_of(world).id, Propose(ReplyTo(0, 1), world.chronicle.commit, [OpenSession(60_000_000)] * count)
    )
    world.run_until(world.now + 0.02)


def test_D12_what_was_taken_before_a_full_disk_was_heard_of_waits() -> None:
    """In one pass a node takes more than fits, and only then hears that its disk is full: nobody is to blame."""
    world, node = fill_behind()
    assert node.drive.timed is not None
    assert node.replica is not None
    node.pause()
    open_sessions(world, 300)
    node.drive.unstall()
    node.resume()
    assert node.replica.raft.persistence.free_log_bytes_left == 0
    world.run_until(world.now + 0.1)
    assert not node.drive.timed.is_idle
    node.drive.unfill()
    world.finish()


@pytest.mark.parametrize("is_heeded", [True, False])
def test_D12_what_is_taken_after_a_full_disk_was_heard_of_fits(
    monkeypatch: pytest.MonkeyPatch, *, is_heeded: bool
) -> None:
    """A node that knows takes what it has room for; were it to take more, that would be found."""
    world, node = fill_behind()
    assert node.drive.timed is not None
    node.drive.unstall()
    if is_heeded:
        open_sessions(world, 300)
        assert node.drive.timed.is_idle
        node.drive.unfill()
        world.finish()
    else:
        monkeypatch.setattr(Persistence, "fitting", lambda _, entries: entries)
        with pytest.raises(Violation, match=f"n{node.id} took .* on a full disk"):
            open_sessions(world, 300)


def test_E1_E2_a_leader_with_a_stalled_disk_hands_over_and_its_late_writes_are_void() -> None:
    """Heartbeats flow, nothing gets durable: somebody else leads soon, and what the disk does later is fenced."""
    world = make_world(seed=13)
    old = leader_of(world)
    assert old.replica is not None
    term = old.replica.raft.term
    old.drive.condition.is_stalled = True
    world.run_until_true("somebody else leads", 2.0, lambda: world.leader() not in {None, old})
    commit = world.chronicle.commit
    world.run_until_true("writes go on", 2.0, lambda: world.chronicle.commit > commit + 10)
    old.drive.unstall()
    world.run_until(world.now + 1.0)
    assert old.replica.raft.term > term
    world.finish()


def up_nodes(world: World) -> list[SimulatedNode]:
    """Return the nodes that live."""
    return [node for node in world.nodes.values() if node.is_up]


def log_lengths(world: World, without: SimulatedNode, for_s: float) -> list[int]:
    """Let time pass; return how long the longest log of the other nodes was, now and then."""
    lengths = []
    ends_at = world.now + for_s
    while world.now < ends_at:
        world.run_until(world.now + 0.1)
        logs = [
            node.replica.raft.log for node in world.nodes.values() if node is not without and node.replica
        ]
        lengths.append(max(log.last_index - log.base_index for log in logs))
    return lengths


def test_N8_a_disk_that_hangs_in_its_turn_keeps_no_other_node_from_taking_snapshots() -> None:
    """The turn goes to the next one, the logs of the others stay short, and the late snapshot goes on when it can."""
    world = make_world(seed=4, snapshot_log_bytes_min=200)
    before = max(log_lengths(world, follower_of(world), 2.0))
    node = follower_of(world)
    node.drive.condition.is_stalled = True
    node.post(TakeSnapshot())
    world.run_until_true(
        "it has its turn", 2.0, lambda: node.replica is not None and node.replica.snapshots.is_taking
    )
    began = world.chronicle.commit
    lengths = log_lengths(world, node, 10.0)
    assert world.chronicle.commit - began > 10 * before, "too little was written to see anything"
    assert max(lengths[20:]) <= 3 * before
    assert world.coverage["snapshot lost its turn"]
    node.drive.unstall()
    world.run_until(world.now + 1.0)
    world.finish()


def test_N8_a_disk_that_hangs_while_it_is_sent_a_snapshot_is_kept_nothing_for() -> None:
    """The leader drops its log all the same, and offers the newest snapshot, which is taken when the disk moves."""
    world = make_world(seed=8, snapshot_log_bytes_min=200)
    node = follower_of(world)
    before = max(log_lengths(world, node, 2.0))
    fall_behind(world, node)
    node.start()
    world.run_until_true(
        "chunks come", 2.0, lambda: node.replica is not None and node.replica.raft.incoming is not None
    )
    node.drive.condition.is_stalled = True
    began = world.chronicle.commit
    lengths = log_lengths(world, node, 10.0)
    assert world.chronicle.commit - began > 10 * before, "too little was written to see anything"
    assert max(lengths[20:]) <= 3 * before
    assert world.coverage["snapshot sent to a disk that hangs"]
    node.drive.unstall()
    world.run_until_true("a snapshot is installed", 5.0, lambda: world.coverage["snapshot installed"] > 0)
    world.finish()


@pytest.mark.parametrize("nodes", [2, 3])
def test_E1_a_leader_with_a_stalled_disk_stays_if_nobody_could_be_elected(nodes: int) -> None:
    """Reads need no disk: they go on when the leader's stands still, and all others' too if there are any."""
    world = make_world(seed=13, nodes=nodes)
    leader = leader_of(world)
    assert leader.replica is not None
    term = leader.replica.raft.term
    for node in world.nodes.values():
        node.drive.condition.is_stalled = nodes > 2 or node is leader
    for _ in range(4):
        world.run_until(world.now + 1.5)
        reads = [world.clients[0].probe(node, "k0", "get") for node in world.members]
        world.run_until(world.now + 0.5)
        assert all(each.ended_at_s is not None for each in reads)
    assert leader.replica.raft.is_leader
    assert leader.replica.raft.term == term
    for node in world.nodes.values():
        node.drive.unstall()
    world.run_until(world.now + 1.0)
    world.finish()


def test_a_disk_that_hangs_at_a_start_holds_its_node_alone() -> None:
    """The others elect and serve; it starts as soon as its disk moves."""
    world = make_world(seed=5)
    node = follower_of(world)
    node.drive.condition.is_stalled = True
    for each in world.nodes.values():
        world.crash(each, 0.1, is_answered=False, interruptions=0)
    commit = world.chronicle.commit
    world.run_until_true("writes go on", 3.0, lambda: world.chronicle.commit > commit + 10)
    assert node not in up_nodes(world)
    node.drive.unstall()
    assert node in up_nodes(world)
    world.finish()
