"""Chrome's trace format, as ui.perfetto.dev opens it: a process a node, with lanes for its role, log and disk.

Slices of a lane must nest, so what overlaps (writes on their way to the disk, entries until they are committed,
clients) is a pair of asynchronous events. Arrows (flows) join slices only: an event is a slice of a microsecond.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from trio_kv.raft.events import (
    ElectionStarted,
    EntriesAppended,
    EntriesCommitted,
    EntriesStored,
    LeaderElected,
    LeaderSteppedDown,
)
from trio_kv.trace.causes import Causes
from trio_kv.trace.text import encode_json
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import (
    ClientConnected,
    ClientDisconnected,
    NodeCrashed,
    NodeStarted,
    NodeStopped,
)
from trio_kv.trace.words import describe, own_members

OUTSIDE = 0
"""The process of what belongs to no node."""
ROLE, EVENTS, LOG, DISK = 1, 2, 3, 4
LANES = {ROLE: "role", EVENTS: "events", LOG: "log", DISK: "disk"}
WAITING_MAX = 4096
"""So many runs of a node wait to be stored or committed; older ones are left open."""

Slot = dict[str, Any]


@attrs.define
class _Node:
    """What is open in the lanes of a node."""

    role: str | None = None
    stored: deque[tuple[int, str]] = attrs.field(factory=lambda: deque(maxlen=WAITING_MAX))
    committed: deque[tuple[int, str]] = attrs.field(factory=lambda: deque(maxlen=WAITING_MAX))


class _Writer:
    def __init__(self) -> None:
        self._began_s: float | None = None
        self._nodes: dict[int, _Node] = {}
        self._causes: Causes[tuple[float, int, int]] = Causes()
        self._flows = 0

    def take(self, record: Record, *, is_seen: bool) -> Iterator[Slot]:
        """Yield what shows a record."""
        if self._began_s is None:
            self._began_s = record.time_s
        at_us = round((record.time_s - self._began_s) * 1e6, 3)
        pid = OUTSIDE if record.node is None else record.node
        if is_seen:
            if pid not in self._nodes:
                self._nodes[pid] = _Node()
                yield from _name(pid)
            yield from self._show(record, at_us, pid)
            lane = _lane(record)
            yield from self._arrows(record, at_us, pid, lane)
            self._causes.note(record, (at_us, pid, lane))
        elif not isinstance(record.event, EntriesStored | EntriesAppended | EntriesCommitted):
            # What is not to be seen has no slice that an arrow could begin at; but who has a vote must be known.
            self._causes.note(record, (-1.0, pid, 0))

    def _show(self, record: Record, at_us: float, pid: int) -> Iterator[Slot]:
        event = record.event
        args = own_members(event) | {"seq": record.seq}
        if record.term is not None:
            args["term"] = record.term
        name = describe(record)
        where = {"pid": pid, "tid": _lane(record), "ts": at_us}
        yield {"ph": "X", "name": name, "cat": type(event).name, "dur": 1, "args": args, **where}
        yield from self._show_role(record, where)
        yield from self._show_spans(record, where)

    def _show_role(self, record: Record, where: Slot) -> Iterator[Slot]:
        node = self._nodes[where["pid"]]
        match record.event:
            case LeaderElected():
                yield from self._change_role(node, f"leader of term {record.term}", where)
            case ElectionStarted():
                yield from self._change_role(node, f"candidate of term {record.term}", where)
            case NodeStarted():
                yield from self._change_role(node, "follower", where)
            case LeaderSteppedDown():
                yield from self._change_role(node, "follower", where)
            case NodeCrashed() | NodeStopped():
                yield from self._change_role(node, None, where)
            case _:
                pass

    def _show_spans(self, record: Record, where: Slot) -> Iterator[Slot]:
        event, node = record.event, self._nodes[where["pid"]]
        match event:
            case EntriesAppended():
                yield from self._begin(node.stored, "disk", record, where)
                if record.role == "leader":
                    yield from self._begin(node.committed, "commit", record, where)
            case EntriesStored():
                yield from self._end(node.stored, "disk", event.last, where)
            case EntriesCommitted() if record.role == "leader":
                yield from self._end(node.committed, "commit", event.last, where)
            case ClientConnected():
                yield {"ph": "b", "cat": "client", "name": "client", "id": str(event.client), **where}
            case ClientDisconnected():
                yield {"ph": "e", "cat": "client", "name": "client", "id": str(event.client), **where}
            case _:
                pass

    def _change_role(self, node: _Node, role: str | None, where: Slot) -> Iterator[Slot]:
        at = {**where, "tid": ROLE}
        if node.role is not None:
            yield {"ph": "E", **at}
        if role is not None:
            yield {"ph": "B", "name": role, "cat": "role", **at}
        node.role = role

    def _begin(
        self, waiting: deque[tuple[int, str]], kind: str, record: Record, where: Slot
    ) -> Iterator[Slot]:
        event = record.event
        assert isinstance(event, EntriesAppended)
        name = f"{kind} {event.first}..{event.last}"
        number = f"{where['pid']}-{kind}-{record.seq}"
        waiting.append((event.last, number))
        yield {"ph": "b", "cat": kind, "name": name, "id": number, **where}

    def _end(self, waiting: deque[tuple[int, str]], kind: str, last: int, where: Slot) -> Iterator[Slot]:
        while waiting and waiting[0][0] <= last:
            _, number = waiting.popleft()
            yield {"ph": "e", "cat": kind, "name": kind, "id": number, **where}

    def _arrows(self, record: Record, at_us: float, pid: int, lane: int) -> Iterator[Slot]:
        for began_us, source, source_lane in self._causes.of(record):
            if began_us < 0 or source == pid:
                continue
            self._flows += 1
            flow = {"cat": "cause", "name": type(record.event).name, "id": self._flows}
            yield {"ph": "s", "pid": source, "tid": source_lane, "ts": began_us, **flow}
            yield {"ph": "f", "bp": "e", "pid": pid, "tid": lane, "ts": at_us, **flow}


def export_perfetto(records: Iterable[Record], is_shown: Callable[[Record], bool]) -> Iterator[str]:
    """Yield the text of a JSON object."""
    writer = _Writer()
    yield '{"displayTimeUnit":"ms","traceEvents":[\n'
    separator = ""
    for record in records:
        for slot in writer.take(record, is_seen=is_shown(record)):
            yield separator + encode_json(slot).decode()
            separator = ",\n"
    yield "\n]}\n"


def _name(pid: int) -> Iterator[Slot]:
    name = "cluster" if pid == OUTSIDE else f"n{pid}"
    yield {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": name}}
    for tid, lane in LANES.items():
        yield {"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": lane}}


def _lane(record: Record) -> int:
    match type(record.event).name.partition(".")[0]:
        case "entries" | "log" | "append" | "snapshot" | "install" | "writes" | "reads":
            return LOG
        case "disk" | "wal":
            return DISK
        case _:
            return EVENTS
