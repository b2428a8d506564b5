"""A process of our own with doors: it can be killed, frozen, stopped, and started again on the same data.

It leads a session of its own, so that a Ctrl-C meant for us does not reach it, and never outlives us. Its log ends when
it and all that it started are gone, so that whoever starts it again finds its data free.
"""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import msgspec
import trio

from trio_kv.client.control import find_door
from trio_kv.same_code import same_code
from trio_kv.sim.chaos.target import DOOR_TIMEOUT_S, StartError, ask

START_TURNS, TURN_S = 60, 1.0
"""A server that is not ready after so many turns never will be. One long wait would end when a machine was at rest."""
STOP_S = 10.0
SEGMENT_BYTES = 1 << 18
"""Log segments of our own server: small, so that snapshots are taken and nodes that were away need them."""

OnEvent = Callable[[dict[str, Any]], None]


@attrs.define(eq=False)
class _Life:
    """What is known of a process from its start to its end."""

    process: trio.Process
    has_begun: trio.Event = attrs.field(factory=trio.Event)
    """It is ready, or has failed."""
    failure: str = ""
    is_ready: bool = False
    has_ended: trio.Event = attrs.field(factory=trio.Event)
    """It is gone, and all that it has started."""
    is_asked_to_end: bool = False
    is_frozen: bool = False


