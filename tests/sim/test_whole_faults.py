"""Faults of the whole world: each kind alone, majorities lost, and what single faults do to the real house."""

import errno
from collections.abc import Callable
from random import Random
from typing import TypeVar

import attrs
import pytest
import trio
import trio.testing

from trio_kv.check.violation import Violation
from trio_kv.cluster.loading import LOAD_LEASE_S
from trio_kv.raft.config import RaftConfig
from trio_kv.raft.messages import Heartbeat
from trio_kv.raft.node import Raft
from trio_kv.replica.replica import Replica
from trio_kv.replica.turns import Turns
from trio_kv.sim import faults
from trio_kv.sim.draw import MAKERS
from trio_kv.sim.faults import Fault
from trio_kv.sim.pipes import Pipe
from trio_kv.sim.plan import Plan
from trio_kv.sim.whole import drive as drives
from trio_kv.sim.whole import faults as door_faults
from trio_kv.sim.whole.kind import KIND
from trio_kv.sim.whole.network import LatentLinks, SimulatedNetwork
from trio_kv.sim.whole.nodes import WatchedNode
from trio_kv.sim.whole.plan import DOOR_KINDS, KINDS, draw_whole_plan
from trio_kv.sim.whole.timers import Timers
from trio_kv.sim.whole.wire_faults import PROCESS_KINDS
from trio_kv.sim.whole.world import WholeWorld, make_world
from trio_kv.storage import node_directory, opening
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.node_directory import NodeDirectory
from trio_kv.storage.wal import Wal
from trio_kv.wire.node_status import State

T = TypeVar("T")
run = KIND.run


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone(kind: str) -> None:
    """A kind of fault that happens alone breaks nothing, and does happen."""
    plan = draw_whole_plan(1, (kind,))
    assert plan.kinds == (kind,)
    assert bool(plan.faults) == (kind in MAKERS or kind in DOOR_KINDS or kind in PROCESS_KINDS)
    run(plan)


def test_a_kind_that_is_not_there_is_refused() -> None:
    """What comes of connections here can't be asked for; neither can what is nowhere."""
    with pytest.raises(ValueError, match="no such kinds of faults: \\['lost_answers'\\]"):
        draw_whole_plan(3, ("lost_answers",))


