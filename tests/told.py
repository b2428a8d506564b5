"""Traces of simulated runs, as files hold them, for tests of what reads traces."""

from pathlib import Path

from trio_kv.sim.core_kind import KIND
from trio_kv.sim.world import World
from trio_kv.sim.worlds import Draw
from trio_kv.trace.file import encode_line, start_record
from trio_kv.trace.marks import TraceEnded
from trio_kv.trace.trace import Record

BEGAN_S = 1_800_000_000.0
"""When simulated runs begin, in seconds since 1970."""


class _Keeper:
    """Stands where the judges of events stand, and keeps what they would hear."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def hear(self, record: Record) -> None:
        self.records.append(record)


def run_core(seed: int, *kinds: str) -> list[Record]:
    """Run a seed of the core world with these kinds of faults; return its whole trace."""
    world = World(KIND.draw_plan(seed, Draw(kinds=kinds)), lambda _line: None)
    keeper = _Keeper()
    world.jury = keeper  # type: ignore[assignment]
    world.run()
    records = [start_record("0", time_s=0.0, mono_s=0.0), *keeper.records]
    last = records[-1]
    records.append(Record(last.time_s, last.mono_s, last.seq + 1, TraceEnded(0)))
    return [
        Record(BEGAN_S + each.time_s, each.mono_s, each.seq, each.event, each.node, each.term, each.role)
        for each in records
    ]


def write_trace(path: Path, records: list[Record]) -> Path:
    """Write a trace file."""
    path.write_bytes(b"".join(encode_line(record) for record in records))
    return path
