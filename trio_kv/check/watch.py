"""Watching nodes step by step, at the cost of what changed.

A judge that compared whole logs after each step would make a long run quadratic. So `Watch` keeps a copy of what it saw
of each node, finds the difference after each step, and calls only those judges whose business it is. The copy is
the watch's own: a node that changes its log behind its own events is found out all the same.

A log may begin behind a snapshot. The copy then goes on to hold what came before, as it was committed: judges see
all logs whole.

Judges may look into `Raft` and never change it.
"""

from collections.abc import Callable, Sequence

import attrs

from trio_kv.check.violation import Violation
from trio_kv.kv.machine import Machine
from trio_kv.raft.entry import Entry, LogPosition
from trio_kv.raft.leader import Leader
from trio_kv.raft.messages import Message
from trio_kv.raft.node import Raft
from trio_kv.raft.ready import HardState, Ticket, Write


@attrs.define(eq=False)
class View:
    """What was last seen of one node. `raft` and `machine` are the living things, the rest is a copy."""

    id: int
    raft: Raft
    machine: Machine
    entries: list[Entry]
    """The log, from index 1; what a snapshot covers as it was committed."""
    term: int
    vote: int | None
    commit: int
    applied: int
    is_leader: bool = False
    base: int = 0
    """What the node itself holds of the log begins behind this index."""
    matches: dict[int, int] = attrs.field(factory=dict)
    """While it leads: follower -> up to where it counts that one's log."""

    def __str__(self) -> str:
        last = self.entries[-1] if self.entries else "0@0"
        return f"n{self.id}@{self.term} {'leader' if self.is_leader else ''} last={last} commit={self.commit}"


class Judge:
    """Watches one property. Every method is a hook that does nothing here.

    Raises of all hooks:
        Violation: the property is broken.

    """

    def started(self, view: View, hard_state: HardState) -> None:
        """See a node start from what its disk held: `hard_state`, `view.entries` behind `view.base`, `view.machine`."""

    def wiped(self, node: int) -> None:
        """See a node that is down get an empty disk; it is rebuilt at its next start, and maybe at more of them."""

    def rebuilt(self, node: int) -> None:
        """See a node end its rebuild: it votes and counts from now on."""

    def crashed(self, node: int) -> None:
        """See a node die. Its disk keeps what is durable, and any part of what was under way."""

    def entered(self, view: View, term: int, vote: int | None) -> None:
        """See a node enter a term or give a vote; `view` still holds the old ones."""

    def log_changed(self, view: View, kept: int, dropped: Sequence[Entry], added: Sequence[Entry]) -> None:
        """See a log change behind index `kept`; `view` still holds the old log, and tells who led before."""

    def elected(self, view: View) -> None:
        """See a node become the leader of `view.term`."""

    def committed(self, view: View, first: int, last: int) -> None:
        """See a node's commit index move to `last`; `view.entries` holds the entries."""

    def applied(self, view: View, last: int) -> None:
        """See a node apply up to `last`; `view.applied` is what it was before."""

    def restored(self, view: View) -> None:
        """See a state machine that was made of a snapshot; `view.machine` is it, and applied nothing since."""

    def compacted(self, view: View) -> None:
        """See a node forget its log up to `view.base`, which is new."""

    def flipped(self, node: int) -> None:
        """See the disk of a node that is down forget something."""

    def dropping(self, node: int, index: int) -> None:
        """See a disk begin to drop the log up to an index."""

    def snapshot_stored(self, node: int, place: LogPosition) -> None:
        """See a snapshot up to (index, term) become durable."""

    def took(self, view: View, message: Message) -> None:
        """See a node take a message in; `view.raft` is as it was before, `view` maybe as it was before that."""

    def matched(self, view: View, peer: int, before: int, match: int) -> None:
        """See a leader count a follower's log up to `match`, in this term up to `before` until now."""

    def sent(self, node: int, message: Message) -> None:
        """See a message leave a node."""

    def submitted(self, node: int, write: Write) -> None:
        """See a write go to a node's disk."""

    def stored(self, node: int, ticket: Ticket) -> None:
        """See a disk make a write and all before it durable."""


