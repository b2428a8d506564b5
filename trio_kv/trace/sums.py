"""What a trace comes to, in memory that does not grow with it."""

import heapq
from collections import Counter, deque

import attrs

from trio_kv.meter.histogram import Histogram
from trio_kv.raft.events import (
    ElectionStarted,
    EntriesAppended,
    EntriesCommitted,
    EntriesStored,
    LeaderElected,
    LeaderSteppedDown,
    LogTruncated,
)
from trio_kv.trace.marks import TraceEnded, TraceLost, TraceStarted
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import ControlCommanded, NodeCrashed, NodeStarted, NodeStopped
from trio_kv.trace.words import describe

SHOWN_MAX = 50
"""So many reigns, and faults, are listed: the first ones."""
SLOWEST_MAX = 5
PERCENTILES = (50.0, 99.0, 100.0)
WAITING_MAX = 4096
"""So many runs of entries of a node may wait to be stored or committed; older ones are not measured."""
FAULT_AREAS = ("link.", "disk.", "node.paused", "node.resumed", "node.damaged", "node.rebuild", "rebuild.")


@attrs.define
class Reign:
    """How long a node led."""

    node: int
    term: int
    began_s: float
    ended_s: float | None = None
    why: str = ""
    committed: int = 0
    """How many entries it committed."""


LATENCIES_S = tuple(1e-6 * 1.05**power for power in range(400))
"""Bounds of buckets, from 1 us to some minutes, each a twentieth above the one before."""


Waiting = deque[tuple[int, float]]
"""(last index, since when, in seconds)"""


