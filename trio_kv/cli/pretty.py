"""JSON for people at a terminal: objects that don't fit into a line over several, and in colours.

The colours are of the sixteen that every terminal has and its owner has chosen, and of these only such as can be read
on a dark and on a light background; the text itself stays in the terminal's own.
"""

import sys
from typing import Final

import msgspec

from trio_kv.cli.output import show_value
from trio_kv.cli.terminal import has_color, open_console
from trio_kv.trace.text import printable_json

STYLES: Final = {
    "json.key": "bold",
    "json.str": "green",
    "json.number": "magenta",
    "json.bool_true": "magenta",
    "json.bool_false": "magenta",
    "json.null": "magenta",
    "json.brace": "default",
}
INDENT: Final = 2


def show_pretty(value: msgspec.Raw) -> None:
    """Print a value: a string as `show_value` has it, all else with every digit that it has."""
    from rich.highlighter import JSONHighlighter
    from rich.text import Text
    from rich.theme import Theme

    console = open_console(sys.stdout)
    line = show_value(value)
    is_container = bytes(value)[:1] in (b"{", b"[")
    if is_container and len(line) > console.width:
        line = printable_json(msgspec.json.format(bytes(value), indent=INDENT).decode())
    is_json = bytes(value)[:1] != b'"'
    text = Text(line)
    if is_json and has_color(sys.stdout):
        JSONHighlighter().highlight(text)
    with console.use_theme(Theme(STYLES)):
        console.print(text, soft_wrap=True)
