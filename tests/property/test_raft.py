"""The consensus core under seeded random schedules: whatever is lost, late, twice, held or crashed, it stays safe.

Every schedule is a golden script without a page: a list of its commands. Safety is asserted by the script's judge
after every step; at the end all faults stop, and the cluster must elect, commit and answer every read.
"""

from random import Random

import pytest

from trio_kv.sim.script_world import World

SEEDS = 160
STEPS = 90

WEIGHTS = {
    "tick": 6,
    "timeout": 4,
    "campaign": 1,
    "deliver": 8,
    "deliver some": 14,
    "stabilize": 8,
    "drop": 3,
    "duplicate": 3,
    "reverse": 3,
    "propose": 10,
    "read": 6,
    "hold-disk": 2,
    "free-disk": 3,
    "store": 5,
    "gather": 3,
    "act": 6,
    "crash": 2,
    "cut": 2,
    "heal": 3,
    "transfer": 1,
}
"""How often each kind of step comes, in proportion."""

ON_LINKS = {"drop", "duplicate", "reverse"}


class Schedule:
    """Draws the commands of one schedule, and keeps them for the report."""

    def __init__(self, seed: int) -> None:
        self.random = Random(f"schedule/{seed}")
        self.size = self.random.choice([1, 2, 3, 3, 4, 5, 5])
        self.world = World()
        self.commands: list[str] = []
        self.answers: list[str] = []
        self.do(f"cluster nodes={self.size} seed={seed} window=3 entries=2")

    def do(self, command: str) -> None:
        self.commands.append(command)
        lines = self.world.do(command)
        self.answers += [line for line in lines if " reads " in line]

    def step(self) -> None:
        random, nodes = self.random, self.world.nodes
        node = random.choice(list(nodes))
        one = nodes[node]
        if not one.is_up:
            self.do(f"restart {node}")
            return
        what = random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        other, link = random.choice(list(nodes)), f"{node}->{random.choice([*nodes, '*'])}"
        count = random.randint(1, max(1, len(one.disk.queue)))
        commands = {
            "tick": f"tick {random.choice(['0.01', '0.05', '0.2'])} quietly",
            "campaign": f"campaign {node} {random.choice(['vote', 'prevote'])}",
            "deliver": "deliver quietly",
            "deliver some": f"deliver {link} quietly",
            "stabilize": "stabilize quietly",
            "propose": f"propose {node} x*{random.randint(1, 5)}",
            "read": f"read {node} r{len(self.commands)}",
            "store": f"store {node} {count}" if one.disk.queue else f"hold-disk {node}",
            "cut": f"cut {node}->{other}",
            "transfer": f"transfer {node} {other}",
            "heal": "heal",
        }
        # Those that are not listed take a node, or a link.
        self.do(commands.get(what) or f"{what} {link if what in ON_LINKS else node}")

    def settle(self) -> None:
        """End all faults; the cluster must find a leader, commit, agree and answer."""
        self.do("heal")
        for number, node in self.world.nodes.items():
            if not node.is_up:
                self.do(f"restart {number}")
            self.do(f"act {number}")
            self.do(f"free-disk {number}")
        self.do("run 3")
        leader = next(number for number, node in self.world.nodes.items() if node.raft.is_leader)
        self.do(f"propose {leader} last")
        for number in self.world.nodes:
            self.do(f"read {number} last")
        self.do("run 1")
        commits = {node.raft.commit for node in self.world.nodes.values()}
        lasts = {node.raft.log.last_index for node in self.world.nodes.values()}
        assert commits == lasts, f"of {lasts} only {commits} are committed"
        assert len(lasts) == 1, f"the logs end at {lasts}"
        answered = {tuple(line.split()[:3:2]) for line in self.answers}
        for number in self.world.nodes:
            assert (f"n{number}", "last") in answered, f"the last read of n{number} has no answer"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_schedule(seed: int) -> None:
    """No safety rule breaks on the way, and once the faults end everything heals within seconds."""
    schedule = Schedule(seed)
    try:
        for _ in range(STEPS):
            schedule.step()
        schedule.settle()
    except AssertionError as error:
        error.add_note(
            f"seed {seed}; as a script:\n" + "\n".join(f"> {command}" for command in schedule.commands)
        )
        raise