class Sums:
    """Takes records, and knows what they come to."""

    def __init__(self) -> None:
        """Have seen nothing."""
        self.events = self.runs = self.lost = self.committed = 0
        self.began_s: float | None = None
        self.lasted_s = 0.0
        self.reigns: list[Reign] = []
        self.reigns_left_out = 0
        self.elections: Counter[str] = Counter()
        self.commits, self.syncs = Histogram(LATENCIES_S), Histogram(LATENCIES_S)
        self.faults: list[str] = []
        self.faults_left_out = 0
        self._reigns: dict[int, Reign] = {}
        self._stored: dict[int, Waiting] = {}
        self._committed: dict[int, Waiting] = {}
        self._slowest: list[tuple[float, int, int, float]] = []
        self._starts: Counter[int] = Counter()
        self._ends: dict[int, Counter[str]] = {}

    def take(self, record: Record) -> None:
        """Take the next record."""
        self.events += 1
        if self.began_s is None:
            self.began_s = record.time_s
        at_s = record.time_s - self.began_s
        self.lasted_s = max(self.lasted_s, at_s)
        node = record.node
        match record.event:
            case TraceStarted():
                self.runs += 1
                self._break_off(at_s)
            case TraceLost() as lost:
                self.lost += lost.count
            case TraceEnded():
                self._break_off(at_s, "the store was stopped")
            case _ if node is not None:
                self._take_of(record, node, at_s)
            case _:
                pass
        name = type(record.event).name
        if name.startswith(FAULT_AREAS) or isinstance(record.event, ControlCommanded):
            who = "" if node is None else f"n{node} "
            self._note_fault(f"{at_s:>8.3f} s  {who}{' '.join(describe(record).split())}")

    def _take_of(self, record: Record, node: int, at_s: float) -> None:
        term = record.term or 0
        match record.event:
            case ElectionStarted() as stood:
                self.elections[stood.reason] += 1
            case LeaderElected():
                reign = self._reigns[node] = Reign(node, term, at_s)
                if len(self.reigns) < SHOWN_MAX:
                    self.reigns.append(reign)
                else:
                    self.reigns_left_out += 1
            case LeaderSteppedDown() as down:
                self._end_reign(node, at_s, down.reason)
            case NodeCrashed() as crashed:
                self._end_life(node, at_s, f"crashed: {crashed.reason}")
            case NodeStopped():
                self._end_life(node, at_s, "stopped")
            case NodeStarted():
                self._starts[node] += 1
            case _:
                self._take_entries(record, node, record.mono_s)

    def _take_entries(self, record: Record, node: int, now_s: float) -> None:
        match record.event:
            case EntriesAppended() as appended:
                _wait(self._stored, node, appended.last, now_s)
                if record.role == "leader":
                    _wait(self._committed, node, appended.last, now_s)
            case EntriesStored() as stored:
                for last, took_s in _end(self._stored, node, stored.last, now_s):
                    self.syncs.note(max(0.0, took_s))
                    slow = (took_s, node, last, record.time_s - (self.began_s or 0.0))
                    if len(self._slowest) < SLOWEST_MAX:
                        heapq.heappush(self._slowest, slow)
                    else:
                        heapq.heappushpop(self._slowest, slow)
            case EntriesCommitted() as committed:
                self.committed = max(self.committed, committed.last)
                if record.role == "leader":
                    for _, took_s in _end(self._committed, node, committed.last, now_s):
                        self.commits.note(max(0.0, took_s))
                    if node in self._reigns:
                        self._reigns[node].committed += committed.last - committed.first + 1
            case LogTruncated():
                self._stored.pop(node, None)
            case _:
                pass

    def _end_life(self, node: int, at_s: float, why: str) -> None:
        self._end_reign(node, at_s, why)
        self._stored.pop(node, None)
        self._ends.setdefault(node, Counter())[why] += 1

    def _end_reign(self, node: int, at_s: float, why: str) -> None:
        self._committed.pop(node, None)
        reign = self._reigns.pop(node, None)
        if reign is not None:
            reign.ended_s, reign.why = at_s, why

    def _break_off(self, at_s: float, why: str = "its process was killed") -> None:
        for node in (*self._reigns,):
            self._end_reign(node, at_s, why)
        self._stored.clear()

    def _note_fault(self, text: str) -> None:
        if len(self.faults) < SHOWN_MAX:
            self.faults.append(text)
        else:
            self.faults_left_out += 1

    def describe_reigns(self) -> list[str]:
        """Return who led, in a line each."""
        lines = []
        for reign in self.reigns:
            ended = "to the end" if reign.ended_s is None else f"to {reign.ended_s:.3f} s: {reign.why}"
            lines.append(
                f"n{reign.node} in term {reign.term}, {reign.committed:,} entries, from {reign.began_s:.3f} s {ended}"
            )
        return lines

    def describe_slowest(self) -> list[str]:
        """Return the slowest syncs, the slowest first."""
        return [
            f"{took_s * 1000:.1f} ms  n{node}, up to {last}, at {at_s:.3f} s"
            for took_s, node, last, at_s in sorted(self._slowest, reverse=True)
        ]

    def describe_lives(self) -> list[str]:
        """Return how often each node started, and why it ended."""
        return [
            f"n{node}: {times} started"
            + "".join(f", {ends} {why}" for why, ends in self._ends.get(node, Counter()).most_common())
            for node, times in sorted(self._starts.items())
        ]

    def members(self) -> dict[str, object]:
        """Return all of it, for programs."""
        return {
            "events": self.events,
            "runs": self.runs,
            "lost": self.lost,
            "lasted_s": round(self.lasted_s, 6),
            "committed": self.committed,
            "reigns": [attrs.asdict(reign) for reign in self.reigns],
            "reigns_left_out": self.reigns_left_out,
            "elections": dict(self.elections),
            "commits": _ranks(self.commits),
            "syncs": _ranks(self.syncs),
            "slowest_syncs": [
                {"ms": round(took_s * 1000, 3), "node": node, "last": last, "at_s": round(at_s, 6)}
                for took_s, node, last, at_s in sorted(self._slowest, reverse=True)
            ],
            "starts": {str(node): times for node, times in sorted(self._starts.items())},
            "ends": {str(node): dict(ends) for node, ends in sorted(self._ends.items())},
            "faults": self.faults,
            "faults_left_out": self.faults_left_out,
        }


def ranks_ms(latencies: Histogram) -> dict[str, float]:
    """Return percentiles by their names, in milliseconds; nothing if there are no latencies."""
    quantiles_s = {f"p{percent:g}": latencies.quantile(percent / 100) for percent in PERCENTILES}
    return {name: 1000 * value_s for name, value_s in quantiles_s.items() if value_s is not None}


def _ranks(latencies: Histogram) -> dict[str, float]:
    ranks = {f"{name}_ms": round(value_ms, 3) for name, value_ms in ranks_ms(latencies).items()}
    return {"count": latencies.count, **ranks}


def _wait(waiting: dict[int, Waiting], node: int, last: int, now_s: float) -> None:
    waiting.setdefault(node, deque(maxlen=WAITING_MAX)).append((last, now_s))


def _end(waiting: dict[int, Waiting], node: int, last: int, now_s: float) -> list[tuple[int, float]]:
    """Return (last index, how long it took) of what waited up to an index."""
    queue, ended = waiting.get(node, deque()), []
    while queue and queue[0][0] <= last:
        index, since_s = queue.popleft()
        ended.append((index, now_s - since_s))
    return ended
