"""Keys that end, in the core world: leaders, clocks, snapshots and restarts change nothing of their time."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec
import pytest

from tests.sim.test_scenarios_storage import leader_of, make_world, stop
from trio_kv.kv.commands import Command, Expire, OpenSession, Write
from trio_kv.kv.expiry import Expiry
from trio_kv.kv.operations import Set
from trio_kv.replica.driver import TakeSnapshot
from trio_kv.replica.replica import Replica
from trio_kv.sim.world import World
from trio_kv.wire.node_port import Propose, ReplyTo

ME = ReplyTo(0, 77)
"""Nobody waits for the answers."""


class Keys:
    """Sets keys that end, under a session of its own, and looks whether they are there."""

    def __init__(self, world: World) -> None:
        """Open the session."""
        self.world = world
        self.session = self._commit(OpenSession(10**12))
        self._seq = 0

    def put(self, key: str, ttl_s: float) -> None:
        """Set a key, and wait until that is committed."""
        self._seq += 1
        self._commit(Write(self.session, self._seq, 0, Set(key, msgspec.Raw(b"1"), ttl=ttl_s)))

    def put_many(self, count: int, ttl_s: float) -> None:
        """Set the keys m0, m1 and so on at once, and wait until the last of them is committed."""
        commands = [
            Write(self.session, self._seq + number, 0, Set(f"m{number - 1}", msgspec.Raw(b"1"), ttl=ttl_s))
            for number in range(1, count + 1)
        ]
        self._seq += count
        self._wait_for(commands)

    def send(self) -> None:
        """Let a write be on its way."""
        self._seq += 1
        write = Write(self.session, self._seq, 0, Set("other", msgspec.Raw(b"%d" % self._seq)))
        self.world.request(leader_of(self.world).id, Propose(ME, self.world._next_number(), [write]))

    def _commit(self, command: Command) -> int:
        return self._wait_for([command])

    def _wait_for(self, commands: Sequence[Command]) -> int:
        world = self.world
        number = world._next_number()
        world.request(leader_of(world).id, Propose(ME, number, commands))

        def index() -> int:
            entries = reversed(world.chronicle.entries)
            return next((entry.index for entry in entries if entry.command is commands[-1]), 0)

        world.run_until_true("it is committed", 5.0, lambda: bool(index()))
        return index()

    def holders(self, key: str) -> set[int]:
        """Return the living nodes that hold a key."""
        return {replica.id for replica in self.world.living() if key in replica.machine.items}


def change_leader(world: World) -> None:
    """Let the leader's power fail, and bring it back when another one leads."""
    old = leader_of(world)
    stop(world, old)
    world.run_until_true("another leader", 5.0, lambda: world.leader() not in {None, old})
    old.start()


def pass_time(world: World, for_s: float, is_true: Callable[[], bool]) -> None:
    """Let time pass in small steps, after each of which something must be true."""
    end_s = world.now + for_s
    while world.now < end_s:
        world.run_until(min(end_s, world.now + 0.01))
        assert is_true(), f"not at {world.now:.2f} s"


def expiry_of(replica: Replica) -> Expiry:
    """Return which keys of a node end."""
    return replica.machine.expiry


def expiries(world: World) -> int:
    """Return how many entries were written to let something end."""
    return sum(isinstance(entry.command, Expire) for entry in world.chronicle.entries)


@pytest.mark.parametrize("seed", range(3))
def test_C6_a_key_ends_in_its_time_over_reigns_without_a_write(seed: int) -> None:
    """Leaders change every second, and nobody writes: the key ends in its time, by the only entry that lets one end."""
    world = make_world(seed=60 + seed, clients=0)
    keys = Keys(world)
    keys.put("k", 8.0)
    begun_s = world.now
    for _ in range(6):
        pass_time(world, 1.0, lambda: bool(keys.holders("k")))
        change_leader(world)
    assert expiries(world) == 0
    world.run_until_true("it ends", 30.0, lambda: not keys.holders("k"))
    lasted_s = world.now - begun_s
    # An election takes a second at most, with power that fails.
    assert 8.0 - 0.1 <= lasted_s <= 8.0 + 6 * 1.0 + 1.0, lasted_s
    assert expiries(world) == 1
    world.finish()


def test_C6_clocks_that_leap_or_run_apart_take_nothing_of_a_key() -> None:
    """An hour's leap of every clock, the leader's too, costs a key at most what an election would."""
    world = make_world(seed=70, clients=0)
    keys = Keys(world)
    keys.put("k", 6.0)
    begun_s = world.now
    for node in world.nodes.values():
        node.jump(3600.0)
        pass_time(world, 0.5, lambda: len(keys.holders("k")) == len(world.nodes))
    for node, rate in zip(world.nodes.values(), (0.9, 1.0, 1.1), strict=True):
        node.set_rate(rate)
    pass_time(world, 2.0, lambda: len(keys.holders("k")) == len(world.nodes))
    world.run_until_true("it ends", 10.0, lambda: not keys.holders("k"))
    assert 6.0 / 1.1 - 3 * 0.7 <= world.now - begun_s <= 6.0 / 0.9 + 3.0
    world.finish()


def test_C6_snapshots_and_a_restart_of_all_nodes_keep_the_time() -> None:
    """What a snapshot tells of a key is enough: it ends after the restart, and not before its time."""
    world = make_world(seed=80, clients=0)
    keys = Keys(world)
    keys.put("short", 2.0)
    keys.put("long", 60.0)
    begun_s = world.now
    for node in world.nodes.values():
        node.post(TakeSnapshot())
    world.run_until_true(
        "all have a snapshot",
        10.0,
        lambda: all(replica.snapshots.stored.index for replica in world.living()),
    )
    for node in world.nodes.values():
        stop(world, node)
    world.run_until(world.now + 5.0)
    for node in world.nodes.values():
        node.start()
    # The time without a leader counts for nobody.
    world.run_until_true("a leader", 5.0, lambda: world.leader() is not None)
    assert keys.holders("short") == keys.holders("long") == {node.id for node in world.nodes.values()}
    world.run_until_true("it ends", 10.0, lambda: not keys.holders("short"))
    assert world.now - begun_s >= 7.0
    assert keys.holders("long")
    world.finish()


def test_C6_a_key_written_again_in_time_lives_on_at_a_new_leader() -> None:
    """Written again just before it is due, while the leader changes: no node lets it end."""
    world = make_world(seed=90, clients=0)
    keys = Keys(world)
    keys.put("k", 2.0)
    for _ in range(4):
        world.run_until(world.now + 1.2)
        keys.put("k", 2.0)
        change_leader(world)
        assert keys.holders("k")
    assert expiries(world) == 0
    world.finish()


def test_writes_go_between_the_entries_that_end_many_keys() -> None:
    """Thousands of keys are due at one moment: an entry ends a thousand of them, and holds up nothing else."""
    world = make_world(seed=95, clients=0, snapshot_log_bytes_min=1 << 30)
    keys = Keys(world)
    keys.put_many(3_500, 2.0)
    due_s = world.now + 2.0
    world.run_until(due_s - 0.1)
    for number in range(300):
        world.at(due_s - 0.1 + 0.001 * number, keys.send)
    world.run_until_true("they are gone", 5.0, lambda: not any(map(len, map(expiry_of, world.living()))))
    entries = world.chronicle.entries
    places = [entry.index for entry in entries if isinstance(entry.command, Expire)]
    ended = [len(world.chronicle.changes_of("m").get(index, {})) for index in places]
    assert ended == [1_000, 1_000, 1_000, 500]
    assert all(after - before > 1 for before, after in pairwise(places)), places
    world.finish()
