"""`trace export` and `trace merge`: traces as other programs take them, to stdout or into a file."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from trio_kv.cli.errors import NotDoneError, UsageError
from trio_kv.cli.failures import explain_os_error
from trio_kv.cli.terminal import is_terminal
from trio_kv.cli.trace.feed import Feed, Finding, is_heard
from trio_kv.cli.trace.selection import Format, Level, Selection
from trio_kv.trace.export.mermaid import export_mermaid
from trio_kv.trace.export.perfetto import export_perfetto
from trio_kv.trace.export.shiviz import export_shiviz
from trio_kv.trace.export.tables import export_csv
from trio_kv.trace.file import encode_line
from trio_kv.trace.merge import merge_traces
from trio_kv.trace.trace import Record

Exporter = Callable[[Iterable[Record], Callable[[Record], bool]], Iterator[str]]

EXPORTERS: dict[Format, tuple[Exporter, Level]] = {
    "perfetto": (export_perfetto, "debug"),
    "mermaid": (export_mermaid, "info"),
    "shiviz": (export_shiviz, "debug"),
    "csv": (export_csv, "debug"),
}
"""What makes each format, and the lowest level that is shown where none is asked for."""


def export(path: Path, kind: Format, to: Path | None, selection: Selection) -> Finding:
    """Write a trace in a format."""
    exporter, level = EXPORTERS[kind]
    is_shown = selection.make_filter(level)
    _write((text.encode() for text in exporter(Feed(path), is_shown)), to)
    return Finding.SOUND


def merge(paths: Sequence[Path], to: Path | None) -> Finding:
    """Write one trace of several."""
    if len(paths) < 2:
        raise UsageError("one trace is merged already: name those of all processes")
    if [str(path) for path in paths].count("-") > 1:
        raise UsageError("stdin is one trace: name - once")
    _write(map(encode_line, merge_traces([Feed(path) for path in paths])), to)
    return Finding.SOUND


def _write(pieces: Iterable[bytes], to: Path | None) -> None:
    if to is None:
        _write_stdout(pieces)
        return
    with _new_file(to) as file:
        for piece in pieces:
            try:
                file.write(piece)
            except OSError as error:
                raise NotDoneError(explain_os_error(error, to)) from error


def _write_stdout(pieces: Iterable[bytes]) -> None:
    if sys.stdout is None:
        return
    if is_terminal(sys.stdout):
        raise UsageError("this is for a program, not for a terminal: name a file with --to, or use a pipe")
    for piece in pieces:
        sys.stdout.buffer.write(piece)
        if not is_heard():
            return


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that must not be there yet; remove it again if it does not come to its end."""
    try:
        file = path.open("xb")
    except FileExistsError as error:
        raise UsageError(f"{path} is there already: name another file, or remove it") from error
    except OSError as error:
        raise NotDoneError(explain_os_error(error, path)) from error
    with file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise
