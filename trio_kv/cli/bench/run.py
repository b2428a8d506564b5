"""Runs `bench`: connects, fills, warms up, measures, and prints what it came to."""

import signal
import socket
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import cycle
from typing import Any

from trio_kv.cli.bench.answers import Answers
from trio_kv.cli.bench.connection import Connection
from trio_kv.cli.bench.figures import Figures
from trio_kv.cli.bench.load import Load, OnProgress
from trio_kv.cli.bench.options import BenchOptions
from trio_kv.cli.bench.own_server import open_own_server
from trio_kv.cli.bench.report import show
from trio_kv.cli.errors import NotDoneError
from trio_kv.cli.failures import explain_os_error
from trio_kv.cli.options import show_address
from trio_kv.cli.output import ExitCode
from trio_kv.cli.parsing import SECONDS_MAX
from trio_kv.cli.terminal import is_terminal, open_console
from trio_kv.client.addresses import DEFAULT_PORT
from trio_kv.client.errors import NotConnectedError

CONNECT_TIMEOUT_S = 5.0
FILLING = "filling"
"""The phase that ends after so many writes, and not after so many seconds."""


def run(options: BenchOptions) -> ExitCode:
    """Carry the command out and return its exit code.

    Raises:
        NotConnectedError: there is no server.
        NotDoneError: the keys could not be filled.

    """
    with ExitStack() as stack:
        # Whatever ends us, a server of our own ends with us: SIGTERM is a Ctrl-C.
        stack.callback(
            signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler)
        )
        progress = stack.enter_context(_show_progress())
        host, port = options.host or "127.0.0.1", options.port or DEFAULT_PORT
        if options.nodes is not None:
            port = stack.enter_context(open_own_server(options.nodes))
        family, peer = _find(host, port)
        answers = Answers()
        try:
            load = Load(family, peer, options.connections, answers, make=_maker(options, host))
        except OSError as error:
            raise NotConnectedError(f"no {options.connections} sockets: {explain_os_error(error)}") from error
        stack.callback(load.close)
        stack.enter_context(_stopped_by_signals(load))
        figures = _measure(load, options, progress)
    show(options, figures, answers)
    if answers.wrong:
        return ExitCode.NOT_DONE
    if load.is_stopped:
        return ExitCode.INTERRUPTED
    return ExitCode.OK if figures.answered else ExitCode.NOT_DONE


def _measure(load: Load, options: BenchOptions, progress: Callable[[str, float], OnProgress]) -> Figures:
    """Go through the phases; return the figures of the last."""
    workload = options.workload()
    load.connect()
    if options.is_filled:
        on_progress = progress(FILLING, options.keys)
        filling = load.run(workload.fill_batches(), seconds=SECONDS_MAX, on_progress=on_progress)
        if filling.sets.errors:
            errors = ", ".join(f"{code} {times:,} times" for code, times in filling.sets.errors.items())
            raise NotDoneError(f"the keys could not be written: {errors}")
        load.answers.is_filled = not load.is_stopped
    batches_of_load = cycle(workload.make_ring())
    rate = options.rate / options.pipeline
    if options.warm_up_s:
        load.run(
            batches_of_load,
            seconds=options.warm_up_s,
            rate=rate,
            on_progress=progress("warming up", options.warm_up_s),
        )
    return load.run(
        batches_of_load,
        seconds=options.duration_s,
        rate=rate,
        on_progress=progress("measuring", options.duration_s),
    )


def _maker(options: BenchOptions, host: str) -> Callable[[int, Sequence[Any]], Connection] | None:
    """Return what makes a connection; None for plain ones."""
    tls, token = options.tls(), options.token()
    if tls is None and token is None:
        return None
    from trio_kv.cli.bench.secure import SecureConnection

    return partial(SecureConnection, host=host, tls=tls, token=token)


def _find(host: str, port: int) -> tuple[int, tuple[object, ...]]:
    """Return family and address of a server that listens.

    Raises:
        NotConnectedError: nobody does.

    """
    try:
        with socket.create_connection((host, port), CONNECT_TIMEOUT_S) as connection:
            return connection.family, connection.getpeername()
    except OSError as error:
        raise NotConnectedError(
            f"no server at {show_address(host, port)}: {explain_os_error(error)}"
        ) from error


@contextmanager
def _stopped_by_signals(load: Load) -> Iterator[None]:
    """Let a first signal end the load, with the figures so far, and a second one the process."""

    def stop(number: int, _frame: types.FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        load.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _show_progress() -> Iterator[Callable[[str, float], OnProgress]]:
    """Give a function that begins a bar for a phase of some length; there is none but at a terminal."""
    if not is_terminal(sys.stderr):
        yield lambda _phase, _length: lambda _seconds, _answered: None
        return
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (TextColumn("{task.description:>10}"), BarColumn(), TextColumn("{task.fields[amount]}"))
    # It is drawn when we say so, and not ten times a second: that takes a part of the processor, too.
    with Progress(*columns, console=open_console(sys.stderr), transient=True, auto_refresh=False) as bars:

        def begin(phase: str, length: float) -> OnProgress:
            for task in bars.task_ids:
                bars.remove_task(task)
            task = bars.add_task(phase, total=length, amount="")
            bars.refresh()

            def on_progress(seconds: float, answered: int) -> None:
                done = answered if phase == FILLING else seconds
                bars.update(
                    task, completed=done, amount=f"{answered:,} answered, {answered / seconds:,.0f}/s"
                )
                bars.refresh()

            return on_progress

        yield begin
