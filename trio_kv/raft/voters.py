"""Who decides in a consensus group, and what a majority of them has: the one place that counts majorities.

Raft is safe because any two majorities of the same voters share a node. While the members change, two sets decide
together (joint consensus, paper §6): what is decided then needs a majority of each, so it meets every majority of the
old set as well as every one of the new.

Nodes are named by whole numbers from 1 on. A node that is no voter may be heard, and counts for nothing; a voter of
which nothing is known has reached nothing. Without voters there is no majority.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import TypeVar

import attrs

Ordered = TypeVar("Ordered", int, float)


def _as_set(nodes: Iterable[int]) -> frozenset[int]:
    return frozenset(nodes)


@attrs.frozen
class Voters:
    """The nodes that decide."""

    nodes: frozenset[int] = attrs.field(converter=_as_set)
    old: frozenset[int] | None = attrs.field(default=None, converter=attrs.converters.optional(_as_set))
    """The voters before the change, as long as it is not complete; None otherwise."""

    @property
    def is_joint(self) -> bool:
        """Whether a change of members is under way."""
        return self.old is not None

    def __contains__(self, node: object) -> bool:
        return node in self.nodes or (self.old is not None and node in self.old)

    def has_majority(self, nodes: Collection[int]) -> bool:
        """Return whether these nodes are a majority: of the voters, and while joint also of the old ones."""
        return _is_majority(self.nodes, nodes) and (self.old is None or _is_majority(self.old, nodes))

    def missing(self, nodes: Collection[int]) -> int:
        """Return how many more nodes it takes at the least until these are a majority; 0 if they are one."""
        lacking = [len(half) // 2 + 1 - len(half.intersection(nodes)) for half in self._halves()]
        return max(0, *lacking)

    def majority_size(self) -> int:
        """Return how many nodes it takes at the least, for messages to people: of the larger half while joint."""
        return max(len(half) // 2 + 1 for half in self._halves())

    def reached(self, values: Mapping[int, Ordered], nothing: Ordered) -> Ordered:
        """Return the greatest value that a majority has reached.

        Args:
            values: how far each node is; nodes that are no voters may be among them.
            nothing: how far a voter is that is not among them.

        """
        reached = _reached(self.nodes, values, nothing)
        return reached if self.old is None else min(reached, _reached(self.old, values, nothing))

    def _halves(self) -> tuple[frozenset[int], ...]:
        return (self.nodes,) if self.old is None else (self.nodes, self.old)


def _is_majority(voters: frozenset[int], nodes: Collection[int]) -> bool:
    return len(voters.intersection(nodes)) * 2 > len(voters)


def _reached(voters: frozenset[int], values: Mapping[int, Ordered], nothing: Ordered) -> Ordered:
    if not voters:
        return nothing
    ranked = sorted([values.get(node, nothing) for node in voters], reverse=True)
    return ranked[len(ranked) // 2]
