"""Whom to ask to read: a coin among the followers, and nobody who was too slow just now, if others can be asked.

Followers of this process are asked before those of others: the way there and back over a link costs more than what is
asked.
"""

from collections.abc import Sequence
from random import Random

from trio_kv.replica.port import NodeHandle

REST_S = 1.0
"""A node that was too slow to answer is not asked for this long, if others can be. Then one read tries it, and no
other before that is answered, or a rest twice as long is over: a node that never answers costs one hedge a rest."""
REST_MAX_S = 16.0
HEDGES_A_READ = 0.1
"""Hedging is paid for: each read earns so much of a hedge. When all nodes are slow, because there is too
much to do, asking twice would only make it worse."""
HEDGES_MAX = 1000.0
"""What can be saved up."""


class Readers:
    """The nodes that can be asked to read, those that rest, and what is left to pay for hedges.

    Args:
        random: tosses the coin.

    """

    def __init__(self, random: Random) -> None:
        """Know nobody yet; see the class."""
        self._random = random
        self._handles: Sequence[NodeHandle] = ()
        self._followers: Sequence[NodeHandle] = ()
        self._has_far = False
        """Whether some are in other processes."""
        self.resting: dict[int, tuple[float, float]] = {}
        """By node: when its rest is over, and how long that was. An answer ends it."""
        self.hedges = HEDGES_MAX
        """What is saved up. Who asks looks at both first: for nearly all reads there is nothing to do."""

    def update(self, handles: Sequence[NodeHandle]) -> None:
        """Ask these nodes from now on. Called at each change of a node's role or state."""
        self._handles = handles
        self._followers = [handle for handle in handles if handle.status.role != "leader"]
        self._has_far = not all(handle.is_near for handle in handles)

    def choose(self, now: float, asked: Sequence[int], kept: int) -> NodeHandle | None:
        """Return whom to ask: the kept node, or one that does not rest, followers of this process first; None: nobody.

        Args:
            now: the time.
            asked: nodes that were asked already.
            kept: a node that is asked again if it can be; 0 for none.

        """
        readers, followers = self._handles, self._followers
        if asked:
            readers = [handle for handle in readers if handle.status.node not in asked]
            followers = [handle for handle in followers if handle.status.node not in asked]
        rested = followers
        if self.resting:
            rested = [handle for handle in followers if self._may_try(now, handle.status.node)]
        if self._has_far:
            rested = [handle for handle in rested if handle.is_near] or rested
        choice = rested or followers or readers
        if not choice:
            return None
        if kept:
            for handle in choice:
                if handle.status.node == kept:
                    return handle
        return choice[int(self._random.random() * len(choice))]

    def was_asked(self, now: float, node: int) -> None:
        """Let nobody else try a node whose rest was over, before it has answered this one."""
        if node in self.resting:
            self.rest(now, node)

    def was_answered(self, node: int) -> None:
        """Ask a node again that is quick enough."""
        self.resting.pop(node, None)

    def rest(self, now: float, node: int) -> None:
        """Let a node rest; for twice as long, if it has not answered since its last rest was over."""
        until, rest_s = self.resting.get(node, (0.0, REST_S / 2))
        if until <= now:
            rest_s = min(2 * rest_s, REST_MAX_S)
            self.resting[node] = (now + rest_s, rest_s)

    def earn_hedge(self) -> None:
        """Let one more read pay its share of a hedge."""
        self.hedges = min(self.hedges + HEDGES_A_READ, HEDGES_MAX)

    def may_hedge(self, now: float, node: int) -> bool:
        """Let a node rest that is too slow; return whether a hedge can be paid for, and if so it is."""
        self.rest(now, node)
        if self.hedges < 1:
            return False
        self.hedges -= 1
        return True

    def _may_try(self, now: float, node: int) -> bool:
        return node not in self.resting or self.resting[node][0] <= now
