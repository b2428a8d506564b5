"""What `top` shows of a frame: the leader, figures, a row a node, what is wrong, the latest events."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from trio_kv.cli.status import describe_fault
from trio_kv.cli.words import count
from trio_kv.trace.schema import COMMON_MEMBERS
from trio_kv.trace.text import printable_lines

EVENTS_MIN = 3
"""Lines of events on a terminal that is too low for all."""
_LEVEL_STYLES: Final = {"error": "red", "warning": "yellow"}


@attrs.frozen
class Look:
    """What is to be shown at a time."""

    frame: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    """The latest ones, oldest first."""
    missed: int = 0
    """How many events came in no frame that was sent."""
    gone: str = ""
    """Why there is nothing newer, if so."""


Node = Mapping[str, Any]


def _role(node: Node) -> str:
    return str(node["role"] or "-") if node["state"] == "up" else str(node["state"])


def _countdown(node: Node) -> str:
    left, whole = node["election_ms"], node["election_of_ms"]
    return "" if left is None else f"{left:>4}/{whole}"


def _disk(node: Node) -> str:
    disk = node["disk"]
    words = [word for word in ("full", "stalled", "failed") if disk[f"is_{word}"]]
    words += ["will fail"] if disk["will_fail"] else []
    words += [f"+{disk['delay_ms']:g} ms"] if disk["delay_ms"] else []
    return ", ".join(words) or "ok"


Column = tuple[str, Callable[[Node], object]]
_COLUMNS: Final[Mapping[str, Column]] = {
    "node": ("node", lambda node: f"n{node['node']}"),
    "role": ("role", _role),
    "term": ("term", lambda node: node["term"]),
    "stands": ("stands in ms", _countdown),
    "last": ("last", lambda node: node["last"]),
    "commit": ("commit", lambda node: node["commit"]),
    "applied": ("applied", lambda node: node["applied"]),
    "snapshot": ("snapshot", lambda node: "" if node["snapshot"] is None else node["snapshot"]),
    "digest": ("digest", lambda node: node["digest"]),
    "disk": ("disk", _disk),
}
_NUMBERS: Final = frozenset({"term", "stands", "last", "commit", "applied", "snapshot"})
LAYOUTS: Final = (
    ("node", "role", "term", "stands", "last", "commit", "applied", "snapshot", "digest", "disk"),
    ("node", "role", "term", "stands", "last", "commit", "applied", "disk"),
    ("node", "role", "term", "last", "commit", "applied"),
    ("node", "role", "term", "applied"),
)
"""Columns, the widest layout first: the first one that fits is shown, and the last one in any case."""


def show_look(look: Look, width: int, height: int | None = None) -> RenderableType:
    """Return what a terminal shows.

    Args:
        look: what there is.
        width: columns of the terminal.
        height: its lines; None: as many as it takes.

    """
    frame = look.frame
    above: list[RenderableType] = [
        Text(_headline(frame), style="bold"),
        Text(_rates(frame)),
        Text(""),
        _table(frame, width),
    ]
    wrong = [printable_lines(describe_fault(fault)) for fault in frame["faults"]]
    wrong += [
        printable_lines(f"n{node['node']}: {node['detail']}") for node in frame["nodes"] if node["detail"]
    ]
    above += [Text(line, style="yellow", no_wrap=True, overflow="ellipsis") for line in wrong]
    if look.gone:
        above.append(Text(printable_lines(look.gone), style="red"))
    events = list(look.events)
    if height is not None:
        used = len(frame["nodes"]) + len(above) + 4
        room = max(EVENTS_MIN, height - used)
        events = events[-room:]
    below: list[RenderableType] = [Text("")] if events or look.missed else []
    if look.missed:
        below.append(Text(f"{count(look.missed, 'event')} came too fast to be shown", style="dim"))
    below += [_event(event) for event in events]
    if height is not None:
        below.append(Text("q ends this", style="dim"))
    return Group(*above, *below)


def _headline(frame: Mapping[str, Any]) -> str:
    nodes = frame["nodes"]
    up = sum(node["state"] == "up" for node in nodes)
    leads = "no node leads" if frame["leader"] is None else f"n{frame['leader']} leads"
    return f"trio_kv {frame['time'][11:19]}  {leads} in term {frame['term']}, {up} of {count(len(nodes), 'node')} up"


def _rates(frame: Mapping[str, Any]) -> str:
    rates, clients = frame["rates"], frame["clients"]

    def kind(name: str) -> str:
        p50, p99 = rates[f"{name}_p50_ms"], rates[f"{name}_p99_ms"]
        how_long = "" if p50 is None else f" (p50 {p50:g} ms, p99 {p99:g} ms)"
        return f"{rates[f'{name}s_per_s']:,.0f} {name}s/s{how_long}"

    words = [kind("write"), kind("read")]
    words += [f"{rates['failed_per_s']:,.0f} failed/s"] if rates["failed_per_s"] else []
    words.append(count(clients["connections"], "client"))
    words += [count(clients["watches"], "watch", "watches")] if clients["watches"] else []
    return ", ".join(words)


def _table(frame: Mapping[str, Any], width: int) -> Table:
    console = Console(width=1000)
    tables = [_fill_table(layout, frame) for layout in LAYOUTS]
    return next((table for table in tables if console.measure(table).maximum <= width), tables[-1])


def _fill_table(layout: Sequence[str], frame: Mapping[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name in layout:
        table.add_column(_COLUMNS[name][0], justify="right" if name in _NUMBERS else "left", no_wrap=True)
    for node in frame["nodes"]:
        cells = [str(_COLUMNS[name][1](node)) for name in layout]
        is_leader = node["node"] == frame["leader"]
        cells[0] += "*" if is_leader else ""
        style = "bold" if is_leader else "" if node["state"] == "up" else "dim"
        table.add_row(*(Text(printable_lines(cell)) for cell in cells), style=style)
    return table


def _event(event: Mapping[str, Any]) -> Text:
    node = f"n{event['node']} " if event.get("node") else ""
    members = " ".join(
        f"{name}={value}"
        for name, value in event.items()
        if name not in COMMON_MEMBERS and value not in ("", None)
    )
    words = printable_lines(f"{event['time'][11:23]} {node}{event['event']} {members}").replace("\n", " ")
    return Text(words, style=_LEVEL_STYLES.get(event["level"], ""), no_wrap=True, overflow="ellipsis")
