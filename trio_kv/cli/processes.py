"""`serve --processes`: the nodes spread over processes of one machine, which the first one starts, and starts again.

The first process alone has the doors. The others inherit from it the lock of the data directory, the socket where their
peers call, and a pipe whose end tells them that it is gone.
"""

import contextlib
import os
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from random import SystemRandom

import msgspec
import trio

from trio_kv.cli.failures import explain_os_error
from trio_kv.cli.options import ServeOptions
from trio_kv.cli.worker import END_S, Spec
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.disks import RealDisks
from trio_kv.cluster.process import ClusterProcess
from trio_kv.cluster.registry import FIRST_PROCESS
from trio_kv.gateway.local import LocalCluster, make_store, open_directory, running_in
from trio_kv.raft.events import INFO
from trio_kv.same_code import same_code
from trio_kv.storage.data_directory import DataDirectory
from trio_kv.storage.folders import RealFolder
from trio_kv.trace.processes import ProcessEnded, ProcessStarted
from trio_kv.trace.reading import decode_record
from trio_kv.trace.trace import Trace
from trio_kv.transport.peers import Layout

LOOPBACK = "127.0.0.1"
BACKLOG = 128
SECRET_BYTES = 16
RESTART_MIN_S = 0.1
RESTART_MAX_S = 30.0
CALM_S = 10.0
"""A process that lived so long has no deaths in a row behind it any more."""


def spread(nodes: Sequence[int], processes: int) -> dict[int, tuple[int, ...]]:
    """Return which process runs which nodes: as even as it goes, and the first process has no fewer than any other."""
    return {process: tuple(nodes[process::processes]) for process in range(processes)}


@contextlib.asynccontextmanager
async def open_processes(
    path: Path, options: ServeOptions, trace: Trace, processors: Sequence[int]
) -> AsyncIterator[LocalCluster]:
    """Run a cluster in several processes for as long as the context lasts.

    Args:
        path: its data directory; made at the first start.
        options: how many nodes and processes, and how they are run.
        trace: takes all events of this process, and those of the others for people.
        processors: where each process runs, the first one of which is this one; empty: wherever the system lets it.

    Raises:
        StorageError: the data directory can't be used.

    """
    random = SystemRandom()
    directory = await open_directory(
        path,
        random=random,
        nodes=options.nodes,
        segment_bytes=options.segment_bytes,
        is_synced=options.is_synced,
    )
    directory.is_shared = True
    with contextlib.ExitStack() as stack:
        nodes = spread(directory.nodes, min(options.processes, len(directory.nodes)))
        sockets = {process: stack.enter_context(_listen()) for process in nodes}
        layout = Layout(
            FIRST_PROCESS, nodes, {each: sock.getsockname()[:2] for each, sock in sockets.items()}
        )
        secret = secrets.token_hex(SECRET_BYTES)
        process = ClusterProcess.make(
            RealDisks(directory, trace),
            layout,
            ClusterConfig(raft=options.raft_config()),
            trace,
            random,
            secret=secret,
        )
        process.others.on_event = partial(_tell, trace)
        local = make_store(process.cluster, random, session_timeout_s=options.session_timeout_s)
        async with trio.open_nursery() as nursery:
            for number in layout.others:
                spec = _spec(
                    directory,
                    layout,
                    number=number,
                    listener=sockets[number].fileno(),
                    options=options,
                    secret=secret,
                    trace=trace,
                    processor=processors[number] if processors else None,
                )
                nursery.start_soon(_keep, spec, trace)
            own = sockets[FIRST_PROCESS].dup()
            listener = trio.SocketListener(trio.socket.from_stdlib_socket(own))
            nursery.start_soon(process.run_links, [listener])
            async with running_in(directory, local):
                yield local
            nursery.cancel_scope.cancel()


def _spec(
    directory: DataDirectory,
    layout: Layout,
    *,
    number: int,
    listener: int,
    options: ServeOptions,
    secret: str,
    trace: Trace,
    processor: int | None,
) -> Spec:
    """Return what a further process is to do."""
    assert isinstance(directory.root, RealFolder)
    return Spec(
        data_dir=str(directory.path),
        directory=directory.root.descriptor,
        listener=listener,
        process=number,
        nodes=dict(layout.nodes),
        addresses=dict(layout.addresses),
        secret=secret,
        raft=options.raft_config(),
        segment_bytes=options.segment_bytes,
        is_synced=options.is_synced,
        level=min(INFO, trace.level),
        trace=None if options.trace is None else f"{options.trace}.{number}",
        processor=processor,
    )


def _listen() -> socket.socket:
    sock = socket.socket()
    sock.bind((LOOPBACK, 0))
    sock.listen(BACKLOG)
    return sock


def _tell(trace: Trace, process: int, data: bytes) -> None:
    trace.relay(decode_record(data), process)


async def _keep(spec: Spec, trace: Trace) -> None:
    """Keep a further process going, until cancelled; then end it."""
    deaths = 0
    while True:
        started_at = trio.current_time()
        reason = await _live(spec, trace)
        deaths = 0 if trio.current_time() - started_at >= CALM_S else deaths + 1
        delay_s = min(RESTART_MIN_S * 2 ** (deaths - 1) if deaths else 0.0, RESTART_MAX_S)
        trace.emit(ProcessEnded(spec.process, reason, delay_s))
        await trio.sleep(delay_s)


async def _live(spec: Spec, trace: Trace) -> str:
    """Run a further process until it dies; return what it died of. One that can't be started is tried again, too."""
    try:
        child, pipe = await _start(spec)
    except OSError as error:
        return f"it can't be started: {explain_os_error(error)}"
    try:
        trace.emit(ProcessStarted(spec.process, child.pid, spec.nodes[spec.process]))
        code = await child.wait()
    finally:
        os.close(pipe)
        await _end(child)  # noqa: ASYNC102 - it shields, but not for ever
    return f"signal {-code}" if code < 0 else f"exit code {code}"


async def _start(spec: Spec) -> tuple[trio.Process, int]:
    """Start a further process; return it, and the pipe that is to be closed for it to end. Raises OSError."""
    reading, writing = os.pipe()
    with contextlib.ExitStack() as undo:
        undo.callback(os.close, writing)
        try:
            # Before it starts, for nobody may be there to read any more after that. The pipe has room for it.
            os.write(writing, msgspec.json.encode(spec) + b"\n")
            child = await trio.lowlevel.open_process(
                same_code("trio_kv.cli.worker", str(reading)),
                pass_fds=(reading, spec.directory, spec.listener),
                stdin=subprocess.DEVNULL,
            )
        finally:
            os.close(reading)
        undo.pop_all()
    return child, writing


async def _end(child: trio.Process) -> None:
    """See a process to its end, whose pipe is closed: the lock of the directory lasts as long as it does."""
    with trio.move_on_after(END_S, shield=True):
        await child.wait()
    if child.returncode is None:
        child.kill()
        # One whose disk hangs can't even be killed: it is left to the system.
        with trio.move_on_after(END_S, shield=True):
            await child.wait()
