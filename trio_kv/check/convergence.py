"""Convergence: once nothing is wrong any more, all nodes reach the same state (paper §5.3, last paragraph)."""

from collections.abc import Iterable

from trio_kv.check.reference import Reference
from trio_kv.check.violation import Violation
from trio_kv.kv.machine import Machine
from trio_kv.raft.node import Raft


def has_converged(rafts: Iterable[Raft], machines: Iterable[Machine]) -> bool:
    """Return whether all nodes hold the same log, all of it applied."""
    ends = {(raft.log.last_index, raft.log.last_term, raft.log.last_index - raft.commit) for raft in rafts}
    states = {(machine.applied, machine.entries_digest, machine.state_digest) for machine in machines}
    if len(ends) != 1 or len(states) != 1:
        return False
    ((last, _, uncommitted),) = ends
    ((applied, _, _),) = states
    return uncommitted == 0 and applied == last


def require_equal(machines: Iterable[Machine], reference: Reference) -> None:
    """Compare what nodes hold in the end with what they should hold.

    Raises:
        Violation: a node holds something else.

    """
    due = reference.items
    for machine in machines:
        held = {key: (bytes(item.value), item.revision) for key, item in machine.copy().items.items()}
        if held != due:
            raise Violation(f"a node holds {held} at index {machine.applied} instead of {due}")