class Watch:
    """Shows every step of every node to the judges, in the order in which they are given."""

    def __init__(self, judges: Sequence[Judge], committed: Sequence[Entry]) -> None:
        """Watch no node yet.

        Args:
            judges: who is shown everything.
            committed: all that was ever committed, kept up to date by one of them.

        """
        self.judges = tuple(judges)
        self.conflicts_dropped = 0
        """How often entries were dropped because a snapshot contradicts them."""
        self._committed_ever = committed
        self.views: dict[int, View] = {}
        self.wiped: Callable[[int], None] = self._show("wiped")
        self.rebuilt: Callable[[int], None] = self._show("rebuilt")
        self.flipped: Callable[[int], None] = self._show("flipped")
        self.dropping: Callable[[int, int], None] = self._show("dropping")
        self.snapshot_stored: Callable[[int, LogPosition], None] = self._show("snapshot_stored")
        self.sent: Callable[[int, Message], None] = self._show("sent")
        self.submitted: Callable[[int, Write], None] = self._show("submitted")
        self.stored: Callable[[int, Ticket], None] = self._show("stored")
        self._crashed: Callable[[int], None] = self._show("crashed")
        self._took: Callable[[View, Message], None] = self._show("took")
        self._started: Callable[[View, HardState], None] = self._show("started")
        self._entered: Callable[[View, int, int | None], None] = self._show("entered")
        self._log_changed: Callable[[View, int, Sequence[Entry], Sequence[Entry]], None] = self._show(
            "log_changed"
        )
        self._elected: Callable[[View], None] = self._show("elected")
        self._matched: Callable[[View, int, int, int], None] = self._show("matched")
        self._committed: Callable[[View, int, int], None] = self._show("committed")
        self._applied: Callable[[View, int], None] = self._show("applied")
        self._restored: Callable[[View], None] = self._show("restored")
        self._compacted: Callable[[View], None] = self._show("compacted")

    def _show(self, name: str) -> Callable[..., None]:
        """Return what calls this hook of all judges that have it: calling the others would cost time on each step."""
        hooks = [
            getattr(judge, name)
            for judge in self.judges
            if getattr(type(judge), name) is not getattr(Judge, name)
        ]

        def show(*what: object) -> None:
            for hook in hooks:
                hook(*what)

        return show

    def started(
        self, raft: Raft, machine: Machine, hard_state: HardState, *, is_rebuilding: bool = False
    ) -> None:
        """See a node start; called before it takes anything in."""
        log = raft.log
        if raft.is_rebuilding != is_rebuilding:
            raise Violation(f"n{raft.id} starts and does not know whether it is being rebuilt")
        covered = self._covered(raft)
        entries = [*covered, *log.slice(log.base_index + 1, log.last_index)]
        view = View(raft.id, raft, machine, entries, raft.term, raft.vote, raft.commit, machine.applied)
        view.base = log.base_index
        self.views[raft.id] = view
        self._started(view, hard_state)
        if machine.applied:
            self._restored(view)

    def _covered(self, raft: Raft) -> Sequence[Entry]:
        """Return what a log's base stands for."""
        log = raft.log
        index = log.base_index
        if index > len(self._committed_ever):
            raise Violation(f"n{raft.id} has a snapshot up to {index}, which is not committed")
        if index and self._committed_ever[index - 1].term != log.base_term:
            raise Violation(
                f"n{raft.id} has a snapshot up to {index}@{log.base_term}, which was not committed"
            )
        return self._committed_ever[:index]

    def crashed(self, node: int) -> None:
        """See a node die."""
        del self.views[node]
        self._crashed(node)

    def took(self, node: int, message: Message) -> None:
        """See a node take a message in."""
        view = self.views[node]
        self._took(view, message)

    def stepped(self, node: int, machine: Machine) -> None:
        """Look for what a node changed in its last step. Costs little when it is nothing."""
        view = self.views[node]
        raft = view.raft
        if raft.term != view.term or raft.vote != view.vote:
            self._entered(view, raft.term, raft.vote)
        self._see_log(view)
        is_new_leader = raft.is_leader and not (view.is_leader and view.term == raft.term)
        view.term, view.vote, view.is_leader = raft.term, raft.vote, raft.is_leader
        if is_new_leader:
            view.matches = {}
            self._elected(view)
        if isinstance(raft.role, Leader):
            self._see_matches(view, raft.role)
        if raft.commit != view.commit:
            self._see_commit(view)
        self._see_machine(view, machine)

    def _see_matches(self, view: View, role: Leader) -> None:
        matches = view.matches
        for peer, progress in role.progress.items():
            if progress.match != matches.get(peer, 0):
                self._matched(view, peer, matches.get(peer, 0), progress.match)
                matches[peer] = progress.match

    def _see_commit(self, view: View) -> None:
        commit = view.raft.commit
        if commit > len(view.entries):
            raise Violation(f"{view}: commit index {commit} passes the end of the log")
        first, view.commit = view.commit + 1, commit
        if commit < first:
            raise Violation(f"{view}: the commit index went back from {first - 1}")
        self._committed(view, first, commit)

    def _see_machine(self, view: View, machine: Machine) -> None:
        if machine is not view.machine:
            view.machine = machine
            # What was applied since, in the same step, is judged with the rest.
            if machine.applied == view.raft.log.base_index:
                self._restored(view)
        if view.machine.applied != view.applied:
            last = view.machine.applied
            self._applied(view, last)
            view.applied = last

    def _see_log(self, view: View) -> None:
        log, entries = view.raft.log, view.entries
        last = log.last_index
        if log.base_index != view.base:
            self._see_base(view)
        elif last == len(entries) and (last <= log.base_index or log.slice(last, last)[0] is entries[-1]):
            return
        base, kept = log.base_index, min(last, len(entries))
        while kept > base and log.slice(kept, kept)[0] is not entries[kept - 1]:
            kept -= 1
        added = log.slice(kept + 1, last)
        dropped = entries[kept:]
        if not added and not dropped:
            return
        self._log_changed(view, kept, dropped, added)
        del entries[kept:]
        entries.extend(added)

    def _see_base(self, view: View) -> None:
        """See a log begin later: behind what was in it, or behind a snapshot that came from elsewhere."""
        log, entries = view.raft.log, view.entries
        covered = self._covered(view.raft)
        base = log.base_index
        if base < view.base:
            raise Violation(f"{view}: the log begins behind {base} again")
        view.base = base
        if len(entries) < base or entries[base - 1].term != log.base_term:
            kept = min(view.commit, base)
            while kept < min(len(entries), base) and entries[kept].encoded == covered[kept].encoded:
                kept += 1
            dropped, added = entries[kept:], covered[kept:]
            self.conflicts_dropped += bool(dropped)
            self._log_changed(view, kept, dropped, added)
            del entries[kept:]
            entries.extend(added)
        self._compacted(view)
