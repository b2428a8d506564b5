"""The order of a node's indices: dropped <= snapshot <= committed, and dropped <= applied <= committed <= last.

The log is dropped only behind a snapshot, a snapshot holds only what is committed, and only that is applied (paper
figure 2, §7). Judged whenever one of them moves, and at each start.
"""

from collections.abc import Sequence

from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.raft.entry import Entry, LogPosition
from trio_kv.raft.ready import HardState


class IndexOrder(Judge):
    """Knows each node's newest snapshot, and what is committed anywhere."""

    def __init__(self, committed: Sequence[Entry]) -> None:
        """Know no snapshot; `committed` is all that was ever committed, kept up to date by somebody else."""
        self._committed = committed
        self._snapshots: dict[int, int] = {}

    def started(self, view: View, hard_state: HardState) -> None:
        """Judge what a node begins with: its log begins at its snapshot."""
        del hard_state
        self._snapshots[view.id] = view.base
        self._judge(view)

    def snapshot_stored(self, node: int, place: LogPosition) -> None:
        """Refuse a snapshot of what is not committed."""
        index, term = place
        if place == (0, 0):
            return  # Of an empty state, asked for by somebody.
        if index > len(self._committed) or self._committed[index - 1].term != term:
            raise Violation(
                f"n{node} stored a snapshot up to {index}@{term}; {len(self._committed)} are committed"
            )
        self._snapshots[node] = max(index, self._snapshots.get(node, 0))

    def compacted(self, view: View) -> None:
        """Judge a log that begins later."""
        self._judge(view)

    def committed(self, view: View, first: int, last: int) -> None:
        """Judge a commit index that moved on."""
        del first, last
        self._judge(view)

    def applied(self, view: View, last: int) -> None:
        """Judge what was applied."""
        del last
        self._judge(view)

    def _judge(self, view: View) -> None:
        raft, applied, snapshot = view.raft, view.machine.applied, self._snapshots[view.id]
        if not view.base <= snapshot:
            raise Violation(f"{view} dropped its log up to {view.base}, its snapshot ends at {snapshot}")
        # A snapshot that was just installed has moved the log, and its machine takes its place a step later.
        if not raft.log.base_index <= raft.commit <= raft.log.last_index or applied > raft.commit:
            raise Violation(
                f"{view}: dropped {raft.log.base_index}, applied {applied}, committed {raft.commit},"
                f" last {raft.log.last_index}"
            )
        if not raft.log.durable <= raft.log.last_index:
            raise Violation(f"{view} counts {raft.log.durable} entries as durable, its log ends before")
