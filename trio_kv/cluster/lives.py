"""Which incarnations of nodes are known in this process: by its manifest, and by what its nodes have heard."""

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
        heard = [dict(each.replica.raft.incarnations()).get(node, 0) for each in self._members.running()]
        return max([self._disks.incarnations.get(node, 0), *heard])

    def heard(self, incarnations: dict[int, int]) -> None:
        """Let the nodes here know; what they know already changes nothing."""
        for node, incarnation in incarnations.items():
            if incarnation > self.known(node):
                for each in self._members.running():
                    each.inbox.post(Heard(node, incarnation))
