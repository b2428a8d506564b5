"""Faults of the core world: each kind alone, majorities lost, and what single faults do."""

from random import Random
from typing import Any

import attrs
import pytest

from tests.samples import first_of
from trio_kv.check.violation import Violation
from trio_kv.raft.messages import Heartbeat
from trio_kv.raft.node import Raft
from trio_kv.raft.role import Role
from trio_kv.replica.replica import Replica
from trio_kv.sim import faults
from trio_kv.sim.clock import Clock
from trio_kv.sim.draw import MAKERS, nodes_min
from trio_kv.sim.pipes import Pipe
from trio_kv.sim.plan import KINDS, STANDING_KINDS, Plan, draw_plan
from trio_kv.sim.result import Result
from trio_kv.sim.world import World
from trio_kv.storage.wal import Wal


def run(plan: Plan) -> Result:
    """Run a plan, its seed in the traceback's values."""
    return World(plan).run()


@pytest.mark.parametrize("seed", first_of((1, 2), 1))
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_alone(kind: str, seed: int) -> None:
    """A kind of fault that happens alone breaks nothing, and does happen."""
    plan = draw_plan(seed, (kind,))
    assert plan.faults or kind not in MAKERS
    run(plan)


@pytest.mark.parametrize("seed", [909, 4229, 4649, 4878, 7678, 32544, 37905])
def test_seeds_of_long_runs_that_failed_once(seed: int) -> None:
    """What went wrong in a long run goes wrong no more: see "What was found" in docs/testing.md."""
    run(draw_plan(seed))


