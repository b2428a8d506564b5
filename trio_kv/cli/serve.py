"""`serve`: runs the house until a signal ends it.

The first SIGTERM, SIGINT or SIGHUP (the terminal is gone; not under `nohup`) ends it in order: no new connections, what
is left is answered within 2 s, exit code 0. Where there are tokens or certificates to be read anew, SIGHUP does that
instead, as it does for other servers. A further SIGTERM or SIGINT ends the process at once, which is safe: what
was acknowledged is on disk. Nothing here waits for whoever reads the output.
"""

import importlib
import os
import shlex
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    contextmanager,
    nullcontext,
    suppress,
)
from pathlib import Path

import trio

from trio_kv import __version__
from trio_kv.cli.allocator import give_back_freed
from trio_kv.cli.browser import open_page
from trio_kv.cli.failures import leaves
from trio_kv.cli.house import House, StartError, open_house
from trio_kv.cli.line_stream import unblock_output
from trio_kv.cli.options import ServeOptions, show_address
from trio_kv.cli.output import ExitCode, say
from trio_kv.cli.terminal import has_color, is_terminal
from trio_kv.cli.words import count
from trio_kv.client.addresses import DEFAULT_PORT
from trio_kv.client.control import DEFAULT_CONTROL_PORT
from trio_kv.raft.events import DEBUG, ERROR, INFO, WARNING
from trio_kv.trace.file import start_record, trace_file
from trio_kv.trace.lines import LineSink, close_writers
from trio_kv.trace.log import console_log, json_log
from trio_kv.trace.marks import TraceFailed
from trio_kv.trace.reading import TraceFormatError
from trio_kv.trace.text import printable_lines
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import ServerStarted, ServerStopped, ServerStopping

LEADER_WAIT_S = 5.0
"""How long start-up waits for a leader, when all nodes have read their disks, before it says that there is none yet."""

LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}

OpenHouse = Callable[[ServeOptions, Trace], AbstractAsyncContextManager[House]]


def serve(options: ServeOptions) -> ExitCode:
    """Run the store until it is stopped; return the exit code."""
    code = ExitCode.OK
    unblock_output()
    try:
        give_back_freed()
        trio.run(run, options)
    except* StartError as group:
        for error in leaves(group):
            say(str(error))
        code = ExitCode.NOT_DONE
    return code


async def run(
    options: ServeOptions,
    open_house: OpenHouse = open_house,
    exit_now: Callable[[int], object] = os._exit,
) -> None:
    """Open the house, tell that it is open, and close it on a signal.

    Args:
        options: what the command line says.
        open_house: makes the cluster and its doors.
        exit_now: ends the process at once, with this exit code.

    Raises:
        StartError: it can't be opened (in an exception group).

    """
    stopping = stop_signals()
    is_reloading = _has_access_files(options)
    if is_reloading and signal.SIGHUP in stopping:
        stopping.remove(signal.SIGHUP)
    hang_ups = [signal.SIGHUP] if is_reloading else []
    if signal.SIGHUP in [*stopping, *hang_ups]:
        # What is beneath the receiver: one that comes late must not kill a process that has stopped in order.
        signal.signal(signal.SIGHUP, lambda *_: None)
    with (
        trio.open_signal_receiver(*stopping) as signals,
        trio.open_signal_receiver(*hang_ups) if hang_ups else nullcontext() as reloads,
        open_output(options) as (trace, log),
    ):
        async with trio.open_nursery() as guard:
            stop = _Stop(trace)
            guard.start_soon(stop.hear, signals, exit_now)
            with stop.opening:
                async with open_house(options, trace) as house, trio.open_nursery() as nursery:
                    nursery.start_soon(_announce, options, house, trace, log, nursery)
                    nursery.start_soon(_reload, reloads, house)
                    await stop.wait()
                    await house.stop()
                    nursery.cancel_scope.cancel()
            guard.cancel_scope.cancel()
        trace.emit(ServerStopped())


def _has_access_files(options: ServeOptions) -> bool:
    """Return whether there are files to be read anew: of the doors, or of the connections with other hosts."""
    if options.cluster is None or options.has_access_files:
        return options.has_access_files
    # Loaded when it is needed: most servers have all nodes.
    has_certificates: Callable[[ServeOptions], bool]
    has_certificates = importlib.import_module("trio_kv.cli.host").has_certificates
    return has_certificates(options)


async def _reload(hang_ups: AsyncIterator[int] | None, house: House) -> None:
    """Read tokens and certificates anew whenever that is asked for."""
    if hang_ups is not None:
        async for _ in hang_ups:
            await house.reload()


class _Stop:
    """Hears the signals from first to last: opening and closing may wait for a disk that hangs."""

    def __init__(self, trace: Trace) -> None:
        self.opening = trio.CancelScope()
        """The scope of all that opens and runs. The first signal cancels it, as long as the house is not open."""
        self._trace = trace
        self._is_open = False
        self._is_asked = trio.Event()

    async def wait(self) -> None:
        """Wait for the first signal, now that the house is open."""
        self._is_open = True
        await self._is_asked.wait()

    async def hear(self, signals: AsyncIterator[int], exit_now: Callable[[int], object]) -> None:
        """Take the signals, one after the other."""
        first = await anext(signals)
        self._trace.emit(ServerStopping(signal.Signals(first).name))
        self._is_asked.set()
        if not self._is_open:
            self.opening.cancel()
        await _exit_on_next(signals, exit_now)


