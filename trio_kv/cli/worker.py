"""A further process of a server: some of its nodes, and nothing else. The first process starts it, and it ends with it.

It has no doors. What it is to do comes as one line of JSON over a pipe; the end of the pipe is the end of the first
process, whatever that died of.
"""

import os
import signal
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path
from random import SystemRandom

import attrs
import msgspec
import trio

from trio_kv import __version__
from trio_kv.cli.allocator import give_back_freed
from trio_kv.cli.processors import kept_to
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.disks import RealDisks
from trio_kv.cluster.process import ClusterProcess
from trio_kv.cluster.relay import Relay
from trio_kv.control.anywhere import serve_commands
from trio_kv.raft.config import RaftConfig
from trio_kv.storage.data_directory import share_data_directory
from trio_kv.trace.file import start_record, trace_file
from trio_kv.trace.lines import LineSink, close_writers
from trio_kv.trace.trace import Trace
from trio_kv.transport.peers import Layout

END_S = 2.0
"""How long a process takes to end in order; then it ends at once, which is as safe."""


@attrs.frozen(kw_only=True)
class Spec:
    """What a further process is to do."""

    data_dir: str
    directory: int
    """Descriptor of the data directory, which is locked."""
    listener: int
    """Descriptor of the socket where other processes call."""
    process: int
    nodes: dict[int, tuple[int, ...]]
    addresses: dict[int, tuple[str, int]]
    secret: str = attrs.field(repr=False)
    raft: RaftConfig
    segment_bytes: int
    is_synced: bool
    level: int
    """The lowest level of events that the first process wants to hear."""
    trace: str | None
    """File for every event of this process."""
    processor: int | None
    """Where it runs; None: wherever the system lets it."""


def main() -> None:
    """Be a process: the descriptor of the pipe is the only argument."""
    pipe = int(sys.argv[1])
    # A terminal, and whoever keeps services, tells all processes at once; the first one ends the others, when it has
    # answered what is left.
    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    line = b""
    while not line.endswith(b"\n"):
        data = os.read(pipe, 1 << 16)
        if not data:
            return
        line += data
    give_back_freed()
    trio.run(run, msgspec.json.decode(line, type=Spec), pipe)


async def run(spec: Spec, pipe: int) -> None:
    """Run the nodes until the first process ends, or says so."""
    stop = trio.CancelScope()
    token = trio.lowlevel.current_trio_token()
    threading.Thread(target=_wait_end, args=(pipe, token, stop), name="first process", daemon=True).start()
    directory = await trio.to_thread.run_sync(
        partial(
            share_data_directory,
            spec.directory,
            Path(spec.data_dir),
            segment_bytes=spec.segment_bytes,
            is_synced=spec.is_synced,
        )
    )
    trace = Trace()
    process = ClusterProcess.make(
        RealDisks(directory, trace),
        Layout(spec.process, spec.nodes, spec.addresses),
        ClusterConfig(raft=spec.raft),
        trace,
        SystemRandom(),
        secret=spec.secret,
    )
    serve_commands(process.cluster, process.others)
    relay = Relay(process.links, spec.level)
    trace.add_sink(relay)
    file = None if spec.trace is None else _open_trace(Path(spec.trace))
    if file is not None:
        trace.add_sink(file)
    listener = trio.SocketListener(trio.socket.from_stdlib_socket(socket.socket(fileno=spec.listener)))
    try:
        with kept_to(spec.processor, trace), stop:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(relay.run)
                nursery.start_soon(process.run, [listener])
    finally:
        if file is not None:
            close_writers(file.writer)


def _open_trace(path: Path) -> LineSink:
    first = start_record(__version__, time_s=time.time(), mono_s=time.monotonic())
    return trace_file(path, first)


def _wait_end(pipe: int, token: trio.lowlevel.TrioToken, stop: trio.CancelScope) -> None:
    """Wait until the first process closes the pipe, or dies, and end this one."""
    while os.read(pipe, 1):
        pass
    try:
        token.run_sync_soon(stop.cancel)
    except trio.RunFinishedError:
        return
    time.sleep(END_S)
    os._exit(1)


if __name__ == "__main__":
    main()
