"""`wal`: looks at the files of nodes that don't run, and explains them. Nothing is changed by it."""

from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
from cyclopts import App, Parameter

from trio_kv.cli.failures import explain_os_error
from trio_kv.cli.output import say, show, show_json
from trio_kv.cli.parsing import OutputOption
from trio_kv.cli.words import examples
from trio_kv.trace.text import printable_lines

if TYPE_CHECKING:
    from trio_kv.storage.inspect import Report


class Verdict(IntEnum):
    """The exit codes of `wal verify` and `wal dump`."""

    SOUND = 0
    TORN = 1
    USAGE = 2
    DAMAGED = 3
    UNKNOWN = 4
    """It can't be told: a server uses the directory, or it can't be read."""


EXIT_CODES = (
    "Exit codes: 0 sound · 1 torn (an interrupted write that was never acknowledged: the next start cuts it off) ·"
    " 2 usage · 3 damaged · 4 can't tell (in use, or not readable) · 70 an unexpected error · 74 sound, but the output"
    " could not be written."
)

app = App(
    name="wal",
    help="Look at the logs and snapshots of a stopped server.",
    help_format="plaintext",
    help_epilogue=examples("trio-kv wal verify trio_kv-data", more=EXIT_CODES),
)

Directory = Annotated[Path, Parameter(help="A data directory, or the directory of one node in it.")]


@app.command(
    help_epilogue=examples(
        "trio-kv wal verify trio_kv-data",
        "trio-kv wal verify trio_kv-data/node-2 --output json",
        more=EXIT_CODES,
    )
)
def verify(directory: Directory, /, *, output: OutputOption = "text") -> Verdict:
    """Read every byte that a start would read, compare every check, and explain what is found."""
    from trio_kv.storage import inspect
    from trio_kv.storage.errors import StorageError

    try:
        if not _is_ours(directory):
            return Verdict.USAGE
        report = inspect.verify(directory)
    except (StorageError, OSError) as error:
        return _refuse(directory, error)
    if output == "json":
        show_json(attrs.asdict(report))
    else:
        _show_report(report)
    return Verdict[report.state.upper()]


@app.command(
    help_epilogue=examples(
        "trio-kv wal dump trio_kv-data/node-2 | less",
        "trio-kv wal dump trio_kv-data/node-2 --output json | jq -c 'select(.kind == \"entry\")'",
        more=EXIT_CODES,
    )
)
def dump(directory: Directory, /, *, output: OutputOption = "text") -> Verdict:
    """Print every record of the logs, and what the snapshots are, one line each, with file and offset."""
    from trio_kv.storage import inspect
    from trio_kv.storage.errors import StorageError

    verdict = Verdict.SOUND
    try:
        if not _is_ours(directory):
            return Verdict.USAGE
        for line in inspect.dump(directory):
            verdict = max(verdict, _VERDICT_OF_KIND.get(line.kind, Verdict.SOUND))
            if output == "json":
                show_json(attrs.asdict(line))
            else:
                text = f"{_short(line.file, directory)} {line.offset:>9}  {line.kind:<10} {line.text}"
                print(printable_lines(text))
    except (StorageError, OSError) as error:
        return _refuse(directory, error)
    return verdict


_VERDICT_OF_KIND = {"torn": Verdict.TORN, "damaged": Verdict.DAMAGED}


def _is_ours(directory: Path) -> bool:
    """Return whether this is a data directory or one of a node; say so if it is neither.

    Raises:
        OSError: it can't be looked at.

    """
    from trio_kv.storage.manifest import IDENTITY_NAME, MANIFEST_NAME

    marks = (directory / MANIFEST_NAME, directory / IDENTITY_NAME, directory.resolve().parent / MANIFEST_NAME)
    if directory.is_dir() and any(mark.exists() for mark in marks):
        return True
    what = "is no data directory, and none of a node" if directory.is_dir() else "is no directory"
    say(f"{directory} {what}: name one, such as trio_kv-data or trio_kv-data/node-2")
    return False


def _short(file: str, directory: Path) -> str:
    """Return a file's path below the directory that was asked for."""
    path, below = Path(file).resolve(), directory.resolve()
    return str(path.relative_to(below)) if path.is_relative_to(below) else str(path)


def _refuse(directory: Path, error: Exception) -> Verdict:
    """Say why nothing can be told."""
    say(explain_os_error(error, directory) if isinstance(error, OSError) else str(error))
    return Verdict.UNKNOWN


def _show_report(report: "Report") -> None:
    for node in report.nodes:
        print(f"node {node.node}: {node.state}")
        show("\n".join(f"  {line}" for line in node.explanation.splitlines()))
    if len(report.nodes) > 1:
        show(f"{report.path}: {report.state}")
