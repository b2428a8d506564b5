"""The match index: what a leader counts on is on that follower's disk, and never less than before (paper figure 2).

A match that is too high commits what a majority does not have. Most often nobody notices: the next append brings it.
"""

from collections.abc import Mapping

from trio_kv.check.durability import Shadow
from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View


class MatchIndex(Judge):
    """Compares what leaders think with what disks hold."""

    def __init__(self, disks: Mapping[int, Shadow]) -> None:
        """Judge by these disks, kept up to date by somebody else."""
        self._disks = disks
        self._wiped: set[int] = set()
        """Nodes that are being rebuilt: a leader that did not hear of it yet may count on what is gone."""

    def wiped(self, node: int) -> None:
        """Note that a disk is gone, and all that leaders know of it."""
        self._wiped.add(node)

    def rebuilt(self, node: int) -> None:
        """Go on with a node that its leader knows again."""
        self._wiped.discard(node)

    def matched(self, view: View, peer: int, before: int, match: int) -> None:
        """Refuse a match that a follower's disk does not bear out, or that went back."""
        if peer in self._wiped:
            return
        if match < before:
            raise Violation(f"{view} counts n{peer} up to {match}, and up to {before} before")
        disk = self._disks[peer]
        # In a later term others may have overwritten what this leader still counts; it can't commit by it any more.
        if match > disk.end and disk.term <= view.term:
            raise Violation(f"{view} counts n{peer} up to {match}, whose disk ends at {disk.end}")