class ServerProcess:
    """A `serve` of our own.

    Args:
        nursery: in which its log is read.
        folder: of the run.
        name: of its log and its traces in there; "" for one that is alone.
        nodes: those that it runs.
        data_dir: its data directory.
        options: of `serve`, further ones.
        has_trace: whether it writes a trace.
        on_event: is called with each event of its log, and with `process.ended` if it ends by itself.

    """

    def __init__(
        self,
        nursery: trio.Nursery,
        folder: Path,
        name: str,
        *,
        nodes: Sequence[int],
        data_dir: Path,
        options: Sequence[str],
        has_trace: bool,
        on_event: OnEvent,
    ) -> None:
        """Prepare a process that does not run yet; see the class."""
        self.name = name or "the server"
        self.nodes = nodes
        self.ready: Mapping[str, Any] = {}
        """What it said when it was ready last."""
        self._nursery = nursery
        self._data_dir = data_dir
        self._options = options
        self._traces = folder / "traces" if has_trace else None
        self._trace_name = f"{name.replace(' ', '-')}-" if name else ""
        self._log_path = folder / f"{name.replace(' ', '-') or 'server'}.log"
        self._on_event = on_event
        self._starts = 0
        self._life: _Life | None = None
        """The last one."""
        self._up = trio.Event()

    @property
    def is_up(self) -> bool:
        """Whether it is ready, and neither dead nor frozen by us."""
        return self._up.is_set()

    async def wait_up(self) -> None:
        """Wait until it is."""
        await self._up.wait()

    async def ask_door(
        self, name: str, *, timeout_s: float = DOOR_TIMEOUT_S, **arguments: object
    ) -> dict[str, Any]:
        """Give a command to its control door; see `Target`."""
        return await ask(find_door(self._data_dir, self.ready["control_port"]), name, arguments, timeout_s)

    async def start(self) -> None:
        """Start it on the same data; return when it is ready.

        Raises:
            StartError: it does not get ready.

        """
        self._starts += 1
        trace = []
        if self._traces is not None:
            self._traces.mkdir(exist_ok=True)
            trace = ["--trace", str(self._traces / f"{self._trace_name}{self._starts:03}.jsonl")]
        command_line = [
            *same_code("trio_kv", "serve", "--log-json", "--data-dir", str(self._data_dir)),
            *("--segment-bytes", str(SEGMENT_BYTES), *self._options, *trace),
        ]
        process = await trio.lowlevel.open_process(
            command_line,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        life = self._life = _Life(process)
        # It is read to its end whatever becomes of who waits here: by that we know that it is gone.
        self._nursery.start_soon(self._read_log, life)
        for _ in range(START_TURNS):
            with trio.move_on_after(TURN_S):
                await life.has_begun.wait()
                break
        else:
            life.failure = f"was not ready after {START_TURNS * TURN_S:g} s"
        if life.failure:
            raise StartError(f"{self.name} {life.failure}; see {self._log_path}")

    async def kill(self) -> None:
        """Kill it with SIGKILL, and wait until it and all that it started are gone."""
        life = self._expect_end()
        life.process.kill()
        # Those that it started see by themselves that it is gone, if they can.
        _signal_group(life.process, signal.SIGCONT)
        await life.process.wait()
        with trio.move_on_after(STOP_S):
            await life.has_ended.wait()
            return
        self._on_event({"event": "process.left", "who": self.name, "log": self._log_path.name})
        _signal_group(life.process, signal.SIGKILL)

    def freeze(self) -> None:
        """Stop it with SIGSTOP, and nothing that it started."""
        assert self._life is not None
        self._life.is_frozen = True
        self._up = trio.Event()
        self._life.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on if it is frozen; else it is left as it is."""
        life = self._life
        if life is not None and life.is_frozen:
            life.is_frozen = False
            life.process.send_signal(signal.SIGCONT)
            if life.is_ready:
                self._up.set()

    async def revive(self) -> None:
        """Let it run, whatever was done to it.

        Raises:
            StartError: it does not get ready.

        """
        self.thaw()
        if not self._up.is_set():
            # Dead, or interrupted in its start so that nobody knows its ports.
            await self.end()
            await self.start()

    async def end(self) -> None:
        """Kill it if there is one."""
        if self._life is not None:
            await self.kill()

    async def stop(self) -> Sequence[str]:
        """End it in order; return what went wrong with that."""
        self.thaw()
        process = self._expect_end().process
        if process.poll() is None:
            process.terminate()
        code = None
        with trio.move_on_after(STOP_S):
            code = await process.wait()
        await self.kill()
        return [f"{self.name}, asked to stop, ended with {code}"] if code != 0 else []

    def _expect_end(self) -> _Life:
        assert self._life is not None
        self._life.is_asked_to_end = True
        self._life.is_ready = self._life.is_frozen = False
        self._up = trio.Event()
        return self._life

    async def _read_log(self, life: _Life) -> None:
        """Keep the log, tell what it says, and notice when the process ends."""
        assert life.process.stderr is not None
        rest = b""
        async with await trio.open_file(self._log_path, "ab") as log:
            async for chunk in life.process.stderr:
                await log.write(chunk)
                *lines, rest = (rest + bytes(chunk)).split(b"\n")
                for event in map(_parse_event, lines):
                    if event.get("event") == "server.started":
                        self._note_ready(life, event)
                    self._on_event({**event, "log": self._log_path.name})
        life.has_ended.set()
        code = await life.process.wait()
        if not life.has_begun.is_set():
            last = rest.decode(errors="replace").strip()
            life.failure = f"ended with {code} before it was ready: {last}"
            life.has_begun.set()
        elif not life.is_asked_to_end:
            life.is_ready, self._up = False, trio.Event()
            told = {"event": "process.ended", "code": code, "who": self.name, "log": self._log_path.name}
            self._on_event(told)

    def _note_ready(self, life: _Life, event: Mapping[str, Any]) -> None:
        self.ready = event
        life.has_begun.set()
        if not life.is_asked_to_end:
            life.is_ready = True
            if not life.is_frozen:
                self._up.set()


def _signal_group(process: trio.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # as a group without a living member is answered
        os.killpg(process.pid, number)


def _parse_event(line: bytes) -> dict[str, Any]:
    """Return an event; what is no JSON is an event without a name."""
    try:
        event = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return {"text": line.decode(errors="replace")}
    return event if isinstance(event, dict) else {}
