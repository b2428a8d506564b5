"""What chaos is let loose on: a server that somebody runs, or a process of our own.

Of a running server only its doors are used. A process of our own can also be killed, stopped and started again on
the same data; it leads a session of its own, so that a Ctrl-C meant for us does not reach it, and never outlives us.
"""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import attrs
import msgspec
import trio

from trio_kv.client.control import Door, NoDoorError, command, find_door

DOOR_TIMEOUT_S = 5.0
SLOW_DOOR_TIMEOUT_S = 60.0
START_S = 60.0
"""A server that is not ready by then never will be."""
STOP_S = 10.0
SEGMENT_BYTES = 1 << 18
"""Log segments of our own server: small, so that snapshots are taken and nodes that were away need them."""


class RefusedError(Exception):
    """The server says that a fault makes no sense now: there is no leader, the node is down already."""


class StartError(Exception):
    """There is no server to break; the message says why, to a person."""


class Target(Protocol):
    """A server."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the client door; a restart may change them."""
        ...

    @property
    def has_door(self) -> bool:
        """Whether there is a control door."""
        ...

    @property
    def has_process(self) -> bool:
        """Whether the process is ours to kill."""
        ...

    async def ask_door(
        self, name: str, *, timeout_s: float = DOOR_TIMEOUT_S, **arguments: object
    ) -> dict[str, Any]:
        """Give a command to the control door and return the members of its reply.

        Raises:
            NoDoorError: nobody opens.
            RefusedError: it makes no sense now.

        """
        ...

    async def wait_up(self) -> None:
        """Wait until the process is neither dead nor frozen by us."""
        ...


async def ask(door: Door, name: str, arguments: Mapping[str, object], timeout_s: float) -> dict[str, Any]:
    """See `Target.ask_door`."""
    send = partial(command, door, name, arguments, timeout_s=timeout_s)
    reply: dict[str, Any] = await trio.to_thread.run_sync(send, abandon_on_cancel=True)
    if reply.get("status") != "ok":
        raise RefusedError(str(reply.get("message")))
    return reply


@attrs.frozen
class RunningServer:
    """A server that somebody else runs, of this project or any other that speaks its protocol."""

    address: tuple[str, int]
    door: Door | None = None

    has_process = False

    @property
    def has_door(self) -> bool:
        """Whether there is a control door."""
        return self.door is not None

    async def ask_door(
        self, name: str, *, timeout_s: float = DOOR_TIMEOUT_S, **arguments: object
    ) -> dict[str, Any]:
        """Give a command to the control door; see `Target`."""
        if self.door is None:
            raise NoDoorError("this server has no control door that we know of")
        return await ask(self.door, name, arguments, timeout_s)

    async def wait_up(self) -> None:
        """Return at once: whatever it is, we have not done it."""
        await trio.lowlevel.checkpoint()


