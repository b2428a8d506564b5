"""The nodes of a golden script, their disks, and the judge who watches them (see `sim.script`)."""

from collections import deque
from random import Random

import msgspec

from trio_kv.raft.config import RaftConfig
from trio_kv.raft.entry import Entry
from trio_kv.raft.events import DEBUG
from trio_kv.raft.leader import Leader
from trio_kv.raft.log import Log
from trio_kv.raft.messages import Message
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.raft.voters import Voters


class Text(msgspec.Struct, frozen=True, gc=False):
    """A command of no meaning: the core never looks into one."""

    text: str

    def encode(self) -> bytes:
        """Return the text's bytes."""
        return self.text.encode()

    def __str__(self) -> str:
        return self.text


class Disk:
    """What a node has durably, and the writes on their way there, oldest first."""

    def __init__(self) -> None:
        """Be empty."""
        self.hard_state = HardState()
        self.entries: list[Entry] = []
        self.queue: deque[Write] = deque()
        self.is_held = False

    def complete(self) -> Ticket:
        """Carry out the oldest write."""
        write = self.queue.popleft()
        if write.hard_state is not None:
            self.hard_state = write.hard_state
        if write.truncate_from is not None:
            del self.entries[write.truncate_from - 1 :]
        self.entries.extend(write.entries)
        assert not self.entries or self.entries[-1].term <= self.hard_state.term, (
            "an entry came before its term (D7)"
        )
        return write.ticket

    def has(self, entry: Entry) -> bool:
        """Return whether the entry is durable here."""
        return len(self.entries) >= entry.index and self.entries[entry.index - 1] == entry


class Judge:
    """The safety rules, over the whole history of a script.

    - Election Safety: a term has one leader, restarts included.
    - State Machine Safety: an index is committed with one entry, on whichever node.
    - What is committed is durable on a majority.
    - A leader's `match` of a follower never passes what is durable there (scenario L4).
    - A read is given an index that covers all that was committed anywhere when it came.
    - Terms and commit indexes never go back, and no node forgets a term in which it spoke (scenario D7).
    """

    def __init__(self) -> None:
        """Know nothing yet."""
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, Entry] = {}
        self._seen: dict[int, tuple[int, int]] = {}
        self._spoken: dict[int, int] = {}
        self._asked: dict[tuple[int, str], int] = {}

    def check(self, nodes: "dict[int, ScriptNode]") -> None:
        """Assert what must hold after every step."""
        for node in nodes.values():
            if not node.is_up:
                continue
            raft = node.raft
            seen = self._seen.get(node.id, (0, 0))
            assert raft.term >= seen[0], f"n{node.id} went back from term {seen[0]} to {raft.term}"
            assert raft.commit >= seen[1], f"n{node.id} went back from commit {seen[1]} to {raft.commit}"
            self._seen[node.id] = (raft.term, raft.commit)
            if isinstance(raft.role, Leader):
                leader = self.leaders.setdefault(raft.term, node.id)
                assert leader == node.id, f"two leaders in term {raft.term}: n{leader} and n{node.id}"
                self._check_match(raft, raft.role, nodes)

    def _check_match(self, raft: Raft, role: Leader, nodes: "dict[int, ScriptNode]") -> None:
        for peer, progress in role.progress.items():
            other = nodes[peer]
            if progress.match and other.is_up and other.raft.term <= raft.term and other.is_known_to(raft):
                entry = raft.log.slice(progress.match, progress.match)[0]
                assert other.disk.has(entry), f"n{raft.id} counts {entry} on n{peer}, which does not have it"

    def commit(self, node: "ScriptNode", entries: tuple[Entry, ...], nodes: "dict[int, ScriptNode]") -> None:
        """Assert that these entries may be applied."""
        for entry in entries:
            known = self.committed.setdefault(entry.index, entry)
            assert known == entry, f"n{node.id} applies {entry}, but {known} was committed at that index"
        last = entries[-1]
        holders = {other.id for other in nodes.values() if other.disk.has(last)}
        assert Voters(nodes).has_majority(holders), (
            f"n{node.id} commits {last}, durable on {len(holders)} of {len(nodes)}"
        )

    def asks(self, node: int, context: str) -> None:
        """Note what is committed, and may have been acknowledged, when a read comes."""
        self._asked[node, context] = max(self.committed, default=0)

    def reads(self, node: int, context: str, index: int) -> None:
        """Assert that a read sees all that was acknowledged before it came."""
        least = self._asked[node, context]
        assert index >= least, f"n{node} reads {context} at {index}, but {least} was committed before"

    def sent(self, message: Message) -> None:
        """Note in which term a node has spoken."""
        self._spoken[message.source] = max(message.term, self._spoken.get(message.source, 0))

    def restarts(self, node: "ScriptNode") -> None:
        """Let a node come back without what it did not store: its commit index, or a term that nobody heard of."""
        term, spoken = node.disk.hard_state.term, self._spoken.get(node.id, 0)
        assert term >= spoken, f"n{node.id} spoke in term {spoken}, and comes back in term {term} (D7)"
        self._seen[node.id] = (term, 0)

    def wiped(self, node: "ScriptNode") -> None:
        """Let a node come back as another."""
        self._spoken.pop(node.id, None)


class ScriptNode:
    """A node of a script: its core, its disk, and what it has applied."""

    def __init__(self, number: int, peers: tuple[int, ...], config: RaftConfig, random: Random) -> None:
        """Be a node that was not started yet."""
        self.id = number
        self.peers = peers
        self.disk = Disk()
        self.is_up = False
        self.is_gathering = False
        self.incarnation = _first_incarnation(number)
        self.raft: Raft
        self._config = config
        self._random = random
        self._starts = 0

    def start(self, now: float) -> None:
        """Start from what the disk holds."""
        self._starts += 1
        self.is_gathering = False
        self.disk.queue.clear()
        self.raft = Raft(
            id=self.id,
            peers=self.peers,
            config=self._config,
            random=self._random,
            incarnation=self.incarnation,
            # Where the cluster was made, all nodes were told of one another; of later ones they have to hear.
            incarnations={peer: _first_incarnation(peer) for peer in self.peers},
            now=now,
            hard_state=self.disk.hard_state,
            log=Log(self.disk.entries),
            events_level=DEBUG,
        )
        self.raft.pending_reads.nonce = self._starts  # A drawn one is as good, but not as readable.
        self.is_up = True

    def wipe(self) -> None:
        """Lose the disk, and get a new directory for the old number."""
        self.disk = Disk()
        self.incarnation += 1

    def is_known_to(self, raft: Raft) -> bool:
        """Return whether that node has already heard of this incarnation."""
        return raft.incarnation_of(self.id) == self.incarnation

    def describe(self) -> str:
        """Return the node's line of `status`."""
        if not self.is_up:
            return f"n{self.id} down"
        raft = self.raft
        last = f"{raft.log.last_index}@{raft.log.last_term}"
        head = f"n{self.id} {raft.role.name} term={raft.term} vote={raft.vote} leader={raft.leader}"
        return f"{head} last={last} durable={raft.log.durable} commit={raft.commit}"


def _first_incarnation(number: int) -> int:
    return number * 100
