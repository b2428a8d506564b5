"""Chrome's trace format, as ui.perfetto.dev opens it: a process a node, with lanes for its role, log and disk.

Slices of a lane must nest, so what overlaps (writes on their way to the disk, entries until they are committed,
clients) is a pair of asynchronous events. Arrows (flows) join slices only: an event is a slice of a microsecond.

What Perfetto's trace processor asks for beyond the format, and otherwise drops or never ends without a word:

- The end of a pair has the name of its beginning.
- All pairs of one name share a lane below their process, if their numbers are that process' own (`id2.local`).
- Slices that overlap by a fraction are dropped: so times are whole microseconds, as they are in the trace.
- A lane whose number is that of its process comes first: so no lane has such a number.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs

from trio_kv.raft.events import (
    EntriesAppended,
    EntriesCommitted,
    EntriesStored,
    LeaderSteppedDown,
    LogTruncated,
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
LANES_MAX = 10
"""A lane's number begins with its node's: n3 has the lanes 31 to 34."""
TO_DISK, TO_COMMIT, CLIENT = "to disk", "to commit", "client"
"""What lasts for a while, and goes on beside others of its kind."""
WAITING_MAX = 4096
"""So many runs of a node wait to be stored or committed; older ones are left open."""

Slot = dict[str, Any]


@attrs.frozen
class _Waiting:
    """A run of entries that has begun to wait."""

    last: int
    number: str


@attrs.define
class _Node:
    """What is open in the lanes of a node."""

    role: str | None = None
    stored: deque[_Waiting] = attrs.field(factory=lambda: deque(maxlen=WAITING_MAX))
    committed: deque[_Waiting] = attrs.field(factory=lambda: deque(maxlen=WAITING_MAX))


class _Writer:
    def __init__(self) -> None:
        self._nodes: dict[int, _Node] = {}
        self._causes: Causes[tuple[int, int, int]] = Causes()
        self._flows = 0

    def take(self, record: Record, *, is_seen: bool) -> Iterator[Slot]:
        """Yield what shows a record."""
        # Since 1970: the first record of a merged trace need not be the earliest, and viewers begin at that anyway.
        at_us = round(record.time_s * 1e6)
        pid = OUTSIDE if record.node is None else record.node
        if is_seen:
            if pid not in self._nodes:
                self._nodes[pid] = _Node()
                yield from _name(pid)
            yield from self._show(record, at_us, pid)
            lane = _lane(record, pid)
            yield from self._arrows(record, at_us, pid, lane)
            self._causes.note(record, (at_us, pid, lane))
        elif not isinstance(record.event, EntriesStored | EntriesAppended | EntriesCommitted):
            # What is not to be seen has no slice that an arrow could begin at; but who has a vote must be known.
            self._causes.note(record, (-1, pid, 0))

    def _show(self, record: Record, at_us: int, pid: int) -> Iterator[Slot]:
        event = record.event
        args = own_members(event) | {"seq": record.seq}
        if record.term is not None:
            args["term"] = record.term
        name = describe(record)
        where = {"pid": pid, "tid": _lane(record, pid), "ts": at_us}
        yield {"ph": "X", "name": name, "cat": type(event).name, "dur": 1, "args": args, **where}
        yield from self._show_role(record, where)
        yield from self._show_spans(record, where)

    def _show_role(self, record: Record, where: Slot) -> Iterator[Slot]:
        role = None
        if isinstance(record.event, NodeStarted):
            role = "follower"  # also after what was killed, and could not tell so
        elif not isinstance(record.event, NodeCrashed | NodeStopped):
            if record.role is None:
                return
            role = record.role.replace("_", "-")
            if role in {"leader", "candidate"}:
                role += f" of term {record.term}"
        yield from self._change_role(self._nodes[where["pid"]], role, where)

    def _show_spans(self, record: Record, where: Slot) -> Iterator[Slot]:
        event, node = record.event, self._nodes[where["pid"]]
        match event:
            case EntriesAppended():
                yield from self._begin(node.stored, TO_DISK, record, where)
                if record.role == "leader":
                    yield from self._begin(node.committed, TO_COMMIT, record, where)
            case EntriesStored():
                yield from self._end_up_to(node.stored, TO_DISK, event.last, where)
            case EntriesCommitted() if record.role == "leader":
                yield from self._end_up_to(node.committed, TO_COMMIT, event.last, where)
            case LogTruncated():
                yield from self._end_since(node.stored, TO_DISK, event.first, where)
                yield from self._end_since(node.committed, TO_COMMIT, event.first, where)
            case LeaderSteppedDown():
                yield from self._end_since(node.committed, TO_COMMIT, 0, where)
            case NodeCrashed() | NodeStopped() | NodeStarted():
                yield from self._end_since(node.stored, TO_DISK, 0, where)
                yield from self._end_since(node.committed, TO_COMMIT, 0, where)
            case ClientConnected():
                yield _pair("b", CLIENT, str(event.client), where)
            case ClientDisconnected():
                yield _pair("e", CLIENT, str(event.client), where)
            case _:
                pass

    def _change_role(self, node: _Node, role: str | None, where: Slot) -> Iterator[Slot]:
        if role == node.role:
            return
        at = {**where, "tid": _tid(where["pid"], ROLE)}
        if node.role is not None:
            yield {"ph": "E", **at}
        if role is not None:
            yield {"ph": "B", "name": role, "cat": "role", **at}
        node.role = role

    def _begin(self, waiting: deque[_Waiting], name: str, record: Record, where: Slot) -> Iterator[Slot]:
        event = record.event
        assert isinstance(event, EntriesAppended)
        # A viewer has a lane for each name: so which entries these are stands beside it.
        run = {"first": event.first, "last": event.last}
        waiting.append(_Waiting(event.last, str(record.seq)))
        yield {**_pair("b", name, str(record.seq), where), "args": run}

    def _end_up_to(self, waiting: deque[_Waiting], name: str, last: int, where: Slot) -> Iterator[Slot]:
        while waiting and waiting[0].last <= last:
            yield _pair("e", name, waiting.popleft().number, where)

    def _end_since(self, waiting: deque[_Waiting], name: str, first: int, where: Slot) -> Iterator[Slot]:
        while waiting and waiting[-1].last >= first:
            yield _pair("e", name, waiting.pop().number, where)

    def _arrows(self, record: Record, at_us: int, pid: int, lane: int) -> Iterator[Slot]:
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


def _pair(phase: str, name: str, number: str, where: Slot) -> Slot:
    return {"ph": phase, "cat": name.rpartition(" ")[2], "name": name, "id2": {"local": number}, **where}


def _name(pid: int) -> Iterator[Slot]:
    name = "cluster" if pid == OUTSIDE else f"n{pid}"
    meta = {"ph": "M", "pid": pid}
    yield {**meta, "name": "process_name", "tid": 0, "args": {"name": name}}
    yield {**meta, "name": "process_sort_index", "tid": 0, "args": {"sort_index": pid}}
    for lane, words in LANES.items():
        yield {**meta, "name": "thread_name", "tid": _tid(pid, lane), "args": {"name": words}}
        yield {**meta, "name": "thread_sort_index", "tid": _tid(pid, lane), "args": {"sort_index": lane}}


def _tid(pid: int, lane: int) -> int:
    return pid * LANES_MAX + lane


def _lane(record: Record, pid: int) -> int:
    match type(record.event).name.partition(".")[0]:
        case "entries" | "log" | "append" | "snapshot" | "install" | "writes" | "reads":
            return _tid(pid, LOG)
        case "disk" | "wal":
            return _tid(pid, DISK)
        case _:
            return _tid(pid, EVENTS)
