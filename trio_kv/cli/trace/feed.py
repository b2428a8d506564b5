"""Records of a trace as commands take them: with a progress bar, and an error that is a finding of theirs."""

import sys
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

from trio_kv.cli.errors import UsageError
from trio_kv.cli.failures import explain_os_error
from trio_kv.cli.progress import show_progress
from trio_kv.trace.reading import TraceFormatError, TraceReader, open_trace
from trio_kv.trace.trace import Record

TOLD_EVERY = 4096
"""Records between two looks at the bar."""


class Finding(IntEnum):
    """The exit codes of `trace`."""

    SOUND = 0
    VIOLATED = 1
    UNKNOWN = 2
    """Nothing was proved: something is missing, or it is no trace; or the command line was wrong."""


class Feed:
    """Yields the records of a trace and shows how far it is.

    Args:
        path: of a file; `-` is the standard input.

    Raises, when iterated:
        UsageError: it can't be read, or is no trace.

    """

    def __init__(self, path: Path) -> None:
        """Open nothing yet; see the class."""
        self.path = path
        self.name = "stdin" if str(path) == "-" else str(path)
        self.line = 0
        """Number of the line of the latest record."""
        self.is_torn = False
        """Whether it ends inside a line."""

    def __iter__(self) -> Iterator[Record]:
        try:
            with open_trace(self.path) as reader:
                yield from self._read(reader)
                self.is_torn = reader.is_torn
        except OSError as error:
            raise UsageError(explain_os_error(error, self.name)) from error
        except EOFError as error:
            raise UsageError(f"{self.name}: it was packed, and its end is missing") from error
        except TraceFormatError as error:
            raise UsageError(f"this is no trace: {error}") from error

    def _read(self, reader: TraceReader) -> Iterator[Record]:
        total = reader.total_bytes
        if total is None:
            for record in reader:
                self.line = reader.line
                yield record
            return
        with show_progress() as show:
            for count, record in enumerate(reader):
                self.line = reader.line
                if not count % TOLD_EVERY:
                    show("read", reader.done_bytes, total)
                yield record
            show("read", total, total)


def is_heard() -> bool:
    """Return whether somebody still reads what goes to stdout: who has closed it wants no more."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return getattr(raw, "loss", None) is None
