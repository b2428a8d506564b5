"""What is a terminal, and the conventions that terminals have.

One place for all commands. Colours: NO_COLOR, else FORCE_COLOR, else no colour in a terminal that is `dumb`, with
CLICOLOR=0, or in what is no terminal.
"""

import os
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

PIPE_COLUMNS = 200
"""Width of what goes elsewhere than to a terminal: a row must stay a line, however long, with the same columns."""


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
    # A terminal that is "dumb" has a width all the same. Rich would not ask for it, and takes only both or none.
    columns, lines = shutil.get_terminal_size() if is_a_terminal else (PIPE_COLUMNS, 24)
    return Console(
        file=stream,
        highlight=False,
        width=columns,
        height=lines,
        # Rich would take FORCE_COLOR for a terminal, and draw bars into a pipe.
        force_terminal=is_a_terminal,
        color_system=None if not has_color(stream) else "auto" if is_a_terminal else "standard",
    )
