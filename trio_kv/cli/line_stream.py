"""Standard streams that never block, for a process that must not wait for whoever reads its output: the server.

It prints little beside its log: the banner, why it could not start, warnings of Python. All of it goes to a thread.
"""

import atexit
import io
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TextIO, cast

from trio_kv.trace.lines import LineWriter, close_writers
from trio_kv.trace.text import ESCAPED


def unblock_output() -> None:
    """Give all that is printed in this process from now on to threads: nothing waits for its reader.

    What is not written at the exit is waited for, but not for long, and dropped. Nor is the process stopped, when it
    runs in the background, by a terminal that wants no output of it (`stty tostop`): it prints all the same.
    """
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    sys.stdout, sys.stderr = _unblock(sys.stdout), _unblock(sys.stderr)


def _unblock(stream: TextIO) -> TextIO:
    """Return a stream that never blocks; what has no descriptor, such as the buffer of a test, never does."""
    try:
        unblocked = LineStream(stream)
    except (OSError, ValueError):
        return stream
    atexit.register(unblocked.end)
    return cast("TextIO", unblocked)


class LineStream(io.TextIOBase):
    """A text stream that gives whole lines to a `LineWriter`.

    Args:
        stream: where they go in the end.

    Raises:
        OSError: the stream has no descriptor.
        ValueError: it is closed.

    """

    def __init__(self, stream: TextIO) -> None:
        """Begin empty; see the class."""
        # These come first: `flush` is called even for a stream whose making failed (from Python 3.13 on).
        self._lock = threading.Lock()
        self._line = ""
        descriptor = stream.fileno()
        self._descriptor = descriptor
        self._encoding = stream.encoding
        self.writer: LineWriter[str] = LineWriter(
            lambda: descriptor,
            lambda line: line.encode(self._encoding, ESCAPED),
            lambda gap: f"trio-kv: {gap.count} line{'s were' if gap.count > 1 else ' was'} lost here\n",
            name=f"output {descriptor}",
        )

    def write(self, text: str) -> int:
        """Take some text; lines that are whole go on."""
        with self._lock:
            whole, newline, self._line = (self._line + text).rpartition("\n")
            if newline:
                self.writer.put(whole + newline)
        return len(text)

    def flush(self) -> None:
        """Let go on what is no whole line yet."""
        with self._lock:
            line, self._line = self._line, ""
            if line:
                self.writer.put(line)

    def end(self) -> None:
        """Write what waits, but don't wait for long."""
        self.flush()
        close_writers(self.writer)

    def writable(self) -> bool:
        """Return that it is."""
        return True

    def isatty(self) -> bool:
        """Return whether it is a terminal in the end."""
        with suppress(OSError):
            return os.isatty(self._descriptor)
        return False

    def fileno(self) -> int:
        """Return the descriptor, to which whoever writes himself may have to wait."""
        return self._descriptor

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream behind."""
        return self._encoding
