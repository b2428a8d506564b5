"""The nemesis: draws faults from the seed, brings them about, ends them again, and writes down when.

Lanes run side by side: one hurts nodes and the server as a whole, one single processes or hosts, one links and disks; a
further one runs the user's own command. So faults meet alone and mixed. Each lane deals from a shuffled deck: what a
run must have met comes up early, and evenly. A lane ends each fault that it began; what an end of the run leaves behind
is mended by `recovery`. More than a minority may be hurt at a time: safety must hold whatever happens, and that the
store serves is asked only when all is mended.
"""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from random import Random
from typing import Any

import attrs
import trio

from trio_kv.client.control import NoDoorError
from trio_kv.sim.chaos.cards import (
    COMMAND_CARDS,
    LINK_CARDS,
    NODE_CARDS,
    ONE_CARDS,
    Card,
    Fault,
    first_deck,
)
from trio_kv.sim.chaos.config import FaultKind
from trio_kv.sim.chaos.recovery import mend_nodes
from trio_kv.sim.chaos.target import SLOW_DOOR_TIMEOUT_S, One, Own, RefusedError, Target

BACK_S = 15.0
"""A node that is not up by then is left to the next fault, or to the recovery."""
POLL_S = 0.05
ATTEMPTS_MAX = 3
"""A fault that makes no sense just now is tried so often before the next one's turn."""


