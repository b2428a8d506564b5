"""Golden scripts of the door: a scenario as a page of prose, commands and what clients were told.

They are read as those of the consensus core are (`trio_kv.sim.script`), and carried out in the whole world: the real
supervisor, nodes, gateway and door, on twins of disks and sockets, under all judges. Nothing goes wrong but what the
page says. A seed draws what is left, so a page has the same lines each time.

Each command is a method `do_<command>` of `ScriptedHouse`.
"""

import json
import re
from functools import partial
from typing import Any

import attrs
import trio

from tests.sim.test_scenarios_storage import PLAN
from trio_kv.check.violation import Violation
from trio_kv.replica.replica import Replica
from trio_kv.sim.result import Result
from trio_kv.sim.script import INDENT, parse
from trio_kv.sim.whole.clients import PORT
from trio_kv.sim.whole.sockets import Endpoint
from trio_kv.sim.whole.world import WholeWorld
from trio_kv.wire.node_status import State

PATIENCE_S = 20.0
LOOK_S = 0.01
SEED = 3
"""Of a house whose door waits long for whoever is silent."""


def run_door_script(text: str) -> str:
    """Carry out a script; return it with the outputs as they are now.

    Raises:
        Violation: a judge found something, or a command waits for what does not come.

    """
    lines = list(parse(text))
    first = next(line for line, is_command in lines if is_command)
    settings = dict(re.findall(r"(\w+)=(\d+)", first))
    house = ScriptedHouse(lines, nodes=int(settings["nodes"]), window=int(settings["window"]))
    house.run()
    return "\n".join(house.page) + "\n"


class Connection:
    """One connection of a client, and what came over it."""

    def __init__(self, end: Endpoint) -> None:
        self.end = end
        self.lines: list[str] = []
        self._received = b""

    def take(self) -> None:
        """Receive what has come."""
        while self.end.is_readable:
            chunk = self.end.receive_nowait()
            if chunk == b"":
                raise Violation(f"the door closed a connection behind {self.lines} {self._received!r}")
            self._received += chunk or b""
        *lines, self._received = self._received.split(b"\n")
        self.lines += [line.decode() for line in lines]


