"""Runs `chaos`: opens its server, listens for Ctrl-C, shows how far it is, and prints the verdict."""

import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import msgspec
import trio

from trio_kv.cli.chaos_options import ChaosOptions, Verdict
from trio_kv.cli.control import DEFAULT_DOOR
from trio_kv.cli.errors import UsageError
from trio_kv.cli.failures import explain_os_error, leaves
from trio_kv.cli.output import say
from trio_kv.cli.terminal import is_terminal, open_console
from trio_kv.cli.words import count
from trio_kv.client.addresses import DEFAULT_PORT
from trio_kv.client.control import NoDoorError, find_door
from trio_kv.sim.chaos.config import ChaosConfig
from trio_kv.sim.chaos.own_hosts import open_own_hosts
from trio_kv.sim.chaos.own_server import open_own_server
from trio_kv.sim.chaos.run import OnProgress, Progress, run_chaos
from trio_kv.sim.chaos.summary import Summary
from trio_kv.sim.chaos.target import RunningServer, StartError, Target

VERDICTS = {"valid": Verdict.VALID, "violation": Verdict.VIOLATION, "unknown": Verdict.UNKNOWN}
TOLD_EVERY_S = 60.0
"""Off a terminal one line a minute tells that the run still goes on."""


def run(options: ChaosOptions) -> Verdict:
    """Carry the command out and return its exit code.

    Raises:
        UsageError: the folder for what is found can't be made.

    """
    config = options.to_config()
    try:
        config.out.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"no folder for what is found: {explain_os_error(error, config.out)}") from error
    verdict = Verdict.NOT_CONNECTED
    try:
        summary = trio.run(_run, options, config)
    except* StartError as group:
        say(str(next(leaves(group))))
    except* OSError as group:
        # The folder can't be written any more, most likely. Without what was seen there is no verdict.
        say(f"no verdict: {explain_os_error(next(leaves(group)), config.out)}")
        verdict = Verdict.UNKNOWN
    else:
        verdict = Verdict.INTERRUPTED if summary is None else VERDICTS[summary.verdict]
        if summary is not None:
            _show(summary, options)
    return verdict


async def _run(options: ChaosOptions, config: ChaosConfig) -> Summary | None:
    """Return what was found, or None if a second signal came first."""
    summary: Summary | None = None
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, _show_progress() as on_progress:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_heed, signals, stop, nursery.cancel_scope)

            @asynccontextmanager
            async def open_target(on_event: Callable[[dict[str, Any]], None]) -> AsyncIterator[Target]:
                if options.is_on_running:
                    yield _running_server(options)
                    return
                async with _open_own(config, on_event) as server:
                    yield server

            say(
                f"{config.seconds:g} s of load and faults on {_what_is_broken(options)}, seed {config.seed};"
                f" folder {config.out}"
            )
            summary = await run_chaos(config, open_target, on_progress=on_progress, stop=stop)
            nursery.cancel_scope.cancel()
    return summary


def _open_own(
    config: ChaosConfig, on_event: Callable[[dict[str, Any]], None]
) -> AbstractAsyncContextManager[Target]:
    if config.is_cluster:
        return open_own_hosts(config.out, nodes=config.nodes, has_trace=config.has_trace, on_event=on_event)
    return open_own_server(
        config.out,
        nodes=config.nodes,
        processes=config.processes,
        has_trace=config.has_trace,
        on_event=on_event,
    )


def _what_is_broken(options: ChaosOptions) -> str:
    if options.is_on_running:
        return "the server that runs"
    if options.is_cluster:
        return f"a cluster of {count(options.nodes, 'host')}"
    spread = f" in {options.processes} processes" if options.processes > 1 else ""
    return f"a server of {count(options.nodes, 'node')}{spread}"


async def _heed(signals: AsyncIterator[int], stop: trio.Event, scope: trio.CancelScope) -> None:
    await anext(signals)
    say("load and faults end; the verdict follows. Once more: at once, without a verdict")
    stop.set()
    await anext(signals)
    scope.cancel()


def _running_server(options: ChaosOptions) -> RunningServer:
    address = (options.host or "127.0.0.1", options.port or DEFAULT_PORT)
    if options.data_dir is None and options.control_port is None:
        return RunningServer(address)
    try:
        return RunningServer(
            address, find_door(options.data_dir or DEFAULT_DOOR.data_dir, options.control_port)
        )
    except NoDoorError as error:
        raise StartError(str(error)) from error


def _show(summary: Summary, options: ChaosOptions) -> None:
    if options.output == "json":
        print(msgspec.json.encode(summary.to_json()).decode())
    else:
        print(summary.in_words())


@contextmanager
def _show_progress() -> Iterator[OnProgress]:
    """Give a function to be told how far the run is; it keeps a bar at a terminal, and else a line a minute."""
    if not is_terminal(sys.stderr):
        yield _line_a_minute()
        return
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description:>9}"), BarColumn(), TextColumn("{task.fields[amount]}"))
    with Bars(*columns, console=open_console(sys.stderr), transient=True) as bars:
        task = bars.add_task("", amount="")

        def on_progress(progress: Progress) -> None:
            bars.update(
                task,
                description=progress.phase,
                completed=progress.done,
                total=progress.total,
                amount=_amount(progress),
            )

        yield on_progress


def _line_a_minute() -> OnProgress:
    told_at = trio.current_time()

    def on_progress(progress: Progress) -> None:
        nonlocal told_at
        if trio.current_time() - told_at >= TOLD_EVERY_S:
            told_at = trio.current_time()
            say(f"{progress.phase} {_amount(progress)}")

    return on_progress


def _amount(progress: Progress) -> str:
    match progress.phase:
        case "load":
            left_s = max(0.0, progress.total - progress.done)
            done = f"{count(progress.operations, 'operation')}, {count(progress.faults, 'fault')}"
            return f"{done}, {left_s:.0f} s left"
        case "verdict":
            return f"key {progress.done:.0f} of {progress.total:.0f}"
        case _:
            return f"within {progress.total:.0f} s"