@attrs.define
class Nemesis:
    """Brings faults about until cancelled."""

    _target: Target
    """What is hurt."""
    _kinds: frozenset[FaultKind]
    """Which faults may come."""
    _random: Random
    """Draws them."""
    _now: Callable[[], float]
    """The run's clock, in seconds."""
    _fault_command: str | None = None
    """For the kind `command`."""
    faults: list[Fault] = attrs.field(factory=list, init=False)
    """All that were brought about, in order."""
    refusals: int = attrs.field(default=0, init=False)
    """Faults that made no sense when they came up."""
    problems: list[str] = attrs.field(factory=list, init=False)
    """What kept the user's command from doing its work."""
    _deaths: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    """One death after the other: nobody starts what somebody else has killed."""

    async def run(self) -> None:
        """Bring faults about until cancelled."""
        async with trio.open_nursery() as nursery:
            for cards in (NODE_CARDS, ONE_CARDS, LINK_CARDS, COMMAND_CARDS):
                wanted = [card for card in cards if card.kind in self._kinds]
                if wanted:
                    nursery.start_soon(self._run_lane, wanted, Random(self._random.getrandbits(64)))

    async def _run_lane(self, cards: Sequence[Card], random: Random) -> None:
        deck = first_deck(cards, random)
        refused = 0
        while True:
            await trio.sleep(random.uniform(0.1, 0.8))
            await self._target.wait_up()
            deck = deck or random.sample(cards, len(cards))
            try:
                await self._carry_out(deck[-1], random)
            except (NoDoorError, RefusedError):
                self.refusals += 1
                refused += 1
                if refused < ATTEMPTS_MAX:
                    continue
            deck.pop()
            refused = 0

    async def _carry_out(self, card: Card, random: Random) -> None:
        match card.kind:
            case "crash" | "stop" | "pause" | "fail-disk" | "rebuild":
                await self._hurt_node(card, random)
            case "transfer" | "snapshot":
                node, _ = await self._draw_node(card.variant, random)
                await self._at_once(card, f"{card.kind} n{node}", node)
            case "kill":
                await self._kill(card, random)
            case "freeze":
                await self._freeze(card, random)
            case "kill-one":
                await self._kill_one(card, random)
            case "freeze-one":
                await self._freeze_one(card, random)
            case "partition":
                await self._partition(card, random)
            case "cut":
                await self._cut(card, random)
            case "delay" | "drop":
                await self._spoil_links(card, random)
            case "slow-disk" | "stall-disk" | "fill-disk":
                await self._spoil_disk(card, random)
            case "command":
                await self._run_command(card, random)

    # Nodes

    async def _hurt_node(self, card: Card, random: Random) -> None:
        await mend_nodes(self._target)  # a fault whose end went wrong must not last for the rest of the run
        node, is_leader = await self._draw_node(card.variant, random)
        name = f"{card.kind} n{node}{' (leader)' if is_leader else ''}"
        from_s = self._now()
        await self._target.ask_door("stop" if card.kind == "rebuild" else card.kind, node=node)
        with self._noted(card, name, from_s):
            await trio.sleep(random.choice([0.2, 0.5, 1.0, 2.0]))
            if card.kind == "pause":
                await self._target.ask_door("resume", node=node)
                return
            if card.kind == "rebuild":
                with suppress(RefusedError):  # too few others are whole just now
                    await self._target.ask_door("rebuild", node=node, timeout_s=SLOW_DOOR_TIMEOUT_S)
            await self._raise(node)

    async def _raise(self, node: int) -> None:
        """See to it that a node that is down comes up."""
        is_asked = False
        with trio.move_on_after(BACK_S):
            while (state := await self._state(node)) != "up":
                if state in ("crashed", "stopped") and not is_asked:
                    with suppress(RefusedError):  # its process is away
                        await self._target.ask_door("restart", node=node)
                        is_asked = True
                await trio.sleep(POLL_S)

    async def _state(self, node: int) -> str:
        status = await self._target.ask_door("status")
        return next((str(each["state"]) for each in status["nodes"] if each["node"] == node), "unknown")

    async def _draw_node(self, variant: str, random: Random) -> tuple[int, bool]:
        """Return a node that runs, and whether it leads."""
        status = await self._target.ask_door("status")
        running: list[int] = [each["node"] for each in status["nodes"] if each["state"] == "up"]
        leader = status.get("leader")
        wanted = [node for node in running if variant == "any" or node == leader]
        if not wanted:
            raise RefusedError("no node leads, or none runs, just now")
        node = random.choice(wanted)
        return node, bool(node == leader)

    # Processes

    async def _kill(self, card: Card, random: Random) -> None:
        own = self._own()
        async with self._deaths:
            from_s = self._now()
            await own.kill()
            with self._noted(card, "kill of the server (SIGKILL)", from_s):
                await trio.sleep(random.choice([0.0, 0.0, 0.3, 1.0]))
                await own.start()

    async def _freeze(self, card: Card, random: Random) -> None:
        own = self._own()
        from_s = self._now()
        own.freeze()
        with self._noted(card, "freeze of the server (SIGSTOP)", from_s):
            await trio.sleep(random.choice([0.1, 0.5, 1.0, 3.0]))
            own.thaw()

    async def _kill_one(self, card: Card, random: Random) -> None:
        async with self._deaths:
            one = await self._draw_one(card.variant, random)
            from_s = self._now()
            await one.kill()
            with self._noted(card, f"kill-one {one.name} (SIGKILL)", from_s):
                await trio.sleep(random.choice([0.0, 0.0, 0.3, 1.0, 3.0]))
                with trio.move_on_after(BACK_S):
                    await one.start()

    async def _freeze_one(self, card: Card, random: Random) -> None:
        one = await self._draw_one(card.variant, random)
        from_s = self._now()
        one.freeze()
        with self._noted(card, f"freeze-one {one.name} (SIGSTOP)", from_s):
            await trio.sleep(random.choice([0.1, 0.5, 1.0, 3.0]))
            one.thaw()

    async def _draw_one(self, variant: str, random: Random) -> One:
        """Return a process that can be hurt by itself."""
        wanted: set[int] | None = None
        if variant == "leader":
            wanted = {(await self._target.ask_door("status")).get("leader") or 0}
        ones = [one for one in self._own().ones if wanted is None or wanted & set(one.nodes)]
        if not ones:
            raise RefusedError("no single process runs, or none has the leader, just now")
        return random.choice(ones)

    def _own(self) -> Own:
        assert self._target.own is not None, "only processes of our own may be hurt"
        return self._target.own

    # Links and disks

    async def _partition(self, card: Card, random: Random) -> None:
        status = await self._target.ask_door("status")
        nodes: list[int] = [each["node"] for each in status["nodes"]]
        groups = draw_partition(nodes, status.get("leader"), card.variant, random)
        sides = "/".join(",".join(map(str, group)) for group in groups)
        where = "" if card.variant == "any" else f" (leader in the {card.variant})"
        await self._spoil(card, f"partition {sides}{where}", random, [{"groups": groups}])

    async def _cut(self, card: Card, random: Random) -> None:
        status = await self._target.ask_door("status")
        nodes: list[int] = [each["node"] for each in status["nodes"]]
        if len(nodes) < 2:
            raise RefusedError("one node has no links")
        mixed = random.sample(nodes, len(nodes))
        if card.variant == "any" or len(nodes) < 3:
            links = [mixed[:2]]
            name = f"cut {links[0][0]}-{links[0][1]}"
        else:
            # One node sees all others, which are in two halves that don't see each other.
            bridge, *rest = mixed
            middle = len(rest) // 2
            links = [[a, b] for a in rest[:middle] for b in rest[middle:]]
            name = f"cut all but the bridge n{bridge}"
        await self._spoil(card, name, random, [{"link": link} for link in links])

    async def _spoil_links(self, card: Card, random: Random) -> None:
        name, unit, amounts = (
            ("ms", "ms", [5, 20, 50, 100]) if card.kind == "delay" else ("percent", "%", [2, 10, 30, 50])
        )
        amount = random.choice(amounts)
        await self._spoil(card, f"{card.kind} {amount} {unit}", random, [{name: amount}])

    async def _spoil_disk(self, card: Card, random: Random) -> None:
        node, _ = await self._draw_node(card.variant, random)
        if card.kind == "fill-disk":
            await self._spoil(card, f"fill-disk n{node}", random, [{"node": node}])
            return
        ms = random.choice([5, 20, 50]) if card.kind == "slow-disk" else random.choice([1000, 3000])
        name = f"{card.kind} n{node} ({ms} ms)"
        await self._spoil(card, name, random, [{"node": node, "ms": ms}], command="slow-disk")

    async def _spoil(
        self,
        card: Card,
        name: str,
        random: Random,
        commands: Sequence[dict[str, Any]],
        command: str | None = None,
    ) -> None:
        """Give commands, one after the other, that `heal` ends."""
        from_s = self._now()
        for arguments in commands:
            await self._target.ask_door(command or card.kind, **arguments)
        with self._noted(card, name, from_s):
            await trio.sleep(random.choice([0.5, 1.0, 2.0, 4.0]))
            await self._target.wait_up()
            await self._target.ask_door("heal")

    # Bookkeeping

    async def _at_once(self, card: Card, name: str, node: int) -> None:
        from_s = self._now()
        await self._target.ask_door(card.kind, node=node)
        with self._noted(card, name, from_s):
            pass

    async def _run_command(self, card: Card, random: Random) -> None:
        from_s = self._now()
        with self._noted(card, f"command {self._fault_command}", from_s):
            try:
                await self._shell("start")
                await trio.sleep(random.uniform(1.0, 5.0))
            finally:
                # `stop` runs even if the end of the run cut `start` short: what that has begun is mended.
                with trio.CancelScope(shield=True):
                    await self._shell("stop")

    async def _shell(self, word: str) -> None:
        line = f"{self._fault_command} {word}"
        # What it prints is for people: our own output may be read by a program.
        quiet = f"{line} >&2"
        done = await trio.run_process(quiet, shell=True, check=False, stdin=subprocess.DEVNULL)  # noqa: S604
        problem = f"the command {line!r} ended with {done.returncode}"
        if done.returncode and problem not in self.problems:
            self.problems.append(problem)

    @contextmanager
    def _noted(self, card: Card, name: str, from_s: float) -> Iterator[None]:
        fault = Fault(card.kind, name, from_s, float("inf"), card.situation)
        self.faults.append(fault)
        try:
            yield
        finally:
            fault.to_s = self._now()


def draw_partition(nodes: Sequence[int], leader: int | None, variant: str, random: Random) -> list[list[int]]:
    """Return two groups of nodes that shall not hear each other.

    Args:
        nodes: all of them.
        leader: the one that leads, if there is one.
        variant: where the leader must be: in the "minority" or in the "majority", or "any"where.
        random: draws sizes and members.

    Raises:
        RefusedError: it can't be.

    """
    if len(nodes) < 2 or (variant != "any" and (leader is None or len(nodes) < 3)):
        raise RefusedError("no leader, or too few nodes, for this partition")
    others = [node for node in random.sample(nodes, len(nodes)) if node != leader]
    if variant == "any":
        mixed = random.sample(nodes, len(nodes))
        size = random.randint(1, len(nodes) - 1)
        return [sorted(mixed[:size]), sorted(mixed[size:])]
    assert leader is not None
    size = random.randint(1, (len(nodes) - 1) // 2)
    minority = [leader, *others[: size - 1]] if variant == "minority" else others[:size]
    return [sorted(minority), sorted(set(nodes) - set(minority))]
