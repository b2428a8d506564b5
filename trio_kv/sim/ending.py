"""How a run ends: everything is healed, and the cluster must serve again (invariants I21, I25, I26, I27).

Within bounds of simulated time all follow one leader, a write and a read that are asked of each node succeed, every
request has its answer, and all nodes hold the same. Where majorities of the disks may be lost none of that is asked
for; the run goes on for a while all the same, for the judges to see what comes of what is left.
"""

from collections.abc import Iterable, Sequence

from trio_kv.check.boundedness import require_bounded
from trio_kv.check.convergence import has_converged, require_equal
from trio_kv.check.linearizability import check_history
from trio_kv.check.queues import left_waiting
from trio_kv.check.term_growth import require_quiet
from trio_kv.check.violation import Violation
from trio_kv.replica.replica import Replica
from trio_kv.sim.disk import TimedDisk
from trio_kv.sim.engine import Engine
from trio_kv.sim.histories import history_of
from trio_kv.sim.plan import Plan

LEADER_WITHIN_ELECTIONS = 20
"""After healing a leader is followed by all within so many election time-outs."""
LEADER_WITHIN_ELECTIONS_TIED = 150
"""The same where time-outs are drawn nearer to each other than a message takes, against the paper's advice (§5.6), and
no vote may be missing: each election is a toss of dice that the nodes cast together."""
AFTERMATH_ELECTIONS = 20
"""So many election time-outs a run goes on that must not end well."""


def heal(world: Engine) -> None:
    """Mend all that can be mended, and start what can be started."""
    world.is_healed = True
    world.terms.disturbed()
    world.network.heal()
    world.network.in_next_install = None
    for node in world.nodes.values():
        node.step_s = 0.0
        node.set_rate(1.0)
        node.drive.mend()
        node.resume()
        if node.may_start:
            node.start()


def leader_within_s(plan: Plan) -> float:
    """Return how long it may take, in seconds, until all follow one leader after everything was healed."""
    elections = LEADER_WITHIN_ELECTIONS_TIED if plan.is_tied else LEADER_WITHIN_ELECTIONS
    return elections * plan.raft.election_timeout_max_s + 50 * (plan.disk_s + plan.latency_s)


def run_aftermath(world: Engine) -> None:
    """Go on for a while without faults, and ask for nothing but safety."""
    world.run_until(world.now + AFTERMATH_ELECTIONS * world.plan.raft.election_timeout_max_s)
    for client in world.clients:
        client.stop()
    world.run_until(world.now + 1.0)


def require_service(world: Engine) -> float:
    """Go on until the cluster serves again; return how long it took until all followed one leader.

    Raises:
        Violation: it takes too long.

    """
    plan = world.plan
    election_s = plan.raft.election_timeout_max_s
    recovered_after_s = world.run_until_true(
        "all follow one leader", leader_within_s(plan), lambda: is_led(world.living())
    )
    leader = world.leader()
    assert leader is not None
    assert leader.replica is not None
    term = leader.replica.raft.term
    prober = world.clients[0]
    within_s = 10 * election_s + 20 * plan.client_timeout_s + 200 * (plan.disk_s + plan.latency_s)
    opened = prober.probe(leader.id, "", "open")
    world.run_until_true("a new session", within_s, lambda: opened.ended_at_s is not None)
    nodes = [replica.id for replica in world.living()]
    probes = [prober.probe(node, "k0", kind) for node in nodes for kind in ("set", "get")]
    world.run_until_true(
        "a write and a read at each node",
        within_s,
        lambda: all(each.ended_at_s is not None for each in probes),
    )
    for client in world.clients:
        client.stop()
    world.run_until_true(
        "all operations end", 2 * within_s, lambda: all(each.is_idle for each in world.clients)
    )
    # Attempts that were given up may still be on their way; they too are answered by whoever takes them.
    world.run_until_true("all requests are answered", within_s, lambda: not world.answers.under_way())
    world.run_until_true(
        "all nodes hold the same, and nothing waits in them",
        within_s,
        lambda: is_at_rest(world.living(), [node.drive.timed for node in world.nodes.values()]),
    )
    # But for a transfer that was under way when all was healed.
    require_quiet([each.raft for each in world.living()], term, 8 if plan.is_tied else 2)
    return recovered_after_s


def require_order(world: Engine) -> None:
    """Look at what every node holds in the end.

    Raises:
        Violation: it is not what it should be.

    """
    require_equal([each.machine for each in world.living()], world.chronicle.reference)
    for node in world.nodes.values():
        if node.replica is not None:
            raft = node.replica.raft
            sizes = {name: node.drive.files.size(name) for name in node.drive.files.names()}
            require_bounded(node.id, sizes, raft.log, raft.term, world.plan.segment_bytes)


def require_linearizable(world: Engine) -> None:
    """Let the oracle judge what the clients saw.

    Raises:
        Violation: there is no order in which it could have happened.

    """
    verdict = check_history(history_of(world.clients))
    if not verdict.is_valid:
        raise Violation(verdict.words)


def is_led(living: Sequence[Replica]) -> bool:
    """Return whether all nodes that live follow one leader, and are a majority."""
    rafts = [each.raft for each in living]
    leaders = [raft for raft in rafts if raft.is_leader]
    if not leaders:
        return False
    leader = max(leaders, key=lambda raft: raft.term)
    are_enough = leader.voters.has_majority([raft.id for raft in rafts])
    return are_enough and all((raft.term, raft.leader) == (leader.term, leader.id) for raft in rafts)


def is_at_rest(living: Sequence[Replica], disks: Iterable[TimedDisk | None]) -> bool:
    """Return whether all nodes that live hold the same, and nothing is left to do, in them or their disks."""
    if any(disk is not None and not disk.is_idle for disk in disks):
        return False
    if any(each.raft.is_rebuilding or each.snapshots.is_taking or each.has_more for each in living):
        return False
    nodes = [each.id for each in living]
    if any(left_waiting(each.raft, each.requests_waiting, nodes) for each in living):
        return False
    return has_converged([each.raft for each in living], [each.machine for each in living])
