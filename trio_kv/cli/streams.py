"""The process' standard streams, such that writing to them never fails.

What a command has done and whether somebody could be told of it are two things, and the exit code tells of the first.
So an output that is closed, full, or has lost its reader swallows what comes, and remembers why: at the end, `loss` is
what an exit code may be made of. A stream that was closed from the start becomes a null device: nobody wanted to hear,
and no socket or file of ours may get its number.
"""

import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

from trio_kv.cli.output import ExitCode, say
from trio_kv.trace.text import ESCAPED

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

STANDARD_DESCRIPTORS = (0, 1, 2)


class Sink(io.RawIOBase):
    """A descriptor that takes all that is written, and keeps the first error to itself.

    Args:
        descriptor: where to write to. It is not closed.

    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.loss: OSError | None = None
        """Why not all has arrived, if so."""
        self._descriptor = descriptor

    def writable(self) -> bool:
        """Return that it can be written to; see `io.RawIOBase`."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return os.isatty(self._descriptor)

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write some bytes; return how many. After an error nothing is tried any more."""
        view = memoryview(data)
        if self.loss is not None:
            return view.nbytes
        while True:
            try:
                return os.write(self._descriptor, view)
            except BlockingIOError:
                # Somebody who shares this terminal or pipe has made it non-blocking.
                select.select([], [self._descriptor], [])
            except OSError as error:
                self.loss = error
                return view.nbytes


class StandardStreams:
    """The standard streams of this process, replaced by such that never fail."""

    def __init__(self) -> None:
        """Replace them."""
        for descriptor in STANDARD_DESCRIPTORS:
            _ensure_open(descriptor)
        if sys.stdin is None:
            sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open, and has no path
        self._output, sys.stdout = _wrap(sys.stdout, 1)
        _, sys.stderr = _wrap(sys.stderr, 2)

    def end(self, code: int) -> int:
        """Write what waits, and return the exit code that the process deserves.

        Args:
            code: what became of the command.

        """
        sys.stdout.flush()
        loss = self._output.loss
        if code == ExitCode.OK and loss is not None and not isinstance(loss, BrokenPipeError):
            say(
                f"it is done, but what it came to could not be written: {(loss.strerror or str(loss)).lower()}"
            )
            code = ExitCode.NOT_TOLD
        sys.stderr.flush()
        return code


def _ensure_open(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        # The lowest number that is free is given, and those below are in use.
        opened = os.open(os.devnull, os.O_RDWR)
        assert opened == descriptor, (opened, descriptor)
        os.set_inheritable(opened, True)


def _wrap(stream: TextIO | None, descriptor: int) -> tuple[Sink, TextIO]:
    sink = Sink(descriptor if stream is None else stream.fileno())
    if stream is not None:
        stream.flush()
    text = io.TextIOWrapper(
        io.BufferedWriter(sink),
        encoding="utf-8" if stream is None else stream.encoding,
        # What the terminal's character set lacks is shown as a number, not refused.
        errors=ESCAPED,
        line_buffering=sink.isatty() or descriptor == 2,
        write_through=descriptor == 2,
    )
    return sink, text


def is_lost(stream: TextIO) -> bool:
    """Return whether what is written to a stream of `StandardStreams` arrives nowhere any more."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return isinstance(raw, Sink) and raw.loss is not None