async def _exit_on_next(signals: AsyncIterator[int], exit_now: Callable[[int], object]) -> None:
    async for further in signals:
        # A terminal that closes often says so twice, by itself and through its shell: that is no impatience.
        if further != signal.SIGHUP:
            exit_now(128 + further)


def stop_signals() -> list[signal.Signals]:
    """Return the signals that end the store; SIGHUP is none of them when it was to be ignored (`nohup`)."""
    is_hang_up_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if is_hang_up_ignored else [signal.SIGHUP])]


async def _announce(
    options: ServeOptions, house: House, trace: Trace, log: LineSink, nursery: trio.Nursery
) -> None:
    """Tell people and programs that the store is open, once a leader is there."""
    leader = None
    is_waiting = True
    while leader is None and is_waiting:
        with trio.move_on_after(LEADER_WAIT_S):
            leader = await house.wait_leader()
        is_waiting = house.is_loading
    data_dir = "" if options.is_ephemeral else str(options.data_dir)
    started = ServerStarted(
        options.host, house.port, house.control_port, house.nodes, data_dir, os.getpid(), leader
    )
    if options.is_opened:
        nursery.start_soon(open_page, house.page_address(has_token=True), house.own_directory)
    if not options.is_log_json:
        trace.emit(started)
        # Into a file or a pipe it goes without the token: that is not for whoever reads a log.
        page = house.page_address(has_token=is_terminal(sys.stdout))
        print(printable_lines(banner(options, started, page)), flush=True)
        return
    # A program waits for this line, whatever level it wants to read otherwise.
    ready_log = LineSink(log.writer, INFO) if log.level > INFO else None
    if ready_log is not None:
        trace.add_sink(ready_log)
    trace.emit(started)
    if ready_log is not None:
        trace.remove_sink(ready_log)


def banner(options: ServeOptions, started: ServerStarted, page: str) -> str:
    """Return what a person is told at the start; `page` is the dashboard's address."""
    leads = "no node leads yet" if started.leader is None else f"n{started.leader} leads"
    data = started.data_dir or "nothing is kept"
    safety = (
        "" if not started.data_dir else ", not synced (--no-fsync)" if options.has_no_fsync else ", synced"
    )
    control = show_address(options.control_host, started.control_port)
    return (
        f"trio_kv {__version__}: {count(started.nodes, 'node')}, {leads}\n"
        f"  clients  {show_address(started.host, started.port)}   try: python -m trio_kv client{_way(started)}\n"
        f"  control  {control}   try: python -m trio_kv ctl status{_door(started)}\n"
        f"  page     {page}\n"
        f"  data     {data}{safety}\n"
        f"  stop     Ctrl-C"
    )


def _way(started: ServerStarted) -> str:
    """Return the options with which a client on this machine finds the server, where it has not the usual ones."""
    is_usual = started.host in {"127.0.0.1", "localhost", "0.0.0.0"}  # noqa: S104 - it is only told
    host = "" if is_usual else f" --host {shlex.quote(started.host)}"
    return host + ("" if started.port == DEFAULT_PORT else f" --port {started.port}")


def _door(started: ServerStarted) -> str:
    """Return the options with which `ctl` finds the server, where it has not the usual ones."""
    if not started.data_dir:
        is_usual = started.control_port == DEFAULT_CONTROL_PORT
        return "" if is_usual else f" --control-port {started.control_port}"
    is_usual = started.data_dir == str(ServeOptions().data_dir)
    return "" if is_usual else f" --data-dir {shlex.quote(started.data_dir)}"


@contextmanager
def open_output(options: ServeOptions) -> Iterator[tuple[Trace, LineSink]]:
    """Make the trace that the options ask for, and its log; at the end, write what waits, for a second at most.

    Raises:
        StartError: the trace file can't be written.

    """
    level = LEVELS[options.level]
    if options.is_log_json:
        log = json_log(level=level)
    else:
        log = console_log(level=level, has_color=has_color(sys.stderr), encoding=sys.stderr.encoding)
    trace = Trace([log])
    writers = [log.writer]
    try:
        if options.trace is not None:
            file = _open_trace_file(options.trace, trace)
            trace.add_sink(file)
            writers.append(file.writer)
        yield trace, log
    finally:
        close_writers(*writers)


def _open_trace_file(path: Path, trace: Trace) -> LineSink:
    token = trio.lowlevel.current_trio_token()

    def on_failed(error: OSError) -> None:
        # Called in the file's thread; a trace belongs to that of the event loop.
        failed = TraceFailed(str(path), error.strerror or str(error))
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(trace.emit, failed)

    first = start_record(__version__, time_s=time.time(), mono_s=time.monotonic())
    try:
        return trace_file(path, first, on_failed=on_failed)
    except OSError as error:
        raise StartError(f"the trace {path} can't be written: {error.strerror}") from error
    except TraceFormatError as error:
        raise StartError(f"{error}. Nothing was changed: name another file") from error
