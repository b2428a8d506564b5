"""Which events of a trace are asked for: one set of options for all commands that show some."""

import fnmatch
from collections.abc import Callable
from typing import Annotated, Literal

import attrs
from cyclopts import Parameter

from trio_kv.cli.errors import UsageError
from trio_kv.cli.parsing import option, read_number, read_whole
from trio_kv.raft.events import DEBUG, ERROR, INFO, WARNING
from trio_kv.trace.file import encode_line
from trio_kv.trace.schema import event_classes
from trio_kv.trace.trace import Record

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["perfetto", "mermaid", "shiviz", "csv"]
"""What a trace can be exported to."""
LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Selection:
    """What is to be seen of a trace."""

    node: Annotated[str | None, option("Of these nodes only, as 1,3.")] = None
    event: Annotated[str | None, option("Of these names only, as 'election.*,leader.*'.")] = None
    level: Annotated[Level | None, option("Of this level and above.")] = None
    time: Annotated[
        str | None, option("From so many seconds after its beginning to so many, as 3.5..10 or 60.. .")
    ] = None
    seq: Annotated[str | None, option("From one `seq` to another, as 100..250.")] = None
    grep: Annotated[str | None, option("Whose line holds this text, in capitals or not.")] = None

    def make_filter(self, level: Level = "debug") -> Callable[[Record], bool]:
        """Return what says whether a record is to be seen.

        Args:
            level: the lowest level where none is asked for.

        Raises:
            UsageError: an option can't be read.

        """
        tests: list[Callable[[Record], bool]] = []
        least = LEVELS[self.level or level]
        if least > DEBUG:
            tests.append(lambda record: type(record.event).level >= least)
        if self.node is not None:
            nodes = self._nodes(self.node)
            tests.append(lambda record: record.node in nodes)
        if self.event is not None:
            names = self._names(self.event)
            tests.append(lambda record: type(record.event).name in names)
        if self.time is not None:
            tests.append(_Window("--time", self.time, read_number))
        if self.seq is not None:
            first, last = _read_range("--seq", self.seq, read_whole)
            tests.append(lambda record: first <= record.seq <= last)
        if self.grep is not None:
            needle = self.grep.casefold()
            tests.append(lambda record: needle in encode_line(record).decode().casefold())
        return lambda record: all(test(record) for test in tests)

    @staticmethod
    def _nodes(text: str) -> set[int]:
        try:
            return {read_whole(word.strip().removeprefix("n")) for word in text.split(",")}
        except ValueError as error:
            raise UsageError(f"--node: {error}; several are written as 1,3") from error

    @staticmethod
    def _names(text: str) -> set[str]:
        names: set[str] = set()
        for pattern in (word.strip() for word in text.split(",")):
            found = fnmatch.filter(event_classes(), pattern)
            if not found:
                areas = ", ".join(sorted({name.partition(".")[0] for name in event_classes()}))
                raise UsageError(f"--event: no event is called {pattern!r}; there are those of {areas}")
            names.update(found)
        return names


class _Window:
    """Whether a record lies in a stretch of time, counted from the first record that it is asked of."""

    def __init__(self, name: str, text: str, read: Callable[[str], float]) -> None:
        self._first_s, self._last_s = _read_range(name, text, read)
        self._began_s: float | None = None

    def __call__(self, record: Record) -> bool:
        if self._began_s is None:
            self._began_s = record.time_s
        return self._first_s <= record.time_s - self._began_s <= self._last_s


def _read_range(name: str, text: str, read: Callable[[str], float]) -> tuple[float, float]:
    first, dots, last = text.partition("..")
    try:
        begin = read(first) if first else 0.0
        end = begin if not dots else read(last) if last else float("inf")
    except ValueError as error:
        raise UsageError(f"{name}: {error}; a range is written as 3..10") from error
    if end < begin:
        raise UsageError(f"{name} {text}: it ends before it begins")
    return begin, end


DEFAULT_SELECTION = Selection()