class OwnServer:
    """A server process of our own. `open_own_server` makes one."""

    has_door = True
    has_process = True

    def __init__(
        self,
        nursery: trio.Nursery,
        folder: Path,
        *,
        nodes: int,
        has_trace: bool,
        on_event: Callable[[dict[str, Any]], None],
    ) -> None:
        """Prepare a server that does not run yet; see `open_own_server`."""
        self.data_dir = folder / "data"
        self.starts = 0
        self._nursery = nursery
        self._folder = folder
        self._nodes = nodes
        self._has_trace = has_trace
        self._on_event = on_event
        self._process: trio.Process | None = None
        self._ready: dict[str, Any] = {}
        self._up = trio.Event()
        self._is_frozen = False
        self._asked_to_end: trio.Process | None = None
        """The last process that we have ended."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the client door; each start has another port."""
        return "127.0.0.1", self._ready["port"]

    async def ask_door(
        self, name: str, *, timeout_s: float = DOOR_TIMEOUT_S, **arguments: object
    ) -> dict[str, Any]:
        """Give a command to the control door; see `Target`."""
        return await ask(find_door(self.data_dir, self._ready["control_port"]), name, arguments, timeout_s)

    async def wait_up(self) -> None:
        """Wait until the process is neither dead nor frozen."""
        await self._up.wait()

    async def start(self) -> None:
        """Start the process on the same data; return when it is ready.

        Raises:
            StartError: it does not get ready.

        """
        self.starts += 1
        trace_path = self._folder / "traces" / f"{self.starts:03}.jsonl"
        trace = ["--trace", str(trace_path)] if self._has_trace else []
        trace_path.parent.mkdir(exist_ok=True)
        command_line = [
            *(sys.executable, "-m", "trio_kv", "serve", "--log-json", "--port", "0", "--control-port", "0"),
            *("--nodes", str(self._nodes), "--data-dir", str(self.data_dir)),
            *("--segment-bytes", str(SEGMENT_BYTES), *trace),
        ]
        self._process = await trio.lowlevel.open_process(
            command_line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        with trio.move_on_after(START_S):
            self._ready = await self._nursery.start(self._read_log, self._process)
            self._up.set()
            return
        raise StartError(f"the server was not ready after {START_S:g} s; see {self._log_path}")

    async def kill(self) -> None:
        """Kill the process with SIGKILL, and wait until it is gone."""
        process = self._expect_end()
        process.kill()
        await process.wait()

    def freeze(self) -> None:
        """Stop the process with SIGSTOP."""
        assert self._process is not None
        self._is_frozen = True
        self._up = trio.Event()
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen process go on; any other is left as it is."""
        if self._is_frozen and self._process is not None:
            self._is_frozen = False
            self._process.send_signal(signal.SIGCONT)
            self._up.set()

    async def revive(self) -> None:
        """Let the process run, whatever was done to it.

        Raises:
            StartError: it does not get ready.

        """
        self.thaw()
        if not self._up.is_set():
            # Dead, or interrupted in its start so that nobody knows its ports.
            await self.kill()
            await self.start()

    async def end(self) -> None:
        """Kill the process if there is one."""
        if self._process is not None:
            await self.kill()

    async def stop(self) -> int | None:
        """End the process in order; return its exit code, or None if it had to be killed."""
        self.thaw()
        process = self._expect_end()
        if process.poll() is None:
            process.terminate()
        with trio.move_on_after(STOP_S):
            return await process.wait()
        await self.kill()
        return None

    def _expect_end(self) -> trio.Process:
        assert self._process is not None
        self._asked_to_end = self._process
        self._is_frozen = False
        self._up = trio.Event()
        return self._process

    @property
    def _log_path(self) -> Path:
        return self._folder / "server.log"

    async def _read_log(
        self,
        process: trio.Process,
        *,
        task_status: trio.TaskStatus[dict[str, Any]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep the log, tell what it says, and notice when the process ends."""
        assert process.stderr is not None
        is_ready = False
        async with await trio.open_file(self._log_path, "ab") as log:
            rest = b""
            async for chunk in process.stderr:
                await log.write(chunk)
                *lines, rest = (rest + bytes(chunk)).split(b"\n")
                for event in map(_parse_event, lines):
                    if event.get("event") == "server.started" and not is_ready:
                        is_ready = True
                        task_status.started(event)
                    self._on_event(event)
        code = await process.wait()
        if not is_ready:
            last = rest.decode(errors="replace").strip()
            raise StartError(
                f"the server ended with {code} before it was ready: {last}; see {self._log_path}"
            )
        if process is not self._asked_to_end:
            self._up = trio.Event()
            self._on_event({"event": "process.ended", "code": code})


def _parse_event(line: bytes) -> dict[str, Any]:
    """Return an event; what is no JSON is an event without a name."""
    try:
        event = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return {"text": line.decode(errors="replace")}
    return event if isinstance(event, dict) else {}


@asynccontextmanager
async def open_own_server(
    folder: Path, *, nodes: int, has_trace: bool, on_event: Callable[[dict[str, Any]], None]
) -> AsyncIterator[OwnServer]:
    """Run a server process for as long as the block does.

    Args:
        folder: where its data, log and trace go.
        nodes: of its cluster.
        has_trace: whether it writes a trace.
        on_event: is called with each event of its log, and with `process.ended` if it ends by itself.

    Raises:
        StartError: it does not get ready.

    """
    async with trio.open_nursery() as nursery:
        server = OwnServer(nursery, folder, nodes=nodes, has_trace=has_trace, on_event=on_event)
        try:
            await server.start()
            yield server
        finally:
            with trio.CancelScope(shield=True):
                await server.end()
            nursery.cancel_scope.cancel()
