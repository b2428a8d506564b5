"""How `top` goes on: frames come, some are shown, a key or a signal ends it."""

import contextlib
import os
import select
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import attrs
from rich.console import ConsoleDimensions
from rich.live import Live

from trio_kv.cli.control import DoorOptions
from trio_kv.cli.output import ExitCode, say, show_json
from trio_kv.cli.streams import is_lost
from trio_kv.cli.terminal import is_terminal, open_console
from trio_kv.cli.top_view import Look, show_look
from trio_kv.client import control as client

SCREEN_INTERVAL_S = 0.25
LINES_INTERVAL_S = 1.0
RETRY_S = 1.0
"""How long it waits for a server that is gone before it looks for it again."""
EVENTS_KEPT = 200
"""More than a screen has lines."""


def run(door: DoorOptions, *, interval_s: float | None, count: int) -> ExitCode:
    """Show frames until there are enough, or nobody looks any more; return the exit code.

    Args:
        door: where they come from.
        interval_s: the time between two of them; None: as suits the output.
        count: how many to show; 0: no end.

    """
    is_screen = door.output != "json" and count == 0 and is_terminal(sys.stdout)
    if interval_s is None:
        interval_s = SCREEN_INTERVAL_S if is_screen else LINES_INTERVAL_S
    try:
        return _fill_screen(door, interval_s) if is_screen else _print(door, interval_s, count)
    except client.NoDoorError as error:
        say(str(error))
        return ExitCode.NOT_CONNECTED


def _looks(door: DoorOptions, interval_s: float) -> Iterator[Look]:
    """Yield what is to be shown: a frame now and then, with the events of all between. Raises NoDoorError."""
    events: deque[dict[str, Any]] = deque(maxlen=EVENTS_KEPT)
    missed = 0
    total: int | None = None
    at = time.monotonic()
    found = client.find_door(door.data_dir, door.control_port)
    for frame in client.frames(found, timeout_s=door.timeout_s, tls=door.tls()):
        # What a frame has in it that did not come is told as missed.
        missed += frame["events_left_out"]
        if total is not None:
            missed += frame["events_total"] - total - len(frame["events"]) - frame["events_left_out"]
        total = frame["events_total"]
        events.extend(frame["events"])
        if time.monotonic() >= at:
            at = max(at + interval_s, time.monotonic())
            yield Look(frame, list(events), missed)


def _print(door: DoorOptions, interval_s: float, count: int) -> ExitCode:
    """Print looks as lines, each with the events since the one before. Raises NoDoorError."""
    console = open_console(sys.stdout)
    seen = 0
    for shown, look in enumerate(_looks(door, interval_s), 1):
        if door.output == "json":
            show_json(look.frame)
        else:
            fresh = [event for event in look.events if event["seq"] > seen]
            console.print(show_look(attrs.evolve(look, events=fresh), console.width))
            seen = max([seen, *(event["seq"] for event in fresh)])
        sys.stdout.flush()
        if shown == count or is_lost(sys.stdout):
            break
    return ExitCode.OK


def _fill_screen(door: DoorOptions, interval_s: float) -> ExitCode:
    """Show looks in the place of one another, until q or Ctrl-C. Raises NoDoorError if there is no server at first."""
    console = open_console(sys.stdout)
    looks = _lasting_looks(door, interval_s)
    with contextlib.suppress(KeyboardInterrupt), _keys() as pressed:
        look = next(looks)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while "q" not in pressed() and not is_lost(sys.stdout):
                # A terminal may change its size.
                width, height = console.size = ConsoleDimensions(*shutil.get_terminal_size())
                live.update(show_look(look, width, height), refresh=True)
                look = next(looks)
    return ExitCode.OK


def _lasting_looks(door: DoorOptions, interval_s: float) -> Iterator[Look]:
    """Yield looks, and what was seen last with a word as long as the server is gone. Raises NoDoorError at first."""
    last: Look | None = None
    while True:
        try:
            for look in _looks(door, interval_s):
                last = look
                yield look
        except client.NoDoorError as error:
            if last is None:
                raise
            yield attrs.evolve(last, gone=str(error))
            time.sleep(RETRY_S)


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """Give a function that returns the keys pressed since it was called last; the terminal is as before at the end."""
    if not is_terminal(sys.stdin):
        yield lambda: ""
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def pressed() -> str:
        if not select.select([descriptor], [], [], 0)[0]:
            return ""
        return os.read(descriptor, 1024).decode(errors="replace")

    try:
        tty.setcbreak(descriptor)
        yield pressed
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
