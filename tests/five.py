"""Five nodes without a driver, whose messages arrive when a test says so, and whose disks store when it lets them.

They share no manifest: of others' incarnations each node knows what it heard, and after a restart what it stored.
"""

from random import Random

from trio_kv.raft.config import RaftConfig
from trio_kv.raft.log import Log
from trio_kv.raft.messages import Message, RequestVote, TimeoutNow
from trio_kv.raft.node import Raft
from trio_kv.sim.script_nodes import Disk


class Five:
    """The nodes, their disks, and what is on the wire."""

    def __init__(self) -> None:
        """Start empty."""
        self.now = 0.0
        self.wire: list[Message] = []
        self.disks = {node: Disk() for node in range(1, 6)}
        self.incarnations = dict.fromkeys(self.disks, 1)
        self.nodes = {node: self._start(node) for node in self.disks}

    def _start(self, node: int, *, is_rebuilding: bool = False) -> Raft:
        disk = self.disks[node]
        return Raft(
            id=node,
            peers=[peer for peer in self.disks if peer != node],
            config=RaftConfig(commit_delay_s=0.0),
            random=Random(f"five {node}"),
            incarnation=self.incarnations[node],
            now=self.now,
            is_rebuilding=is_rebuilding,
            hard_state=disk.hard_state,
            log=Log(disk.entries.copy()),
        )

    def restart(self, node: int) -> None:
        """Let a node lose what is not on its disk."""
        self.disks[node].queue.clear()
        self.disks[node].is_held = False
        self.nodes[node] = self._start(node)

    def replace(self, node: int) -> None:
        """Let a node lose its disk, and be rebuilt on an empty one."""
        self.disks[node] = Disk()
        self.incarnations[node] += 1
        self.nodes[node] = self._start(node, is_rebuilding=True)

    def settle(self, node: int) -> None:
        """Carry out all that a node wants; its disk stores at once, unless it is held."""
        raft, disk = self.nodes[node], self.disks[node]
        while True:
            ready = raft.ready(self.now)
            self.wire += ready.messages
            if ready.write is not None:
                disk.queue.append(ready.write)
            if disk.queue and not disk.is_held:
                raft.stored(self.now, disk.complete())
            elif ready.write is None:
                return

    def free(self, node: int) -> None:
        """Let a disk that was held store all, and go on."""
        self.disks[node].is_held = False
        self.settle(node)

    def hear(self, message: Message) -> None:
        """Let a message arrive."""
        self.nodes[message.target].receive(self.now, message)
        self.settle(message.target)

    def is_rebuilding(self, node: int) -> bool:
        """Return whether a node counts for nothing yet."""
        return self.nodes[node].is_rebuilding

    def deliver(self, *nodes: int) -> None:
        """Let all messages between these nodes arrive, and what they lead to."""
        while due := [each for each in self.wire if {each.source, each.target} <= set(nodes)]:
            self.wire = [each for each in self.wire if each not in due]
            for message in due:
                self.hear(message)

    def elect(self, node: int) -> None:
        """Let a node lead the others."""
        while not self.nodes[node].is_leader:
            self.now = max(self.now, self.nodes[node].deadline)
            self.nodes[node].timeout(self.now)
            self.settle(node)
            self.deliver(*self.nodes)
        self.beat(node, *self.nodes)

    def stand(self, node: int, leader: int) -> None:
        """Let the leader ask a node to take over."""
        raft = self.nodes[leader]
        self.hear(TimeoutNow(leader, node, raft.term, raft.incarnation, False))

    def beat(self, leader: int, *nodes: int) -> None:
        """Let the leader's heartbeats arrive, and what they lead to."""
        self.now = max(self.now, self.nodes[leader].deadline)
        self.nodes[leader].timeout(self.now)
        self.settle(leader)
        self.deliver(*nodes)

    def beats(self, leader: int, *nodes: int) -> None:
        """Let so many heartbeats arrive that a rebuild ends, if it can."""
        for _ in range(20):
            self.beat(leader, *nodes)

    def let_vote_and_replace(self, node: int, candidate: int, leader: int) -> list[Message]:
        """Let a node vote for a candidate of whom nobody else knows, and lose its disk.

        Returns:
            the candidate's requests to all others, which are late.

        """
        self.stand(candidate, leader)
        self.deliver(node, candidate)
        assert self.nodes[node].vote == candidate
        self.replace(node)
        late: list[Message] = [
            each for each in self.wire if isinstance(each, RequestVote) and each.target != node
        ]
        self.wire = []
        return late
