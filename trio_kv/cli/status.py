"""`status`: the nodes as a table that fits the terminal; below it, in words, what is wrong and what ends it."""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from trio_kv.cli.output import ExitCode, Output, show_json
from trio_kv.cli.terminal import open_console
from trio_kv.cli.words import join
from trio_kv.trace.text import printable_lines

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Row = Mapping[str, Any]


def _state(row: Row) -> object:
    """Return the role of a node that is up, else what it is instead."""
    return row.get("role") if row.get("state") == "up" else row.get("state")


def _log(row: Row) -> object:
    return f"{row.get('log_first')}-{row.get('log_last')}"


def _member(name: str) -> tuple[str, Callable[[Row], object]]:
    return name, lambda row: row.get(name)


_NUMBERS = frozenset({"term", "commit", "applied", "log_first", "log_last", "log"})
_LINK_NUMBERS = frozenset({"rtt ms", "connects", "sent", "received", "lost"})
_NODE, _TERM, _APPLIED, _DIGEST = _member("node"), _member("term"), _member("applied"), _member("digest")
_COMMIT = _member("commit")
LAYOUTS: Final[Sequence[Sequence[tuple[str, Callable[[Row], object]]]]] = (
    (
        *(_NODE, _member("role"), _member("state"), _TERM, _COMMIT, _APPLIED),
        *(_member("log_first"), _member("log_last"), _DIGEST),
    ),
    (_NODE, ("state", _state), _TERM, _COMMIT, _APPLIED, ("log", _log), _DIGEST),
    (_NODE, ("state", _state), _TERM, _APPLIED, _DIGEST),
)
"""Columns, the widest layout first: the first one that fits is shown, and if none does, a line for each number."""

WAYS_OUT: Final = {
    "paused": "trio-kv ctl resume {node}",
    "stopped": "trio-kv ctl restart {node}",
    "needs_rebuild": "trio-kv ctl rebuild {node}",
}
"""What brings a node back that is in such a state. One that crashed comes back by itself; of one whose files are
damaged, the reason says what to do."""


FAULTS: Final[Mapping[object, str]] = {
    "partition": "partitioned, {sides}: no message passes between the groups; `trio-kv ctl heal` ends it",
    "delay": "delayed: each message between nodes takes {ms:g} ms longer; `trio-kv ctl delay 0` ends it",
    "drop": "dropped: {percent:g} % of the messages between nodes; `trio-kv ctl drop 0` ends it",
    "duplicate": "duplicated: {percent:g} % of the messages between nodes; `trio-kv ctl heal` ends it",
    "reorder": "reordered: messages between nodes come up to {ms:g} ms late; `trio-kv ctl heal` ends it",
    "slow-disk": "n{node} has a slow disk: a sync takes {ms:g} ms longer; `trio-kv ctl slow-disk {node} 0` ends it",
    "stall-disk": "n{node} has a disk that is made to stand still; `trio-kv ctl heal-disk {node}` ends it",
    "fill-disk": "n{node} has a disk that is made full; `trio-kv ctl heal-disk {node}` ends it",
    "fail-disk": "n{node} has a disk that will fail its next write; `trio-kv ctl restart {node}` ends it",
    "full-disk": "n{node} has a full disk: make room there, and it goes on by itself",
    "clock": "n{node} has a clock that runs {rate:g} times as fast, until the server is started again",
}
"""Each kind of fault that the status reply names, in words with its members."""

_ENDS = "; `trio-kv ctl heal {link[0]}-{link[1]}` ends it"
LINK_FAULTS: Final[Mapping[object, str]] = {
    "cut": "cut, {link[0]}-{link[1]}: no message passes between these two" + _ENDS,
    "delay": "delayed, {link[0]}-{link[1]}: a message between these two takes {ms:g} ms longer" + _ENDS,
    "drop": "dropped, {link[0]}-{link[1]}: {percent:g} % of the messages between these two" + _ENDS,
    "duplicate": "duplicated, {link[0]}-{link[1]}: {percent:g} % of the messages between these two" + _ENDS,
    "reorder": "reordered, {link[0]}-{link[1]}: messages between these two come up to {ms:g} ms late" + _ENDS,
}
"""The same for faults of one link."""


