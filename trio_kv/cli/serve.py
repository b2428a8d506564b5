"""`serve`: runs the house until a signal ends it.

The first SIGTERM or SIGINT ends it in order: no new connections, what is left is answered within 2 s, exit
code 0. The second ends the process at once, which is safe: what was acknowledged is on disk.
"""

import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager

import trio

from trio_kv import __version__
from trio_kv.cli.house import House, StartError, open_house
from trio_kv.cli.options import ServeOptions
from trio_kv.cli.output import ExitCode, say
from trio_kv.raft.events import DEBUG, INFO, WARNING
from trio_kv.trace.file import FileSink, start_record
from trio_kv.trace.log import console_log, json_log
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import ERROR, ServerStarted, ServerStopped, ServerStopping

LEADER_WAIT_S = 5.0
"""How long start-up waits for a leader, when all nodes have read their disks, before it says that there is none yet."""

LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR}

OpenHouse = Callable[[ServeOptions, Trace], AbstractAsyncContextManager[House]]


def serve(options: ServeOptions) -> ExitCode:
    """Run the store until it is stopped; return the exit code."""
    code = ExitCode.OK
    try:
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
    with open_trace(options) as trace, trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_house(options, trace) as house, trio.open_nursery() as nursery:
            nursery.start_soon(_announce, options, house, trace)
            first = await anext(signals)
            trace.emit(ServerStopping(signal.Signals(first).name))
            nursery.start_soon(_exit_on_next, signals, exit_now)
            await house.stop()
            nursery.cancel_scope.cancel()
        trace.emit(ServerStopped())


async def _exit_on_next(signals: AsyncIterator[int], exit_now: Callable[[int], object]) -> None:
    second = await anext(signals)
    exit_now(128 + second)


async def _announce(options: ServeOptions, house: House, trace: Trace) -> None:
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
    if not options.is_log_json:
        trace.emit(started)
        print(banner(options, started), flush=True)
        return
    # A program waits for this line, whatever level it wants to read otherwise.
    ready_log = json_log() if LEVELS[options.level] > INFO else None
    if ready_log is not None:
        trace.add_sink(ready_log)
    trace.emit(started)
    if ready_log is not None:
        trace.remove_sink(ready_log)


def banner(options: ServeOptions, started: ServerStarted) -> str:
    """Return what a person is told at the start."""
    leads = "no node leads yet" if started.leader is None else f"n{started.leader} leads"
    count = "1 node" if started.nodes == 1 else f"{started.nodes} nodes"
    data = started.data_dir or "nothing is kept"
    safety = (
        "" if not started.data_dir else ", not synced (--no-fsync)" if options.has_no_fsync else ", synced"
    )
    port = "" if started.port == 3001 else f" --port {started.port}"
    return (
        f"trio_kv {__version__}: {count}, {leads}\n"
        f"  clients  {started.host}:{started.port}   try: python -m trio_kv client{port}\n"
        f"  control  127.0.0.1:{started.control_port}   try: python -m trio_kv ctl --help\n"
        f"  data     {data}{safety}\n"
        f"  stop     Ctrl-C"
    )


@contextmanager
def open_trace(options: ServeOptions) -> Iterator[Trace]:
    """Make the trace that the options ask for, and close its file at the end.

    Raises:
        StartError: the file can't be made.

    """
    level = LEVELS[options.level]
    log = json_log(level=level) if options.is_log_json else console_log(level=level)
    trace = Trace([log])
    if options.trace is None:
        yield trace
        return

    def on_failed(error: OSError) -> None:
        say(f"the trace {options.trace} can't be written any more: {error.strerror}")

    first = start_record(__version__, time_s=time.time(), mono_s=time.monotonic())
    try:
        sink = FileSink(options.trace, first, on_failed=on_failed)
    except OSError as error:
        raise StartError(f"the trace {options.trace} can't be made: {error.strerror}") from error
    with sink:
        trace.add_sink(sink)
        yield trace
        trace.remove_sink(sink)


def leaves(group: BaseExceptionGroup[StartError]) -> Iterator[StartError]:
    """Yield the exceptions of a group that are none themselves."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
