"""Opens the dashboard in a browser, without showing its token to others.

What a browser is started with can be read by all users of a machine, as a list of processes. So it is started with a
file that its owner alone can read, and that leads to the page.
"""

import contextlib
import html
import os
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path

import trio

from trio_kv.cli.failures import explain_os_error
from trio_kv.cli.output import say

FILE_NAME = "dashboard.html"
DISPLAYS = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
"""One of these says that there is a browser to open. Else a browser for terminals may be found, and takes this one."""


async def open_page(address: str, directory: Path) -> None:
    """Open the page, and keep the file that leads to it until cancelled. What goes wrong is said, and nothing else.

    Args:
        address: of the page, with its token.
        directory: where the file may lie.

    """
    if not has_display(os.environ):
        say("there is no display to open the dashboard on: open its address yourself")
        return
    path = directory / FILE_NAME
    try:
        await trio.to_thread.run_sync(_write, path, address, abandon_on_cancel=True)
    except OSError as error:
        say(f"the dashboard can't be opened: {explain_os_error(error, str(path))}; open its address yourself")
        return
    try:
        is_open = await trio.to_thread.run_sync(_open, path.absolute().as_uri(), abandon_on_cancel=True)
        if not is_open:
            say("no browser was found: open the dashboard's address yourself")
        await trio.sleep_forever()
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def has_display(environ: Mapping[str, str]) -> bool:
    """Return whether there is a place to open a browser."""
    return sys.platform == "darwin" or any(environ.get(name) for name in DISPLAYS)


def _open(uri: str) -> bool:
    # This process may keep to one processor, and what it starts would do so as well.
    if hasattr(os, "sched_setaffinity"):
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, os.sched_getaffinity(os.getppid()))
    return webbrowser.open(uri)


def _write(path: Path, address: str) -> None:
    path.unlink(missing_ok=True)
    # With O_EXCL: a link that was put there is not followed.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        link = html.escape(address)
        file.write(
            f'<!doctype html><meta charset="utf-8"><title>trio_kv</title>'
            f'<meta http-equiv="refresh" content="0; url={link}"><a href="{link}">the dashboard</a>\n'
        )
