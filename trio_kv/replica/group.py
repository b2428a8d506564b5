"""Group commit: commands that wait here are appended together, so that many share what a round costs.

A round is an append to each follower, a sync of each disk, a pass of each node. While one is under way, whatever comes
waits. When it is committed, those who are answered mostly ask anew at once: were the next round begun at that moment,
they would wait for the one behind it, and there would be two groups of half the size for good. So the next one is begun
when as many have come as just had their answers, or when others had their turns and they still have not.
"""

from typing import Final

from trio_kv.raft.node import Raft
from trio_kv.wire.node_port import Propose

GROUP_S: Final = 0.01
"""So long a command waits for others at most."""
GATHER_TURNS: Final = 16
"""So many turns others have before the next round begins without those who were answered."""


class Group:
    """The commands that wait for the next round."""

    def __init__(self) -> None:
        """Have none."""
        self.proposals: list[Propose] = []
        self._came_at = 0.0
        """When the first of these came."""
        self._is_behind = False
        """Whether some of these came while a round was under way."""
        self._awaited = 0
        """How many there are to be before a round begins; 0: it need not wait for more."""

    @property
    def deadline(self) -> float:
        """When they wait no longer."""
        return self._came_at + GROUP_S if self.proposals else float("inf")

    @property
    def missing(self) -> int:
        """How many more are waited for; 0 if that is not what is waited for."""
        return max(0, self._awaited - len(self.proposals))

    def add(self, now: float, propose: Propose) -> None:
        """Let commands wait."""
        if not self.proposals:
            self._came_at = now
        self.proposals.append(propose)

    def add_late(self, proposals: list[Propose]) -> None:
        """Add commands that have waited elsewhere: none of the group waits any longer."""
        self._came_at = float("-inf")
        self.proposals += proposals

    def close(self) -> None:
        """Wait for no more of them: others had their turns."""
        self._awaited = 0

    def is_due(self, now: float, raft: Raft, in_round: int) -> bool:
        """Return whether they are to be appended, or refused, now.

        Args:
            now: the time.
            raft: this node's core.
            in_round: how many proposals of the last round have no answer yet. Once it is committed they get theirs.

        """
        if not raft.is_leader or now >= self.deadline:
            return True
        if raft.is_committing:
            self._is_behind = True
            return False
        if self._is_behind:
            self._is_behind, self._awaited = False, len(self.proposals) + in_round
        return not self.missing

    def take(self) -> list[Propose]:
        """Take them out."""
        proposals, self.proposals = self.proposals, []
        self._is_behind, self._awaited = False, 0
        return proposals
