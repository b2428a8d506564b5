"""Progress bars: on stderr, for a person at a terminal, and for nobody else."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trio_kv.cli.terminal import is_terminal, open_console
from trio_kv.cli.words import count

BYTES_STEPS = frozenset({"check", "copy", "read", "import"})
"""Steps that count bytes."""
KEYS_STEPS = frozenset({"export"})
"""Steps that count keys; the others count nodes."""
LABELS = {
    "copy": "copying",
    "check": "checking",
    "sync": "making durable",
    "open": "opening",
    "read": "reading",
    "export": "exporting",
    "import": "importing",
}


@contextmanager
def show_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Give a function to be told what is being done, how much of it is done, and how much there is to do."""
    if not is_terminal(sys.stderr):
        yield lambda _step, _done, _total: None
        return
    from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:>14}"),
        BarColumn(),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=open_console(sys.stderr)) as progress:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = progress.add_task(LABELS[step], total=total, amount="")
            progress.update(tasks[step], completed=done, total=total, amount=_amount(step, done, total))

        yield show


def _amount(step: str, done: int, total: int) -> str:
    if step in BYTES_STEPS:
        return f"{show_bytes(done)} of {show_bytes(total)}"
    return f"{done:,} of {count(total, 'key')}" if step in KEYS_STEPS else f"node {done} of {total}"


def show_bytes(number: int) -> str:
    """Return a number of bytes as people say it.

    >>> show_bytes(999), show_bytes(1_234_567)
    ('999 bytes', '1.2 MB')
    """
    if number < 1000:
        return count(number, "byte")
    size = float(number)
    for unit in ("kB", "MB", "GB"):
        size /= 1000
        if size < 999.95:
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.1f} TB"