def test_majorities_of_disks_may_be_lost() -> None:
    """However many disks are lost, nothing that was answered is taken back: at worst nothing is answered any more.

    The mode deserves its name: in some runs more nodes are out for good than a majority can do without.
    """
    lost = []
    for seed in range(1, 31):
        world = World(draw_plan(seed, is_beyond_budget=True))
        world.run()
        out = sum(node.drive.is_lost or not node.is_up for node in world.nodes.values())
        lost.append(out > (len(world.members) - 1) // 2)
    assert sum(lost) >= 3


def test_plans_of_chosen_kinds() -> None:
    """A plan has the kinds it is told to have and no others, in a cluster in which they can happen."""
    for kind in KINDS:
        plan = draw_plan(3, (kind,))
        assert plan.kinds == (kind,)
        assert plan.nodes >= nodes_min(kind)
        standing = (plan.stragglers, plan.answer_loss, plan.forged_retries, plan.inbox_max < 4096)
        assert [name for name, value in zip(STANDING_KINDS, standing, strict=True) if value] == [
            name for name in STANDING_KINDS if name == kind
        ]
    with pytest.raises(ValueError, match="no such kinds of faults: \\['rain'\\]"):
        draw_plan(3, ("rain",))


def test_no_faults_at_all() -> None:
    """A plan without kinds has a quiet run: no term but the first leader's, unless votes were split."""
    plan = draw_plan(4, ())
    assert plan.faults == ()
    world = World(plan)
    world.run()
    assert world.terms.most <= 2


def test_a_pipe_is_slow_and_short() -> None:
    """A slow link takes a message at a time; those that find it full are lost, and it empties with time."""
    pipe = Pipe(message_s=1.0, waiting_max=2)
    assert [pipe.take(0.0) for _ in range(5)] == [1.0, 2.0, 3.0, None, None]
    assert pipe.take(1.5) == 2.5
    assert pipe.take(100.0) == 1.0


def test_a_pipe_that_is_mended_forgets_what_waits_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What left it before arrives; what waited in it never does (core seed 37905)."""
    world = World(attrs.evolve(draw_plan(1, ()), nodes=2, latency_s=0.001))
    arrived: list[object] = []
    monkeypatch.setattr(world.network, "_deliver", arrived.append)
    first, second = (Heartbeat(1, 2, 1, 0, False, number, 0, 0, 0) for number in (1, 2))
    world.links.pipes[1, 2] = Pipe(message_s=1.0, waiting_max=9)
    world.network.send(first)
    world.network.send(second)
    world.run_until(1.5)
    world.links.heal()
    world.run_until(9.0)
    assert arrived == [first]


def test_a_clock_jumps_forward() -> None:
    """After a jump a clock goes on at its rate from where it is."""
    clock = Clock(5.0)
    clock.set_rate(10.0, 2.0)
    clock.jump(60.0)
    assert clock.at(11.0) == 77.0
    assert clock.to_world(77.0) == 11.0


def test_rings_and_swizzles_cut_what_they_say() -> None:
    """In a ring each node hears its two neighbours; in a swizzle nodes go one by one and come back one by one."""
    plan = attrs.evolve(draw_plan(1, ("ring",)), nodes=5, faults=())
    world = World(plan)
    world.injector.happen(faults.Ring(0.0, (1, 3, 5, 2, 4), 9.0))
    heard = {one: [two for two in world.members if not world.links.is_cut(two, one)] for one in world.members}
    assert heard == {1: [1, 3, 4], 3: [1, 3, 5], 5: [2, 3, 5], 2: [2, 4, 5], 4: [1, 2, 4]}
    world.links.heal()
    world.injector.happen(faults.Swizzle(0.0, (1, 2), (1, 2), 0.5))
    alone = []
    for at_s in (0.1, 0.6, 1.1, 1.6):
        world.run_until(at_s)
        alone.append([one for one in world.members if world.links.is_cut(one, 5)])
    assert alone == [[1], [1, 2], [2], []]


def test_the_trace_is_text_alone() -> None:
    """No line of a trace names an object by its place in memory: the same seed writes the same bytes everywhere."""
    lines: list[str] = []
    World(draw_plan(11, ("forged_retries", "crash")), lines.append).run()
    assert any("Propose" in line and '{"op":"set",' in line for line in lines)
    assert not [line for line in lines if " at 0x" in line]


# Judges that see whole runs


def first_violation(plans: range, kinds: tuple[str, ...] | None = None, **changes: Any) -> str:
    """Return what the first of these seeds that breaks anything says; nothing if none does."""
    for seed in plans:
        try:
            World(attrs.evolve(draw_plan(seed, kinds), **changes)).run()
        except Violation as violation:
            return str(violation)
    return ""


def test_elections_that_never_end_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that stand at once, and voters that never mind a leader, depose each other as long as a bridge lasts."""
    real = Raft.become_candidate

    def become_candidate(
        self: Raft, now: float, reason: str, *, is_pre_vote: bool, is_transfer: bool = False
    ) -> None:
        del is_pre_vote
        real(self, now, reason, is_pre_vote=False, is_transfer=is_transfer)

    monkeypatch.setattr(Raft, "become_candidate", become_candidate)
    monkeypatch.setattr(Role, "hears_leader", lambda self, now: False)
    cut = faults.Bridge(1.0, 1, ((1, 2), (3,)), 8.0)
    plan = {"nodes": 3, "faults": (cut,), "fault_phase_s": 10.0}
    assert "since anything changed" in first_violation(range(1, 20), ("bridge",), **plan)


def test_a_disk_that_fails_unasked_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the log's own code is no fault of the plan's: it does not pass for a disk that is lost."""

    def compact(self: Wal, index: int) -> int:
        raise FileNotFoundError(2, "broken on purpose")

    monkeypatch.setattr(Wal, "compact", compact)
    assert "nothing was wrong with it" in first_violation(range(1, 5), ())


def test_a_read_that_is_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica that keeps count of a read which has its answer is not at rest."""
    real = Replica._answer

    def answer(self: Replica, *args: Any) -> None:
        real(self, *args)
        self._reads_waiting += 1

    monkeypatch.setattr(Replica, "_answer", answer)
    assert "nothing waits in them: not within" in first_violation(range(1, 3), ())


def test_the_oracle_finds_a_stale_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The history of a run tells by itself that a client read what was overwritten, or what nobody wrote."""
    world = World(draw_plan(2, ()))
    world.run()
    real = World.told
    operations = world.told()
    random = Random(1)
    written = sorted(
        (each for each in operations if each.op == "set" and each.outcome == "ok"),
        key=lambda each: each.return_s or 0.0,
    )
    last = random.choice(written[-3:])
    older = next(each for each in written if each.key == last.key and each.value != last.value)
    get = attrs.evolve(
        last, client=10**9, op="get", call_s=world.now, return_s=world.now + 1, value=None, result=older.value
    )
    monkeypatch.setattr(World, "told", lambda self: [*real(self), get])
    with pytest.raises(Violation, match="stale read"):
        World(draw_plan(2, ())).run()


def test_histories_hold_what_clients_did() -> None:
    """All outcomes occur in the histories of some runs, and an operation under a forged number is not known."""
    seen = set()
    for seed in range(1, 6):
        world = World(draw_plan(seed, ("crash", "forged_retries")))
        world.run()
        seen |= {(each.op, each.outcome) for each in world.told()}
        forged = [each for client in world.clients for each in client.history if each.forged]
        assert all(each.kind in {"set", "delete", "cas", "write"} for each in forged)
    assert seen >= {("get", "ok"), ("get", "missing"), ("set", "ok"), ("set", "unknown"), ("cas", "conflict")}
    assert seen >= {("cas", "ok"), ("delete", "ok"), ("delete", "missing")}
