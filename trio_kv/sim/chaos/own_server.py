"""A server of our own: one process, or a first one with doors and further ones, which it keeps going (`--processes`).

The further ones can be killed and frozen, too. The first one starts them again by itself; who they are its log tells.
"""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import trio

from trio_kv.client.addresses import Address
from trio_kv.sim.chaos.own_process import OnEvent, ServerProcess
from trio_kv.sim.chaos.target import DOOR_TIMEOUT_S, One


@attrs.define
class FurtherProcess:
    """One that the first process has started, and starts again. See `One`."""

    number: int
    nodes: Sequence[int] = ()
    pid: int | None = None
    """None: it does not run."""
    _has_started: trio.Event = attrs.field(factory=trio.Event, init=False)
    _is_frozen: bool = attrs.field(default=False, init=False)
    _is_doomed: bool = attrs.field(default=False, init=False)
    """Whether its end is our doing."""

    @property
    def name(self) -> str:
        """What it is called, for people."""
        return f"process {self.number}"

    def started(self, pid: int, nodes: Sequence[int]) -> None:
        """Note that it runs."""
        self.pid, self.nodes = pid, nodes
        self._is_frozen = self._is_doomed = False
        self._has_started.set()

    def ended(self) -> bool:
        """Note that it is gone; return whether that was our doing."""
        is_doomed, self._is_doomed = self._is_doomed, False
        self.pid = None
        return is_doomed

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        self._is_doomed = True
        self._has_started = trio.Event()
        self._signal(signal.SIGKILL)
        self.pid = None
        await trio.lowlevel.checkpoint()

    async def start(self) -> None:
        """Return when the first process has started it again."""
        await self._has_started.wait()

    def freeze(self) -> None:
        """Stop it with SIGSTOP."""
        self._is_frozen = True
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on if it is frozen."""
        if self._is_frozen:
            self._is_frozen = False
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.pid is not None:
            with suppress(ProcessLookupError):  # it ended by itself just now, as its log will tell
                os.kill(self.pid, number)


class OwnServer:
    """A server of our own; see `Target` and `Own`. `open_own_server` makes one."""

    has_door = True

    def __init__(
        self,
        nursery: trio.Nursery,
        folder: Path,
        *,
        nodes: int,
        processes: int,
        has_trace: bool,
        on_event: OnEvent,
    ) -> None:
        """Prepare a server that does not run yet; see `open_own_server`."""
        self.has_ones = processes > 1
        self._on_event = on_event
        self._further: dict[int, FurtherProcess] = {}
        spread = ["--processes", str(processes)] if processes > 1 else []
        self._first = ServerProcess(
            nursery,
            folder,
            "",
            nodes=range(1, nodes + 1),
            data_dir=folder / "data",
            options=["--port", "0", "--control-port", "0", "--nodes", str(nodes), *spread],
            has_trace=has_trace,
            on_event=self._hear,
        )

    @property
    def addresses(self) -> Sequence[Address]:
        """Host and port of the client door; each start has another port."""
        return (("127.0.0.1", self._first.ready["port"]),)

    @property
    def own(self) -> "OwnServer":
        """Its processes."""
        return self

    @property
    def ones(self) -> Sequence[One]:
        """The further processes that run."""
        return [each for _, each in sorted(self._further.items()) if each.pid is not None]

    async def ask_door(
        self, name: str, *, timeout_s: float = DOOR_TIMEOUT_S, **arguments: object
    ) -> dict[str, Any]:
        """Give a command to the control door; see `Target`."""
        return await self._first.ask_door(name, timeout_s=timeout_s, **arguments)

    async def wait_up(self) -> None:
        """Wait until the process with the doors is neither dead nor frozen."""
        await self._first.wait_up()

    async def start(self) -> None:
        """See `Own`."""
        await self._first.start()

    async def kill(self) -> None:
        """Kill the first process with SIGKILL, and wait until all are gone."""
        await self._first.kill()
        self._note_gone()

    def freeze(self) -> None:
        """Stop the process with the doors with SIGSTOP."""
        self._first.freeze()

    def thaw(self) -> None:
        """See `Own`."""
        self._first.thaw()

    async def revive(self) -> None:
        """See `Own`."""
        for each in self._further.values():
            each.thaw()
        await self._first.revive()

    async def stop(self) -> Sequence[str]:
        """See `Own`."""
        problems = await self._first.stop()
        self._note_gone()
        return problems

    async def end(self) -> None:
        """Kill all that is left."""
        await self._first.end()

    def _note_gone(self) -> None:
        for each in self._further.values():
            each.ended()

    def _hear(self, event: dict[str, Any]) -> None:
        match event:
            case {"event": "process.started", "started": number, "pid": pid, "nodes": nodes}:
                self._further.setdefault(number, FurtherProcess(number)).started(pid, nodes)
            case {"event": "process.ended", "ended": number} if self._further[number].ended():
                return
            case _:
                pass
        self._on_event(event)


@asynccontextmanager
async def open_own_server(
    folder: Path, *, nodes: int, processes: int, has_trace: bool, on_event: OnEvent
) -> AsyncIterator[OwnServer]:
    """Run a server for as long as the block does.

    Args:
        folder: where its data, log and trace go.
        nodes: of its cluster.
        processes: over which they are spread.
        has_trace: whether it writes a trace.
        on_event: is called with each event of its log that is not our doing, and with `process.ended` if it ends by
            itself.

    Raises:
        StartError: it does not get ready.

    """
    async with trio.open_nursery() as nursery:
        server = OwnServer(
            nursery, folder, nodes=nodes, processes=processes, has_trace=has_trace, on_event=on_event
        )
        try:
            await server.start()
            yield server
        finally:
            with trio.CancelScope(shield=True):
                await server.end()
            nursery.cancel_scope.cancel()
