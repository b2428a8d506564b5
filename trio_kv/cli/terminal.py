"""The standard streams: what they may be (closed, not UTF-8, a terminal), and the conventions they follow.

One place for all commands. Colours: NO_COLOR, else FORCE_COLOR, else no colour in a terminal that is `dumb`, with
CLICOLOR=0, or in what is no terminal.
"""

import io
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from trio_kv.trace.text import ESCAPED

if TYPE_CHECKING:
    from rich.console import Console

PIPE_COLUMNS = 200
"""Width of what goes elsewhere than to a terminal: a row must stay a line, however long."""


def set_up_streams() -> None:
    """Make the standard streams usable, whatever they are. To be called before anything else is opened.

    One that is closed becomes /dev/null: else the next file or connection would get its number, and then our messages.
    What the encoding of stdout or stderr lacks is written as an escape, and never an error.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPED)


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is a terminal; one that is closed is none."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def has_color(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether to use colours, and other marks that take escape sequences, on a stream."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and environ.get("TERM") != "dumb" and environ.get("CLICOLOR") != "0"


def open_console(stream: TextIO) -> "Console":
    """Return what draws tables and bars on a stream, by the conventions of this module."""
    from rich.console import Console

    is_a_terminal = is_terminal(stream)
    return Console(
        file=stream,
        highlight=False,
        width=None if is_a_terminal else PIPE_COLUMNS,
        # Rich would take FORCE_COLOR for a terminal, and draw bars into a pipe.
        force_terminal=is_a_terminal,
        color_system=None if not has_color(stream) else "auto" if is_a_terminal else "standard",
    )
