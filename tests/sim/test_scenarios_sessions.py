"""Scenarios of clients' own sessions, each as a run of the core world. All judges look on.

The ids are those of the scenario list: C clients.
"""

from itertools import count

import pytest

from tests.sim.test_scenarios_storage import leader_of, make_world, stop
from trio_kv.kv.commands import UNSAID, ClientWrite, Command, OpenSession
from trio_kv.kv.operations import Incr
from trio_kv.replica.driver import TakeSnapshot
from trio_kv.sim.world import World
from trio_kv.wire.node_port import Propose, ReplyTo

SECRET = "00c0ffee00c0ffee"


class Client:
    """Somebody who asks whoever leads, again and again, and may not hear the answer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._numbers = count(1_000_000)
        self.ask(OpenSession(60_000_000, SECRET))
        self.ask(OpenSession(60_000_000, SECRET))
        world.run_until_true("a session", 5.0, lambda: SECRET in self.by_secret)
        self.session = self.by_secret[SECRET]

    @property
    def by_secret(self) -> dict[str, int]:
        """The sessions of clients that the leader knows."""
        replica = leader_of(self.world).replica
        assert replica is not None
        return replica.machine.sessions.by_secret

    @property
    def value(self) -> bytes | None:
        """What the counter holds, by the judges' rules."""
        item = self.world.chronicle.reference.items.get("counter")
        return None if item is None else item[0]

    def ask(self, *commands: Command) -> None:
        """Send commands to the leader."""
        self.world.request(leader_of(self.world).id, Propose(ReplyTo(0, 1), next(self._numbers), commands))

    def incr(self, seq: int, by: int = 1) -> ClientWrite:
        """Return a command; its digest is that of what it asks."""
        return ClientWrite(self.session, seq, UNSAID, Incr("counter", by), SECRET, by)


@pytest.mark.parametrize("seed", range(4))
def test_C1_a_client_asks_again_whoever_leads(seed: int) -> None:
    """Each leader dies or is cut off with a write under way, which goes to the next one as well: one effect each."""
    world = make_world(seed=50 + seed)
    client = Client(world)
    for seq in range(1, 6):
        old = leader_of(world)
        client.ask(client.incr(seq))
        world.run_until(world.now + world.random.uniform(0.0, 0.006))
        if seq % 2:
            stop(world, old)
        else:
            world.links.partition(((old.id,), tuple(node for node in world.members if node != old.id)))
        world.run_until_true("another leader", 10.0, lambda old=old: world.leader() not in {None, old})  # type: ignore[misc]
        for _ in range(3):
            client.ask(client.incr(seq))
        world.run_until_true("it is counted", 10.0, lambda seq=seq: client.value == b"%d" % seq)  # type: ignore[misc]
        if not old.is_up:
            old.start()
        world.links.heal()
        world.run_until(world.now + 0.5)
        client.ask(client.incr(seq), client.incr(seq, by=100), client.incr(max(1, seq - 1)))
        world.run_until(world.now + 0.3)
        assert client.value == b"%d" % seq
    world.finish()
    assert client.value == b"5"


def test_C1_a_snapshot_holds_what_a_client_was_answered() -> None:
    """Whoever leads after a start from its snapshot repeats no write, and a repeated opening opens nothing."""
    world = make_world(seed=60, snapshot_log_bytes_min=400)
    client = Client(world)
    client.ask(client.incr(1))
    world.run_until_true("it is counted", 5.0, lambda: client.value == b"1")
    for _ in range(3):
        leader = leader_of(world)
        leader.post(TakeSnapshot())
        world.run_until(world.now + 0.5)
        stop(world, leader)
        world.run_until_true("another leader", 10.0, lambda old=leader: world.leader() not in {None, old})  # type: ignore[misc]
        client.ask(client.incr(1), OpenSession(60_000_000, SECRET))
        world.run_until(world.now + 0.5)
        leader.start()
        world.run_until(world.now + 0.5)
        assert client.by_secret[SECRET] == client.session
    world.finish()
    assert client.value == b"1"
