"""Watching nodes step by step, at the cost of what changed.

A judge that compared whole logs after each step would make a long run quadratic. So `Watch` keeps a copy of what it saw
of each node, finds the difference after each step, and calls only those judges whose business it is. The copy is
the watch's own: a node that changes its log behind its own events is found out all the same.

Judges may look into `Raft` and never change it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs

from trio_kv.check.violation import Violation
from trio_kv.kv.machine import Machine
from trio_kv.raft.entry import Entry
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
    """The log, from index 1."""
    term: int
    vote: int | None
    commit: int
    applied: int
    is_leader: bool = False

    def __str__(self) -> str:
        last = self.entries[-1] if self.entries else "0@0"
        return f"n{self.id}@{self.term} {'leader' if self.is_leader else ''} last={last} commit={self.commit}"


class Judge:
    """Watches one property. Every method is a hook that does nothing here.

    Raises of all hooks:
        Violation: the property is broken.

    """

    def started(self, view: View, hard_state: HardState) -> None:
        """See a node start from what its disk held: `hard_state` and `view.entries`."""

    def crashed(self, node: int) -> None:
        """See a node die, its disk keep what is durable and any part of what was under way."""

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

    def took(self, node: int, message: Message) -> None:
        """See a node take a message in."""

    def sent(self, node: int, message: Message) -> None:
        """See a message leave a node."""

    def submitted(self, node: int, write: Write) -> None:
        """See a write go to a node's disk."""

    def stored(self, node: int, ticket: Ticket) -> None:
        """See a disk make a write and all before it durable."""


class Watch:
    """Shows every step of every node to the judges, in the order in which they are given."""

    def __init__(self, judges: Sequence[Judge]) -> None:
        """Watch no node yet."""
        self.judges = tuple(judges)
        self.views: dict[int, View] = {}
        self._started = self._hooks("started")
        self._crashed = self._hooks("crashed")
        self._entered = self._hooks("entered")
        self._log_changed = self._hooks("log_changed")
        self._elected = self._hooks("elected")
        self._committed = self._hooks("committed")
        self._applied = self._hooks("applied")
        self._took = self._hooks("took")
        self._sent = self._hooks("sent")
        self._submitted = self._hooks("submitted")
        self._stored = self._hooks("stored")

    def _hooks(self, name: str) -> tuple[Callable[..., Any], ...]:
        """Return the hooks of the judges that have this one: calling the others would cost time on each step."""
        return tuple(
            getattr(judge, name)
            for judge in self.judges
            if getattr(type(judge), name) is not getattr(Judge, name)
        )

    def started(self, raft: Raft, machine: Machine) -> None:
        """See a node start; called before it takes anything in."""
        log = raft.log
        entries = list(log.slice(log.base_index + 1, log.last_index))
        view = View(raft.id, raft, machine, entries, raft.term, raft.vote, raft.commit, machine.applied)
        self.views[raft.id] = view
        for hook in self._started:
            hook(view, HardState(raft.term, raft.vote))

    def crashed(self, node: int) -> None:
        """See a node die."""
        del self.views[node]
        for hook in self._crashed:
            hook(node)

    def took(self, node: int, message: Message) -> None:
        """See a node take a message in."""
        for hook in self._took:
            hook(node, message)

    def sent(self, node: int, message: Message) -> None:
        """See a message leave a node."""
        for hook in self._sent:
            hook(node, message)

    def submitted(self, node: int, write: Write) -> None:
        """See a write go to a node's disk."""
        for hook in self._submitted:
            hook(node, write)

    def stored(self, node: int, ticket: Ticket) -> None:
        """See a disk make a write durable."""
        for hook in self._stored:
            hook(node, ticket)

    def stepped(self, node: int) -> None:
        """Look for what a node changed in its last step. Costs little when it is nothing."""
        view = self.views[node]
        raft = view.raft
        if raft.term != view.term or raft.vote != view.vote:
            for hook in self._entered:
                hook(view, raft.term, raft.vote)
        self._see_log(view)
        is_new_leader = raft.is_leader and not (view.is_leader and view.term == raft.term)
        view.term, view.vote, view.is_leader = raft.term, raft.vote, raft.is_leader
        if is_new_leader:
            for hook in self._elected:
                hook(view)
        if raft.commit != view.commit:
            if raft.commit > len(view.entries):
                raise Violation(f"{view}: commit index {raft.commit} passes the end of the log")
            first, view.commit = view.commit + 1, raft.commit
            if raft.commit < first:
                raise Violation(f"{view}: the commit index went back from {first - 1}")
            for hook in self._committed:
                hook(view, first, raft.commit)
        if view.machine.applied != view.applied:
            last = view.machine.applied
            for hook in self._applied:
                hook(view, last)
            view.applied = last

    def _see_log(self, view: View) -> None:
        log, entries = view.raft.log, view.entries
        last = log.last_index
        if last == len(entries) and (not last or log.slice(last, last)[0] is entries[-1]):
            return
        kept = min(last, len(entries))
        while kept and log.slice(kept, kept)[0] is not entries[kept - 1]:
            kept -= 1
        added = log.slice(kept + 1, last)
        dropped = entries[kept:]
        for hook in self._log_changed:
            hook(view, kept, dropped, added)
        del entries[kept:]
        entries.extend(added)
