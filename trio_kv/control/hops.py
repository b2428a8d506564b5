"""The way of one request through the cluster, from what its nodes told and sent meanwhile.

Nothing is guessed. Of a write the answer names its index: what was told and sent about that index is its way. Of a read
the answer names the node that gave it: its question to the leader, and the answer to that, are found by their number.
Where the answer names nothing, as after a time-out, the way is not known, and there is only its beginning and its end.

A node sends what waits for an event in the same moment in which it tells the event, and just before: a cause is never
shown later than its effect.
"""

from collections.abc import Iterator
from typing import Final

import attrs
import trio

from trio_kv.control.sampling import note_of
from trio_kv.gateway.store import Answer
from trio_kv.raft.events import (
    DEBUG,
    EntriesAppended,
    EntriesCommitted,
    EntriesStored,
    Event,
    ReadsConfirmed,
)
from trio_kv.raft.messages import (
    AppendAccepted,
    AppendEntries,
    HeartbeatReply,
    Message,
    ReadIndex,
    ReadIndexReply,
)
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import EntriesApplied

SEEN_MAX = 20_000
"""So much is seen of one request at most; of one that takes long under load the end of the way is not known then."""
HOPS_MAX = 100

_EVENTS: Final = (EntriesAppended, EntriesStored, EntriesCommitted, EntriesApplied, ReadsConfirmed)
_MESSAGES: Final = (AppendEntries, AppendAccepted, HeartbeatReply, ReadIndex, ReadIndexReply)
_ORDER: Final = ("asked", "appended", "sent", "stored", "accepted", "committed", "confirmed", "applied")
"""What is told first of what happens at one moment."""


@attrs.frozen
class Hop:
    """One step on the way."""

    at: float
    kind: str
    node: int | None
    """Where; None: at the gateway."""
    what: str
    target: int | None = None
    """Where to, of what is sent."""

    def told(self, began_at: float) -> dict[str, object]:
        """Return it as JSON tells it."""
        members: dict[str, object] = {"at_ms": round(1000 * (self.at - began_at), 3), "node": self.node}
        if self.target is not None:
            members["to"] = self.target
        return {**members, "kind": self.kind, "what": self.what}


class Observer:
    """A sink of the trace and a tap of the network: sees what may be the way of a request."""

    level = DEBUG

    def __init__(self) -> None:
        """Begin now; see the class."""
        self.began_at = trio.current_time()
        self._events: list[tuple[float, int, Event]] = []
        self._messages: list[tuple[float, Message]] = []

    def write(self, record: Record) -> None:
        """See an event."""
        if isinstance(record.event, _EVENTS) and record.node is not None and len(self._events) < SEEN_MAX:
            self._events.append((trio.current_time(), record.node, record.event))

    def __call__(self, message: Message, is_lost: bool) -> None:
        """See a message. One that is lost is no step."""
        if not is_lost and isinstance(message, _MESSAGES) and len(self._messages) < SEEN_MAX:
            self._messages.append((trio.current_time(), message))

    def hops(self, answer: Answer, *, leader: int | None, is_write: bool) -> list[dict[str, object]]:
        """Return the way of the request that was answered just now.

        Args:
            answer: of the store, to one operation.
            leader: who led when the request came, as the gateway knew it.
            is_write: whether it was a write.

        """
        (reply,) = answer.replies
        steps: list[Hop] = []
        if not is_write:
            handed = "handed to a node"
            steps += self._steps_of_read(answer.node)
        else:
            handed = f"handed to n{leader}, which leads" if leader else "no leader is known: it waits for one"
            if reply.code == "ok" and reply.revision:
                steps += _causes_first(self._steps_of_write(reply.revision))
        said = f"n{answer.node} answers" if answer.node else "no node has answered"
        steps.sort(key=lambda hop: (hop.at, _ORDER.index(hop.kind)))
        hops = [
            Hop(self.began_at, "handed", None, handed),
            *steps[:HOPS_MAX],
            Hop(trio.current_time(), "answered", answer.node or None, f"{said}: {reply.code}"),
        ]
        return [hop.told(self.began_at) for hop in hops]

    def _steps_of_write(self, index: int) -> Iterator[Hop]:
        """Yield the first step of each kind at each node that is about the entry at this index."""
        seen: set[tuple[str, int, int | None]] = set()
        for hop in self._all_of_write(index):
            if (hop.kind, hop.node or 0, hop.target) not in seen:
                seen.add((hop.kind, hop.node or 0, hop.target))
                yield hop

    def _all_of_write(self, index: int) -> Iterator[Hop]:
        appended: set[int] = set()
        for at, node, event in self._events:
            match event:
                case EntriesAppended(first=first, last=last) if first <= index <= last:
                    appended.add(node)
                    yield Hop(at, "appended", node, f"entry {index} is in its log, not yet on its disk")
                case EntriesStored(last=last) if last >= index and node in appended:
                    yield Hop(at, "stored", node, "it is on its disk")
                case EntriesCommitted(first=first, last=last) if first <= index <= last:
                    yield Hop(at, "committed", node, "it knows that a majority has it: it is committed")
                case EntriesApplied(first=first, last=last) if first <= index <= last:
                    yield Hop(at, "applied", node, "its state machine has carried it out")
        for at, message in self._messages:
            source, target = message.source, message.target
            match message:
                case AppendEntries(prev_index=prev, entries=entries) if prev < index <= prev + len(entries):
                    yield Hop(at, "sent", source, note_of(message), target)
                case AppendAccepted(match=match) if match >= index:
                    yield Hop(at, "accepted", source, note_of(message), target)

    def _steps_of_read(self, node: int) -> Iterator[Hop]:
        """Yield the steps of a read that this node has answered."""
        question: ReadIndex | None = None
        for at, message in self._messages:
            match message:
                case ReadIndex(source=source) if source == node and question is None:
                    question = message
                    yield Hop(
                        at, "asked", node, "asks the leader up to where it must have applied", message.target
                    )
                case HeartbeatReply() if question is not None and message.target == question.target:
                    what = f"knows no newer leader ({note_of(message)})"
                    yield Hop(at, "confirmed", message.source, what, message.target)
                case ReadIndexReply(target=target, nonce=nonce, counter=counter) if question is not None and (
                    target,
                    nonce,
                    counter,
                ) == (node, question.nonce, question.counter):
                    yield Hop(at, "confirmed", message.source, note_of(message), target)
                    break
        for at, told_by, event in self._events:
            if told_by == node and isinstance(event, ReadsConfirmed):
                yield Hop(at, "confirmed", node, f"it may answer once it has applied {event.index}")
                break


def _causes_first(steps: Iterator[Hop]) -> list[Hop]:
    """Return steps, none of which is later than what it has caused at the same node."""
    hops = list(steps)
    first: dict[tuple[str, int | None], float] = {}
    for hop in hops:
        key = (hop.kind, hop.node)
        first[key] = min(hop.at, first.get(key, hop.at))
    effects = {"appended": "sent", "stored": "accepted"}
    return [
        attrs.evolve(hop, at=min(hop.at, first.get((effects.get(hop.kind, ""), hop.node), hop.at)))
        for hop in hops
    ]