class ScriptedHouse(WholeWorld):
    """A house to which happens what a page says."""

    def __init__(self, lines: list[tuple[str, bool]], *, nodes: int, window: int) -> None:
        super().__init__(attrs.evolve(PLAN, seed=SEED, nodes=nodes, clients=0))
        self.page: list[str] = []
        self._script = lines
        self._window = window
        self._connections: dict[str, Connection] = {}
        self._filled = 0

    def draw_watch_window(self) -> int:
        return self._window

    def _build(self) -> None:
        super()._build()
        # They would draw changes of their own.
        self.watchers = []

    async def live(self) -> Result:
        self.begin()
        for line, is_command in self._script:
            self.page.append(line)
            if is_command:
                name, *arguments = line[2:].split()
                with trio.move_on_after(PATIENCE_S) as scope:
                    told = await getattr(self, f"do_{name.replace('-', '_')}")(*arguments)
                if scope.cancelled_caught:
                    raise Violation(f"{line!r} takes too long; {self.describe()}")
                self.page += [INDENT + each for each in told or ()]
        for connection in self._connections.values():
            connection.end.close()
        return await self.heal_and_judge()

    # Nodes

    async def do_cluster(self, *_settings: str) -> None:
        """`cluster nodes=3 window=64`: start nodes; the gateway tells watches of so many revisions at most."""
        await self.do_lead("1")

    async def do_lead(self, node: str) -> None:
        """`lead 2`: let a node lead, and all follow it."""
        while not self.is_led() or self._leader() != int(node):
            if self.is_led():
                self.cluster.transfer(int(node))
            await trio.sleep(0.2)

    async def do_crash(self, *nodes: str) -> list[str]:
        """`crash 1 2`, `crash leader`: let power fail at nodes; they stay down."""
        told = []
        for node in nodes:
            number = self._leader() if node == "leader" else int(node)
            told += [f"n{number} crashes"] if node == "leader" else []
            self._take_down(number)
        await trio.sleep(LOOK_S)
        return told

    async def do_start(self, *nodes: str) -> None:
        """`start 1 2`: start nodes that are down, and wait until all follow one leader."""
        for node in nodes:
            while not self.is_up(int(node)):
                self.restart(int(node), State.STOPPED)
                await trio.sleep(LOOK_S)
        await self.wait_until("all follow one leader", PATIENCE_S, self.is_led)

    async def do_snapshot(self, *nodes: str) -> None:
        """`snapshot 1 2`: let nodes take a snapshot of all that they have applied, and wait for it."""
        for node in nodes:
            replica = self.replica(int(node))
            assert replica is not None
            applied = replica.machine.applied
            self.cluster.snapshot(int(node))
            stored = partial(_has_stored, replica, applied)
            await self.wait_until("a snapshot", PATIENCE_S, stored)

    async def do_partition(self, groups: str) -> None:
        """`partition 1/2,3`: nothing passes between groups of nodes."""
        self.cluster.faults.partition(
            [[int(node) for node in group.split(",")] for group in groups.split("/")]
        )

    async def do_heal(self) -> None:
        """`heal`: all links work, and all nodes follow one leader and hold the same."""
        self.cluster.faults.heal()
        await self.wait_until("all follow", PATIENCE_S, lambda: self.is_led() and self.is_at_rest())

    async def do_sleep(self, for_s: str) -> None:
        """`sleep 0.5`: let time pass."""
        await trio.sleep(float(for_s))

    # Clients

    async def do_send(self, name: str, *words: str) -> list[str]:
        """`send c {"key": "k"}`: send a line over the connection of that name, and wait for its reply."""
        asked: dict[str, Any] = json.loads(" ".join(words))
        connection = await self._connection(name)
        asked["id"] = asked.get("id", name)
        connection.end.send_nowait(json.dumps(asked).encode() + b"\n")
        start = f'{{"id": {json.dumps(asked["id"])},'
        while True:
            connection.take()
            for line in connection.lines:
                if line.startswith(start):
                    connection.lines.remove(line)
                    return ["{" + line.removeprefix(start).lstrip()]
            await connection.end.wait_readable()

    async def do_fill(self, name: str, key: str, count: str, size: str) -> list[str]:
        """`fill c k 20 1000`: set a key so many times, to texts of so many letters."""
        reply = "{}"
        for _ in range(int(count)):
            self._filled += 1
            value = f"{self._filled}{'x' * int(size)}"
            (reply,) = await self.do_send(name, json.dumps({"key": key, "value": value, "meta": True}))
        return [f"revision {json.loads(reply)['revision']}"]

    async def do_watch(self, name: str, text: str, *settings: str) -> list[str]:
        """`watch w k from=7 progress=1`: begin a watch of that name, over a connection of its own."""
        asked: dict[str, Any] = {"op": "watch", "prefix": "" if text == "*" else text}
        return await self.do_send(
            name, json.dumps(asked | {key: json.loads(value) for key, value in _pairs(settings)})
        )

    async def do_unwatch(self, name: str) -> list[str]:
        """`unwatch w`: end it."""
        return await self.do_send(name, json.dumps({"op": "unwatch"}))

    async def do_hear(self, name: str, *what: str) -> list[str]:
        """`hear w for=2 [revisions]`: read for so long; whoever hears nothing does not read."""
        options, connection = dict(_pairs(what)), self._connections[name]
        with trio.move_on_after(float(options["for"])):
            while True:
                connection.take()
                await connection.end.wait_readable()
        lines, connection.lines = connection.lines, []
        if "revisions" in what:
            # Texts are long there.
            return [_brief(lines)]
        return lines

    async def do_leave(self, name: str) -> None:
        """`leave w`: drop the connection."""
        self._connections.pop(name).end.close()

    # How it is done

    def _leader(self) -> int:
        leader = self.leading()
        return 0 if leader is None else leader.id

    async def _connection(self, name: str) -> Connection:
        if name not in self._connections:
            while True:
                try:
                    self._connections[name] = Connection(self.network.connect(PORT))
                    break
                except ConnectionRefusedError:
                    await trio.sleep(LOOK_S)
        return self._connections[name]


def _has_stored(replica: Replica, index: int) -> bool:
    return replica.snapshots.stored.index >= index


def _pairs(settings: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, value) for name, equals, value in (each.partition("=") for each in settings) if equals]


def _brief(lines: list[str]) -> str:
    """Return which revisions lines are about, and what else is told."""
    told = [json.loads(line) for line in lines]
    words = [str(each["revision"]) for each in told if "events" in each]
    words += [f"{each['event']} {each['revision']}" for each in told if "event" in each]
    return " ".join(words)
