"""`trace show`: events, one a line, as the console shows them or as they stand in the file."""

import sys
from pathlib import Path

from trio_kv.cli.output import Output, show
from trio_kv.cli.terminal import has_color
from trio_kv.cli.trace.feed import Feed, Finding, is_heard
from trio_kv.cli.trace.selection import Selection
from trio_kv.trace.file import encode_line
from trio_kv.trace.log import render_console


def show_events(path: Path, selection: Selection, output: Output) -> Finding:
    """Print the events that are asked for."""
    is_shown, colored = selection.make_filter(), has_color(sys.stdout)
    for record in Feed(path):
        if is_shown(record):
            if output == "json":
                show(encode_line(record).decode(), end="")
            else:
                # It holds nothing that a terminal would obey but its own colours.
                print(render_console(record, has_color=colored))
            if not is_heard():
                break
    return Finding.SOUND
