"""Which incarnations of nodes are known in this process: by its manifest, and by what its nodes have heard."""

from collections.abc import Collection

import attrs

from trio_kv.cluster.disks import Disks
from trio_kv.cluster.members import Members
from trio_kv.replica.driver import Heard


@attrs.frozen
class KnownLives:
    """See `others.Lives`. What nodes have heard is in their logs before they build on it (decision 0048)."""

    _disks: Disks
    _members: Members

    def known(self, node: int) -> int:
        """Return the highest incarnation of a node that was heard of here; 0 if none was."""
        heard = [each.replica.raft.incarnation_of(node) for each in self._members.running()]
        return max([self._disks.incarnations.get(node, 0), *heard])

    def vouch(self, nodes: Collection[int]) -> dict[int, int]:
        """Return the highest incarnations of these nodes that were ever heard of here.

        Only nodes that run with all of their data remember what they have heard: one that does not run is not asked,
        and one that is being filled learns it with its last piece (decision 0048).

        Raises:
            ValueError: a node here is not like that.

        """
        for node, member in self._members.all.items():
            if not member.has_all_data:
                raise ValueError(f"node {node} does not run with all of its data, so it may have forgotten")
        return {node: self.known(node) for node in nodes}

    def heard(self, incarnations: dict[int, int]) -> None:
        """Let the nodes here know; what they know already changes nothing."""
        for node, incarnation in incarnations.items():
            if incarnation > self.known(node):
                for each in self._members.running():
                    each.inbox.post(Heard(node, incarnation))
