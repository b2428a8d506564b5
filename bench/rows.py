"""What `bench/run.py` measures: rows of loads, on whom, and which of them are compared.

A subject is a store with a load; its label begins with the store's name and how many nodes it has: `trio_kv-5`. Within
a row the subjects are measured in turn, as often as there are pairs, and a ratio is that of two slices of one turn.
"""

from dataclasses import dataclass, replace

from systems import Point

MIX = "half SET, half GET"
TENTH = "1 in 10 SET"


@dataclass(frozen=True)
class Subject:
    """A store, and its load. Of several loads the fastest counts."""

    label: str
    points: tuple[Point, ...]
    entries: int = 0
    """Writes before anything is measured."""


@dataclass(frozen=True)
class Row:
    """One load on several stores."""

    name: str
    title: str
    subjects: tuple[Subject, ...]
    ratios: tuple[tuple[str, str], ...]
    metric: str = "per_second"
    group: str = "speed"
    kind: str = "load"


STORES = (
    "trio_kv-5",
    "trio_kv-5x1",
    "trio_kv-5x2",
    "floor-5",
    "base-5",
    "trio_kv-3",
    "floor-3",
    "etcd-3",
    "base-3",
    "pysyncobj-3",
    "trio_kv-1",
)
SPREADS = ("trio_kv-5x1", "trio_kv-5x2")
"""Of five nodes in so many processes, each of which keeps to a processor of its own."""
RATIOS = (
    ("trio_kv-5", "floor-5"),
    ("trio_kv-3", "floor-3"),
    ("trio_kv-3", "etcd-3"),
    ("trio_kv-3", "pysyncobj-3"),
    ("trio_kv-5", "base-5"),
    ("trio_kv-3", "base-3"),
)
ETCD_CLIENTS = (64, 256)
"""Without a pipeline, etcd is asked with so many calls at a time; its best counts."""


def _row(name: str, title: str, point: Point, metric: str = "per_second") -> Row:
    stores = [store for store in STORES if point.mix == 100 or not store.startswith("pysyncobj")]
    for spread in SPREADS:
        stores.remove(spread)
    subjects = [Subject(store, (point,)) for store in stores if not store.startswith("etcd")]
    if point.pipeline == 1:
        # A thousand clients of etcd share a hundred connections, as its makers have published it.
        connections = min(point.connections, 100) if point.connections >= 1000 else point.connections
        etcd = Subject("etcd-3", (replace(point, connections=connections, calls=point.connections),))
        return Row(name, title, _in_order([*subjects, etcd]), RATIOS, metric)
    bests = tuple(replace(point, connections=each, pipeline=1) for each in ETCD_CLIENTS)
    calls = point.connections * point.pipeline
    many = Subject(f"etcd-3 ({calls:,} calls)", (replace(point, calls=calls),))
    best = Subject("etcd-3", bests)
    ratios = (*RATIOS, ("trio_kv-3", many.label))
    return Row(
        name,
        f"{title}; etcd: the best of 64 and 256 calls",
        _in_order([*subjects, best, many]),
        ratios,
        metric,
    )


def _in_order(subjects: list[Subject]) -> tuple[Subject, ...]:
    return tuple(sorted(subjects, key=lambda subject: STORES.index(subject.label.partition(" ")[0])))


def _growth(name: str, title: str, small: Subject, large: Subject, metric: str = "per_second") -> Row:
    return Row(name, title, (small, large), ((large.label, small.label),), metric, group="growth")


def _in_processes(name: str, title: str, point: Point, metric: str = "per_second") -> Row:
    """Return a load on five nodes in one process, in one that keeps to a processor, and in two of these."""
    subjects = tuple(Subject(each, (point,)) for each in ("trio_kv-5", *SPREADS))
    ratios = tuple((each, "trio_kv-5") for each in SPREADS)
    return Row(f"processes-{name}", title, subjects, ratios, metric, group="processes")


