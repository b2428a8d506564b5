"""The second phase of a run of the whole world: all is mended, the store serves again, and all nodes become equal."""

from collections.abc import Callable

import trio

from trio_kv.check.boundedness import require_bounded
from trio_kv.check.convergence import require_equal
from trio_kv.check.linearizability import check_history
from trio_kv.check.term_growth import require_quiet
from trio_kv.check.violation import Violation
from trio_kv.sim.ending import AFTERMATH_ELECTIONS, is_at_rest, is_led, leader_within_s
from trio_kv.sim.whole.injector import Injector
from trio_kv.sim.whole.world import WholeWorld
from trio_kv.wire.node_status import State

_LOOK_S = 0.02
"""How often it is looked whether something is true yet."""


def heal(world: WholeWorld, injector: Injector) -> None:
    """Mend everything that can be, and let no fault happen any more."""
    world.say("all is healed")
    world.is_healed = True
    injector.stop()
    world.terms.disturbed()
    world.cluster.faults.heal()
    world.node_network.in_next_install = None
    world.links.stragglers = 0.0
    world.starvation.end_all()
    for node, drive in world.disks.drives.items():
        drive.mend()
        world.cluster.faults.skew_clock(node, 1.0)
        world.resume(node)
        if not world.is_up(node) and not drive.is_lost:
            world.restart(node, State.CRASHED)
            world.restart(node, State.STOPPED)


async def run_aftermath(world: WholeWorld) -> None:
    """Go on for a while without faults, and ask for nothing but safety."""
    await trio.sleep(AFTERMATH_ELECTIONS * world.plan.raft.election_timeout_max_s)
    await _end_clients(world)


async def require_service(world: WholeWorld) -> float:
    """See the cluster serve and come to rest; return how long it took until all followed one leader.

    Raises:
        Violation: something takes too long.

    """
    plan = world.plan
    election_s = plan.raft.election_timeout_max_s
    recovered_after_s = await _run_until_true(
        world, "all follow one leader", leader_within_s(plan), lambda: is_led(world.living())
    )
    leader = world.leader()
    assert leader is not None
    term = leader.raft.term
    within_s = 10 * election_s + 20 * plan.client_timeout_s + 200 * (plan.disk_s + plan.latency_s) + 5
    began_s = trio.current_time()
    for op in ("set", "get"):
        while not await world.clients[0].probe(op):
            if trio.current_time() - began_s > within_s:
                raise Violation(
                    f"a {op}: not within {within_s:.2f} s after {began_s:.2f} s; {world.describe()}"
                )
    await _end_clients(world)
    await _run_until_true(world, "all requests are answered", within_s, lambda: not world.answers.under_way())
    await _run_until_true(world, "all nodes hold the same", within_s, lambda: _has_converged(world))
    # A leader that works is deposed by nobody, but for a transfer that was under way when all was healed. Where
    # time-outs are drawn nearly equal on purpose, votes are split a few times.
    require_quiet([replica.raft for replica in world.living()], term, 8 if plan.is_tied else 2)
    return recovered_after_s


def judge_end(world: WholeWorld) -> None:
    """Judge what is left, and all that clients were told.

    Raises:
        Violation: a node holds something else than it should, or too much, or the history is not linearizable.

    """
    if not world.plan.is_beyond_budget:
        _require_order(world)
    verdict = check_history(world.history)
    if not verdict.is_valid:
        raise Violation(verdict.words)


async def _end_clients(world: WholeWorld) -> None:
    for client in world.clients:
        client.stop()
    for client in world.clients[1:]:
        await client.wait_left()


async def _run_until_true(
    world: WholeWorld, what: str, within_s: float, is_true: Callable[[], bool]
) -> float:
    """Go on until something is true; return how long that took.

    Raises:
        Violation: it takes too long.

    """
    began_s = trio.current_time()
    while not is_true():
        if trio.current_time() - began_s > within_s:
            raise Violation(f"{what}: not within {within_s:.2f} s after {began_s:.2f} s; {world.describe()}")
        await trio.sleep(_LOOK_S)
    return trio.current_time() - began_s


def _has_converged(world: WholeWorld) -> bool:
    drives = world.disks.drives.values()
    if any(not world.is_up(drive.node) and not drive.is_lost for drive in drives):
        return False
    return is_at_rest(world.living(), [drive.timed for drive in drives])


def _require_order(world: WholeWorld) -> None:
    living = world.living()
    require_equal([each.machine for each in living], world.chronicle.reference)
    for replica in living:
        files = world.disks.drives[replica.id].files
        sizes = {name: files.size(name) for name in files.names()}
        require_bounded(replica.id, sizes, replica.raft.log, replica.raft.term, world.plan.segment_bytes)
