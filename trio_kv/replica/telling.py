"""What a replica tells of itself that the core can't know: with what it begins, and what it applies and answers."""

from trio_kv.kv.machine import Machine
from trio_kv.raft.events import Event
from trio_kv.raft.node import Raft
from trio_kv.replica.replica import Replica
from trio_kv.trace.vocabulary import EntriesApplied, NodeStarted, SessionsForgotten, WritesAnswered

LOG_TERMS_MAX = 100
"""So many terms of a log are told when its node starts: the newest."""


def node_started(raft: Raft, machine: Machine) -> NodeStarted:
    """Return the event that tells with what a node begins; to be made before it takes anything in."""
    log = raft.log
    return NodeStarted(
        log.base_index + 1,
        log.last_index,
        raft.incarnation,
        tuple(log.term_starts()[-LOG_TERMS_MAX:]),
        machine.entries_digest,
        machine.state_digest,
        raft.is_rebuilding,
    )


def applied_events(replica: Replica) -> list[Event]:
    """Return the events that tell what `Replica.apply` did in this pass, if there was anything to apply."""
    first, last, machine = replica.applied_now[0].index, replica.applied_now[-1], replica.machine
    events: list[Event] = [
        EntriesApplied(first, last.index, last.term, machine.entries_digest, machine.state_digest)
    ]
    answered, count = replica.answered_now
    if count:
        events.append(WritesAnswered(answered, count))
    if machine.forgotten:
        events.append(SessionsForgotten(last.index, tuple(machine.forgotten)))
    return events