PROCESSES_ROWS = [
    _in_processes("set", "SET, 64 x 1", Point()),
    _in_processes("mix", f"{MIX}, 64 x 1", Point(mix=50)),
    _in_processes("get", "GET, linearizable, 64 x 1", Point(mix=0)),
    _in_processes("set-pipeline", "SET, 64 x 16", Point(pipeline=16)),
    _in_processes("set-one", "SET, one client, p50", Point(connections=1), "p50_ms"),
]
"""What a second process brings on this machine, or costs."""


def _growth_rows(entries: int, keys: int) -> list[Row]:
    """Return what tells how cost grows; the arguments are those of `make_rows`."""
    mixed = Point(mix=50)
    large_value = Point(mix=50, connections=16, keys=64, value_bytes=1_048_000)
    return [
        _growth(
            "keys",
            f"{MIX}, 64 x 1: {keys:,} keys, and 10,000",
            Subject("trio_kv-5", (mixed,)),
            Subject(f"trio_kv-5 ({keys:,} keys)", (replace(mixed, keys=keys),)),
        ),
        _growth(
            "nodes",
            f"{MIX}, 64 x 1: 9 nodes, and 3",
            Subject("trio_kv-3", (mixed,)),
            Subject("trio_kv-9", (mixed,)),
        ),
        _growth(
            "connections",
            f"{MIX}: 2,000 x 1, and 64 x 1",
            Subject("trio_kv-5", (mixed,)),
            Subject("trio_kv-5 (2,000 connections)", (replace(mixed, connections=2000),)),
        ),
        _growth(
            "watchers",
            "SET, 64 x 1: 1,000 clients that watch all keys, and none",
            Subject("trio_kv-5", (Point(),)),
            Subject("trio_kv-5 (1,000 watchers)", (Point(watchers=1000),)),
        ),
        _growth(
            "values",
            f"{MIX}, 16 x 1: values of 1 MiB, and of 64 KiB",
            Subject("trio_kv-5", (replace(large_value, value_bytes=65_536),)),
            Subject("trio_kv-5 (1 MiB)", (large_value,)),
            "mib_per_second",
        ),
        _growth(
            "entries",
            f"{MIX}, 64 x 1: after {entries:,} entries, and new",
            Subject("trio_kv-5", (mixed,)),
            Subject(f"trio_kv-5 ({entries:,} entries)", (mixed,), entries),
        ),
    ]


def make_rows(entries: int, keys: int) -> list[Row]:
    """Return all rows.

    Args:
        entries: of the log that is long.
        keys: of the store that is large.

    """
    return [
        _row("mix", f"{MIX}, 64 x 1", Point(mix=50)),
        _row("tenth", f"{TENTH}, 64 x 1", Point(mix=10)),
        _row("tenth-pipeline", f"{TENTH}, 64 x 16", Point(mix=10, pipeline=16)),
        _row("set", "SET, 64 x 1", Point()),
        _row("set-256", "SET, 256 x 1", Point(connections=256)),
        _row("set-1000", "SET, 1,000 x 1", Point(connections=1000)),
        _row("set-pipeline", "SET, 64 x 16", Point(pipeline=16)),
        _row("get", "GET, linearizable, 64 x 1", Point(mix=0)),
        _row("get-stale", "GET, stale (etcd: serializable), 64 x 16", Point(mix=0, stale=True, pipeline=16)),
        _row("set-one", "SET, one client, p50", Point(connections=1), "p50_ms"),
        Row(
            "failover",
            "longest time without a write, after the leader is killed (etcd: kill -9 of its process)",
            tuple(
                Subject(each, (Point(connections=16),))
                for each in ("trio_kv-3", "etcd-3", "trio_kv-5", "base-3")
            ),
            (("trio_kv-3", "etcd-3"), ("trio_kv-3", "base-3")),
            "longest_gap_ms",
            kind="failover",
        ),
        Row(
            "memory",
            f"{keys:,} keys of 100 bytes, 5 nodes, resident memory after a restart, MiB",
            (Subject("trio_kv-5", (Point(keys=keys),)), Subject("base-5", (Point(keys=keys),))),
            (("trio_kv-5", "base-5"),),
            "restarted_mib",
            group="memory",
            kind="memory",
        ),
        *_growth_rows(entries, keys),
        *PROCESSES_ROWS,
    ]