def test_majorities_of_disks_may_be_lost(is_thorough: bool) -> None:
    """However many disks are lost, nothing that was answered is taken back: at worst nothing is answered any more."""
    lost = []
    for seed in (1, 7, 10, 11, 12, 3, 5, 9)[: None if is_thorough else 5]:
        world = make_world(draw_whole_plan(seed, is_beyond_budget=True), None)
        world.run()
        lost.append(sum(drive.is_lost for drive in world.disks.drives.values()) > (world.plan.nodes - 1) // 2)
    assert sum(lost) >= 3, "the mode deserves its name"


def test_a_disk_that_fails_unasked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the log's own code is no fault of the plan's: it does not pass for a disk that is lost."""

    def compact(self: Wal, index: int) -> int:
        raise FileNotFoundError(2, "broken on purpose")

    monkeypatch.setattr(Wal, "compact", compact)
    with pytest.raises(Violation, match="nothing was wrong with it"):
        WholeWorld(quiet_plan()).run()


@pytest.mark.parametrize("error", [DamagedError("wal", 7, "broken on purpose", ""), OSError(errno.EIO, "")])
def test_a_sound_disk_that_is_refused_is_found(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts must start, also beyond the budget, unless a bit was flipped or the disk has a fault."""
    plan = attrs.evolve(quiet_plan(faults.Crash(1.0, 2, 0.5, False, False)), is_beyond_budget=True)
    world = WholeWorld(plan)
    opened = opening.open_node

    def open_node(*arguments: object, **members: object) -> object:
        if trio.current_time() > 1.0:
            raise error
        return opened(*arguments, **members)  # type: ignore[arg-type]

    monkeypatch.setattr(node_directory, "open_node", open_node)
    with pytest.raises(Violation, match=r"no bit was flipped|nothing was wrong with it"):
        world.run()


def test_terms_without_end_are_found_whatever_happens_at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pre-vote a node that hears nobody raises its term for ever; no client's trouble hides that."""
    real = Raft.become_candidate

    def become_candidate(
        self: Raft, now: float, reason: str, *, is_pre_vote: bool, is_transfer: bool = False
    ) -> None:
        del is_pre_vote
        real(self, now, reason, is_pre_vote=False, is_transfer=is_transfer)

    monkeypatch.setattr(Raft, "become_candidate", become_candidate)
    trouble = [door_faults.Disconnect(1.5 + 0.3 * number, 1, False) for number in range(30)]
    plan = attrs.evolve(quiet_plan(faults.Isolate(1.0, 2, True, False, 9.0), *trouble), fault_phase_s=11.0)
    with pytest.raises(Violation, match="since anything changed"):
        WholeWorld(plan).run()


def quiet_plan(*planned: Fault) -> Plan:
    """Return a plan of three nodes with these faults and no others, long enough to see what they do."""
    raft = RaftConfig(election_timeout_min_s=0.3, election_timeout_max_s=0.6, heartbeat_interval_s=0.1)
    return attrs.evolve(
        draw_whole_plan(4, ()),
        nodes=3,
        fault_phase_s=4.0,
        raft=raft,
        latency_s=0.002,
        disk_s=0.001,
        faults=planned,
    )


def seen_each(plan: Plan, every_s: float, look: Callable[[WholeWorld], T]) -> list[T]:
    """Run a plan; return what was seen in its fault phase, once each `every_s`."""
    seen: list[T] = []

    def glance() -> None:
        if not world.is_healed:
            seen.append(look(world))
            world.after(every_s, glance)

    class Watched(WholeWorld):
        def begin(self) -> None:
            self.after(every_s, glance)
            super().begin()

    world = Watched(plan)
    world.run()
    return seen


def test_a_node_whose_disk_failed_once_comes_back() -> None:
    """Its node stops at once, and is a member again after somebody has started it; the budget is not touched."""
    plan = quiet_plan(faults.FailDisk(1.0, 2, 0, 0.5))
    states = seen_each(plan, 0.1, lambda world: world.cluster.registry.nodes[2].state)
    down = [place for place, state in enumerate(states) if state is State.STOPPED]
    assert down, "the disk failed"
    assert 3 <= len(down) <= 9
    assert states[-1] is State.UP


def test_disks_that_hang_at_a_start_keep_no_other_node_from_starting() -> None:
    """All nodes start, and the one that is read first hangs: the others wait for no longer than a lease."""
    plan = quiet_plan(faults.StallDisk(1.0, 1, 20.0), faults.CrashAll(1.1, (0.1, 0.15, 0.15)))
    plan = attrs.evolve(plan, fault_phase_s=8.0)
    up = seen_each(plan, 0.1, lambda world: sorted(world.running))
    latest = int((1.2 + LOAD_LEASE_S + 0.5) / 0.1)
    assert up[13] == [], "nobody was read before the one that hangs"
    assert set(map(tuple, up[latest:])) == {(2, 3)}


def test_a_disk_that_can_not_be_read_keeps_its_node_down_until_it_can() -> None:
    """Whoever starts it meanwhile finds it unreadable; nothing is lost by that."""
    plan = quiet_plan(faults.FailReads(1.0, 2, 1.5), faults.Crash(1.2, 2, 0.01, False, False))
    states = seen_each(plan, 0.1, lambda world: world.cluster.registry.nodes[2].state)
    assert states[15:22] == [State.STOPPED] * 7
    assert states[-1] is State.UP


def test_a_node_is_started_again_at_its_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that can't be read is tried five times a second, not without end."""
    world = WholeWorld(quiet_plan(faults.FailReads(1.0, 2, 2.0), faults.Crash(1.2, 2, 0.01, False, False)))
    looks: list[float] = []
    examine = drives.WholeDrive.examine

    def counted(drive: drives.WholeDrive) -> NodeDirectory:
        if drive.node == 2 and trio.current_time() > 1.0:
            looks.append(trio.current_time())
        return examine(drive)

    monkeypatch.setattr(drives.WholeDrive, "examine", counted)
    world.run()
    assert 5 <= len(looks) <= 15


@pytest.mark.parametrize("for_s", [0.5, 2.5])
def test_power_is_out_as_long_as_planned(for_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the supervisor waits for long, a node is down as long as the plan says."""
    plan = quiet_plan(faults.Crash(1.0, 2, for_s, False, False))
    outages_s = (outage_s(attrs.evolve(plan, seed=seed), monkeypatch) for seed in range(1, 9))
    assert any(abs(each_s - for_s) < 0.1 for each_s in outages_s)


def outage_s(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> float:
    """Run a plan that lets node 2 crash at 1 s; return how long it was down then."""
    world = WholeWorld(plan)
    started_s: list[float] = []
    started = world.node_started

    def note(node: WatchedNode, disk: drives.SimulatedDisk) -> None:
        if node.id == 2:
            started_s.append(trio.current_time())
        started(node, disk)

    monkeypatch.setattr(world, "node_started", note)
    world.run()
    return started_s[1] - 1.0


def test_a_starved_node_passes_only_at_its_pulses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass of a starved node takes all that came since the last one, as of a process that gets no processor."""
    plan = quiet_plan(faults.SlowNode(1.0, 2, 0.05, 2.0))
    world = WholeWorld(plan)
    passes: list[float] = []
    stepped = world.stepped

    def note(replica: Replica, turns: Turns) -> None:
        if replica.id == 2 and 1.01 < trio.current_time() < 2.99:
            passes.append(trio.current_time())
        stepped(replica, turns)

    monkeypatch.setattr(world, "stepped", note)
    world.run()
    assert len(passes) > 10
    off_beat = [at_s for at_s in passes if min((at_s - 1.0) % 0.05, -(at_s - 1.0) % 0.05) > 1e-6]
    assert off_beat == []


def test_a_clock_that_jumps_is_noticed_at_once_and_deposes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer follows its clock, and the node knows that it was itself that slept: no election follows."""
    world = WholeWorld(quiet_plan(*(faults.Jump(2.0, node, 60.0) for node in (1, 2, 3))))
    woken: set[int] = set()
    terms: set[int] = set()
    stepped = world.stepped

    def note(replica: Replica, turns: Turns) -> None:
        if trio.current_time() == 2.0:
            woken.add(replica.id)
        if trio.current_time() > 1.0:
            terms.add(replica.raft.term)
        stepped(replica, turns)

    monkeypatch.setattr(world, "stepped", note)
    world.run()
    assert woken == {1, 2, 3}
    assert terms == {1}


def test_a_slow_link_holds_messages_back() -> None:
    """What waits in a thin pipe is late."""
    plan = quiet_plan(
        *(
            faults.SlowLink(0.0, one, two, 1.0, 50, 9.0)
            for one in (1, 2, 3)
            for two in (1, 2, 3)
            if one != two
        )
    )
    leaders = seen_each(plan, 0.1, lambda world: world.leading())
    assert leaders[:20] == [None] * 20, "no vote arrives within a second"


async def test_a_slow_link_that_is_mended_forgets_what_waits_in_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What left it before arrives; what waited in it never does (core seed 37905)."""
    timers, arrived = Timers(), list[object]()
    links = LatentLinks(Random(1), 0.001, 0.0)
    network = SimulatedNetwork(links, Random(1), timers.after)

    def take(message: object) -> bool:
        arrived.append(message)
        return True

    network.attach(2, take)
    first, second = (Heartbeat(1, 2, 1, 0, False, number, 0, 0, 0) for number in (1, 2))
    links.pipes[1, 2] = Pipe(message_s=1.0, waiting_max=9)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(timers.run)
        nursery.start_soon(network.run)
        network.send_nowait(first)
        network.send_nowait(second)
        await trio.sleep(1.5)
        links.heal()
        await trio.sleep(9.0)
        nursery.cancel_scope.cancel()
    assert arrived == [first]


def test_a_forced_election_ends_with_a_leader_of_a_new_term() -> None:
    """A node that stands without asking first enters a term of its own, and the cluster follows."""
    plan = quiet_plan(*(faults.ForceElection(2.0, node, False) for node in (1, 2, 3)))
    terms = seen_each(plan, 0.1, lambda world: max(each.raft.term for each in world.living()))
    assert terms[25] > terms[18]


def test_short_queues_are_the_nodes_own() -> None:
    """The bound that a plan draws is that of the real inboxes."""
    plan = attrs.evolve(quiet_plan(), inbox_max=3)
    bounds: set[object] = set()
    seen_each(
        plan,
        0.5,
        lambda world: bounds.update(
            (node.inbox._peers_max, node.inbox._requests_max) for node in world.running.values()
        ),
    )
    assert bounds == {(3, 3)}
