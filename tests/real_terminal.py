"""A command of ours on a terminal of its own."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable

WAIT_S = 60.0
HEEDING = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("trio_kv", run_name="__main__", alter_sys=True)
"""
"""A job in the background begins with Ctrl-C ignored, and hands that on: whoever is on a terminal heeds it."""


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "trio_kv", *words]


class Terminal:
    """A terminal, and what is shown on it."""

    def __init__(self, *words: str, **variables: str) -> None:
        self.shown = ""
        ours, theirs = pty.openpty()
        self._ours = ours
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "90", "LINES": "30", **variables}
        self.process = subprocess.Popen(
            [sys.executable, "-c", HEEDING, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environ,
            start_new_session=True,
        )
        os.close(theirs)

    def wait_until(self, is_so: Callable[[str], bool]) -> None:
        """Read until what was shown satisfies a condition."""
        deadline_s = time.monotonic() + WAIT_S
        while not is_so(self.shown):
            assert time.monotonic() < deadline_s, self.shown[-3000:]
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self._ours, 65536).decode(errors="replace")
                except OSError:  # the other side is closed
                    assert is_so(self.shown), self.shown[-3000:]
                    return

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
