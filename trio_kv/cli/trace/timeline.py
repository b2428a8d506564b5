"""`trace timeline`: what happened to each node, side by side where there is room, and one below the other elsewhere."""

import sys
from collections.abc import Iterator
from pathlib import Path

from trio_kv.cli.output import Output, show_json
from trio_kv.cli.terminal import has_color, open_console
from trio_kv.cli.trace.feed import Feed, Finding, is_heard
from trio_kv.cli.trace.selection import Selection
from trio_kv.raft.events import ERROR, WARNING, ElectionStarted, LeaderElected, LeaderSteppedDown
from trio_kv.trace.text import printable
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import ClusterStarted, NodeStarted
from trio_kv.trace.words import describe

TIME_COLUMNS = 10
CELL_COLUMNS_MIN = 18
"""Narrower columns say nothing: then all stand in one."""

_RESET, _BOLD, _DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
_GREEN, _YELLOW, _RED = "\x1b[32m", "\x1b[33m", "\x1b[31m"


def show_timeline(path: Path, selection: Selection, output: Output) -> Finding:
    """Print the events that are asked for, by node; those of level info and above, unless asked for more."""
    is_shown = selection.make_filter("info")
    timeline = _Timeline(open_console(sys.stdout).width, is_colored=has_color(sys.stdout))
    for record in Feed(path):
        timeline.note(record)
        if not is_shown(record):
            continue
        if output == "json":
            show_json({"at_s": timeline.at_s(record), "node": record.node, "what": describe(record)})
        else:
            for line in timeline.lines(record):
                print(line)
        if not is_heard():
            break
    return Finding.SOUND


class _Timeline:
    """Lays out records.

    Args:
        columns: of the terminal.
        is_colored: whether colours may be used.

    """

    def __init__(self, columns: int, *, is_colored: bool) -> None:
        self._columns = columns
        self._is_colored = is_colored
        self._nodes: tuple[int, ...] = ()
        self._began_s: float | None = None
        self._has_head = False

    def note(self, record: Record) -> None:
        """Learn which nodes there are, and when it began."""
        if self._began_s is None:
            self._began_s = record.time_s
        if isinstance(record.event, ClusterStarted) and record.event.nodes != self._nodes:
            self._nodes, self._has_head = record.event.nodes, False

    def at_s(self, record: Record) -> float:
        """Return when it was, in seconds from the beginning."""
        return round(record.time_s - (self._began_s or 0.0), 6)

    def lines(self, record: Record) -> Iterator[str]:
        """Yield the lines that show a record."""
        words = printable(" ".join(describe(record).split()))
        clock = f"{self.at_s(record):>{TIME_COLUMNS - 2}.3f}"
        width = (self._columns - TIME_COLUMNS) // max(1, len(self._nodes)) - 1
        if record.node is None:
            room = self._columns - TIME_COLUMNS - 4
            yield f"{self._paint(_DIM, clock)}  {self._paint(_BOLD, f'── {words}'[:room])}"
        elif width < CELL_COLUMNS_MIN or record.node not in self._nodes:
            yield f"{self._paint(_DIM, clock)}  n{record.node} {self._paint(_color(record), words)}"
        else:
            yield from self._head(width)
            yield from self._cells(record, clock, words, width)

    def _head(self, width: int) -> Iterator[str]:
        if not self._has_head:
            self._has_head = True
            names = "".join(f"{f'n{node}':<{width + 1}}" for node in self._nodes)
            yield self._paint(_BOLD, f"{'s':>{TIME_COLUMNS - 2}}  {names}".rstrip())

    def _cells(self, record: Record, clock: str, words: str, width: int) -> Iterator[str]:
        """Yield a line for each part of the words that fits into the node's column."""
        assert record.node is not None
        place = self._nodes.index(record.node)
        before = "".join(f"{'│':<{width + 1}}" for _ in range(place))
        for number, part in enumerate(_wrap(words, width)):
            time = clock if not number else " " * len(clock)
            yield f"{self._paint(_DIM, time)}  {self._paint(_DIM, before)}{self._paint(_color(record), part)}"

    def _paint(self, color: str, text: str) -> str:
        return f"{color}{text}{_RESET}" if self._is_colored and color and text else text


def _wrap(words: str, width: int) -> Iterator[str]:
    line = ""
    for word in words.split():
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = ""
        line = f"{line} {word}" if line else word
        while len(line) > width:
            yield line[:width]
            line = line[width:]
    yield line


def _color(record: Record) -> str:
    event = record.event
    if type(event).level >= ERROR:
        return _RED
    if type(event).level >= WARNING or isinstance(event, LeaderSteppedDown | ElectionStarted):
        return _YELLOW
    return _GREEN if isinstance(event, LeaderElected | NodeStarted) else ""
