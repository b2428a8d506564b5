"""Hosts of our own (`--cluster`): a process and doors for each node, joined by a cluster.toml, as on several machines.

It is made by the commands that people make theirs with. Commands to the control door go to one host after the other.
"""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

import trio

from trio_kv.client.addresses import Address, format_address
from trio_kv.client.control import NoDoorError
from trio_kv.same_code import same_code
from trio_kv.sim.chaos.own_process import OnEvent, ServerProcess
from trio_kv.sim.chaos.target import DOOR_TIMEOUT_S, One, StartError

LOOPBACK = "127.0.0.1"
PORTS = range(20_000, 30_000)
"""Below those that systems give to outgoing connections: one of these could take the port of a host that is down."""
POLL_S = 0.05


class OwnHosts:
    """Hosts of our own; see `Target` and `Own`. `open_own_hosts` makes them."""

    has_door = True
    has_ones = True

    def __init__(
        self, nursery: trio.Nursery, folder: Path, *, nodes: int, has_trace: bool, on_event: OnEvent
    ) -> None:
        """Prepare hosts that do not run yet; see `open_own_hosts`."""
        self._folder = folder
        ports = draw_ports(3 * nodes)
        self._peers = [(LOOPBACK, port) for port in ports[:nodes]]
        self.addresses: Sequence[Address] = [(LOOPBACK, port) for port in ports[nodes : 2 * nodes]]
        """Of all client doors, also those of hosts that are down."""
        self._asked = 0
        file = folder / "cluster" / "cluster.toml"
        self._hosts = [
            ServerProcess(
                nursery,
                folder,
                f"host {node}",
                nodes=(node,),
                data_dir=folder / "data" / str(node),
                options=[
                    *("--cluster", str(file), "--node", str(node)),
                    *("--port", str(self.addresses[node - 1][1])),
                    *("--control-port", str(ports[2 * nodes + node - 1])),
                ],
                has_trace=has_trace,
                on_event=on_event,
            )
            for node in range(1, nodes + 1)
        ]

    @property
    def own(self) -> "OwnHosts":
        """Its processes."""
        return self

    @property
    def ones(self) -> Sequence[One]:
        """The hosts that run."""
        return self._up()

    async def make(self) -> None:
        """Make what hosts need before they are started for the first time.

        Raises:
            StartError: says what went wrong.

        """
        place = self._folder / "cluster"
        nodes = ",".join(map(format_address, self._peers))
        # As real hosts have it, where there is what makes certificates; else they know a secret.
        certificates = ["--with-certificates"] if find_spec("cryptography") else []
        await _run("init", str(place), "--nodes", nodes, *certificates)
        (self._folder / "data").mkdir()
        for node in range(1, len(self._hosts) + 1):
            data_dir = self._folder / "data" / str(node)
            options = ("--node", str(node), "--data-dir", str(data_dir))
            await _run("create", "--cluster", str(place / "cluster.toml"), *options)

    async def ask_door(
        self, name: str, *, timeout_s: float = DOOR_TIMEOUT_S, **arguments: object
    ) -> dict[str, Any]:
        """Give a command to the control door of a host that runs; see `Target`."""
        hosts = self._up()
        if not hosts:
            raise NoDoorError("all hosts are down")
        self._asked += 1
        return await hosts[self._asked % len(hosts)].ask_door(name, timeout_s=timeout_s, **arguments)

    async def wait_up(self) -> None:
        """Wait until a host is neither dead nor frozen."""
        await trio.lowlevel.checkpoint()
        while not self._up():  # noqa: ASYNC110 - whichever of several comes first
            await trio.sleep(POLL_S)

    async def start(self) -> None:
        """See `Own`."""
        await _together(host.start for host in self._hosts if not host.is_up)

    async def kill(self) -> None:
        """See `Own`."""
        await _together(host.kill for host in self._hosts)

    def freeze(self) -> None:
        """See `Own`."""
        for host in self._up():
            host.freeze()

    def thaw(self) -> None:
        """See `Own`."""
        for host in self._hosts:
            host.thaw()

    async def revive(self) -> None:
        """See `Own`."""
        await _together(host.revive for host in self._hosts)

    async def stop(self) -> Sequence[str]:
        """See `Own`."""
        problems: list[str] = []

        async def stop(host: ServerProcess) -> None:
            problems.extend(await host.stop())

        async with trio.open_nursery() as nursery:
            for host in self._hosts:
                nursery.start_soon(stop, host)
        return problems

    async def end(self) -> None:
        """Kill all that is left."""
        await _together(host.end for host in self._hosts)

    def _up(self) -> list[ServerProcess]:
        return [host for host in self._hosts if host.is_up]


def draw_ports(count: int) -> list[int]:
    """Return ports where nobody listens."""
    found: list[int] = []
    for port in Random().sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            break
    return found


async def _together(steps: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Take steps side by side.

    Raises:
        StartError: that of one of them.

    """
    errors: list[StartError] = []

    async def take(step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except StartError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for step in steps:
            nursery.start_soon(take, step)
    if errors:
        raise errors[0]


async def _run(*words: str) -> None:
    line = same_code("trio_kv", "cluster", *words)
    done = await trio.run_process(line, capture_stdout=True, capture_stderr=True, check=False)
    if done.returncode:
        raise StartError(f"there is no cluster to break: {done.stderr.decode(errors='replace').strip()}")


@asynccontextmanager
async def open_own_hosts(
    folder: Path, *, nodes: int, has_trace: bool, on_event: OnEvent
) -> AsyncIterator[OwnHosts]:
    """Run hosts for as long as the block does.

    Args:
        folder: where their data, logs and traces go, and the file of their cluster.
        nodes: how many there are.
        has_trace: whether they write traces.
        on_event: is called with each event of their logs, and with `process.ended` if one ends by itself.

    Raises:
        StartError: they do not get ready.

    """
    async with trio.open_nursery() as nursery:
        hosts = OwnHosts(nursery, folder, nodes=nodes, has_trace=has_trace, on_event=on_event)
        try:
            await hosts.make()
            await hosts.start()
            yield hosts
        finally:
            with trio.CancelScope(shield=True):
                await hosts.end()
            nursery.cancel_scope.cancel()