def show_status(members: Mapping[str, Any], output: Output) -> ExitCode:
    """Print the cluster's status and return the exit code: NOT_CONNECTED without a leader.

    Args:
        members: of the status reply.
        output: as a table with the leader marked by a star, or as JSON.

    """
    if output == "json":
        show_json(members)
    else:
        _show_for_people(members)
    return ExitCode.NOT_CONNECTED if members.get("leader") is None else ExitCode.OK


LINK_COLUMNS: Final[Sequence[tuple[str, Callable[[Row], object]]]] = (
    *(_member("from"), _member("to"), _member("state"), ("rtt ms", lambda row: row.get("round_trip_ms"))),
    *(_member("connects"), ("sent", lambda row: f"{row.get('bytes_sent'):,}")),
    *(
        ("received", lambda row: f"{row.get('bytes_received'):,}"),
        ("lost", lambda row: row.get("messages_lost")),
    ),
)


def show_links(reply: Mapping[str, Any], output: Output) -> ExitCode:
    """Show how processes, or hosts, reach one another."""
    if output == "json":
        show_json(reply)
        return ExitCode.OK
    console, rows = open_console(sys.stdout), reply.get("links", [])
    if not rows:
        console.print("there are no links: all nodes run in one process", markup=False)
        return ExitCode.OK
    console.print(_table(LINK_COLUMNS, rows, None))
    for row in rows:
        if row.get("reason"):
            text = f"{row.get('from')} to {row.get('to')}: {row.get('reason')}"
            console.print(printable_lines(text), markup=False)
    return ExitCode.OK


def describe_fault(fault: Mapping[str, Any]) -> str:
    """Return an active fault in plain words, with the command that ends it."""
    try:
        sides = "/".join(",".join(map(str, group)) for group in fault.get("groups", ()))
        words = FAULTS[fault["fault"]] if "link" not in fault else LINK_FAULTS[fault["fault"]]
        return words.format(**fault, sides=sides)
    except (LookupError, TypeError, ValueError):
        # A newer server may know more faults than we do, or other members of them.
        return msgspec.json.encode(fault).decode()


def _show_for_people(members: Mapping[str, Any]) -> None:
    console = open_console(sys.stdout)
    leader, rows = members.get("leader"), members.get("nodes", [])
    _show_rows(console, rows, leader)

    def put(text: str) -> None:
        console.print(printable_lines(text), markup=False)

    for row in rows:
        node, way_out = row["node"], WAYS_OUT.get(str(row.get("state")))
        reason = row.get("reason") or (f"it is {row.get('state')}" if way_out else "")
        if reason:
            put(f"n{node}: {reason}" + (f"; `{way_out.format(node=node)}` brings it back" if way_out else ""))
    for fault in members.get("faults", []):
        put(describe_fault(fault))
    put(_describe_leader(leader, rows, members.get("term")))


def _describe_leader(leader: int | None, rows: Sequence[Row], term: object) -> str:
    if leader is not None:
        return f"n{leader} leads in term {term}"
    down = [f"n{row['node']}" for row in rows if row.get("state") != "up"]
    why = f": {join(down)} {'is' if len(down) == 1 else 'are'} not up" if down else ""
    return f"no leader in term {term}{why}"


def _show_rows(console: "Console", rows: Sequence[Row], leader: int | None) -> None:
    unlimited = console.options.update(max_width=sys.maxsize)
    for layout in LAYOUTS:
        table = _table(layout, rows, leader)
        if console.measure(table, options=unlimited).maximum <= console.width:
            console.print(table)
            return
    for row in rows:
        star = "*" if row.get("node") == leader else ""
        console.print(f"n{row.get('node')}{star} {_state(row)}", markup=False)
        for name in ("term", "applied", "digest"):
            console.print(f"   {name} {row.get(name)}", markup=False)


def _table(
    layout: Sequence[tuple[str, Callable[[Row], object]]], rows: Sequence[Row], leader: int | None
) -> "Table":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for name, _ in layout:
        table.add_column(name, justify="right" if name in _NUMBERS | _LINK_NUMBERS else "left", no_wrap=True)
    for row in rows:
        is_leader = leader is not None and row.get("node") == leader
        values = [value(row) for _, value in layout]
        cells = ["" if value is None else str(value) for value in values]
        cells[0] += "*" if is_leader else ""
        table.add_row(*cells, style="bold" if is_leader else "dim" if row.get("state") != "up" else "")
    return table
