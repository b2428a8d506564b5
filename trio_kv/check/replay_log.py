"""The replay of a history by the log: what was applied is known, and each change needs somebody who asked for it.

See `check.replay`. It is for simulated worlds, which see every entry. A request that took effect twice, under whatever
names, leaves a change that nobody asked for.
"""

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping

from trio_kv.check.exchange import Exchange
from trio_kv.check.replay import Accusation, Change, Replay, Replayed, describe_changes
from trio_kv.check.rules import Version, carry_out


def judge_log(
    exchanges: Iterable[Exchange],
    changes: Mapping[int, Change],
    expiries: Collection[int] = (),
    *,
    rate: float = 1.0,
    calm_from_s: float = math.inf,
) -> Replayed:
    """Judge by what was applied.

    Args:
        exchanges: all that was asked of some keys, in any order.
        changes: what each entry changed of these keys, by revision.
        expiries: revisions of those that nobody asked for: keys whose time was over.
        rate: how much faster than that of the clients the clock of the cluster runs at most.
        calm_from_s: from then on the store was whole, so that keys end when their time is over.

    """
    return _LogReplay(exchanges, changes, expiries, rate, calm_from_s).run()


class _LogReplay(Replay):
    """A history that is judged by what was applied."""

    def __init__(
        self,
        exchanges: Iterable[Exchange],
        changes: Mapping[int, Change],
        expiries: Collection[int],
        rate: float,
        calm_from_s: float,
    ) -> None:
        super().__init__(exchanges, calm_from_s)
        self._changes = changes
        self._expiries = frozenset(expiries)
        self._rate = rate

    def revisions(self) -> Iterable[int]:
        return self._changes

    def take_effect(self, revision: int) -> None:
        changes = self._changes.get(revision, {})
        versions = self._versions_of(revision, changes)
        write = self.writes.get(revision)
        if write is not None:
            due = carry_out(write, self.timeline.state, revision, rate=self._rate)
            difference = due.find_difference(write)
            if difference is not None:
                self.accuse(write, f"was told {difference}, by the state before revision {revision}")
            wanted = {key: version.value for key, version in due.changes.items()}
            if wanted == changes:
                versions = dict(due.changes)
            else:
                self.accuse(
                    write,
                    f"left {describe_changes(changes)} at revision {revision}, not {describe_changes(wanted)}",
                )
        self.timeline.put(versions)

    def _versions_of(self, revision: int, changes: Change) -> dict[str, Version]:
        """Return what nobody was told to have written: it ends as soon as it would by any who may have done it."""
        versions = {key: Version(revision, value) for key, value in changes.items()}
        if not changes or revision in self.writes or revision in self._expiries:
            return versions
        for author in self.lost.authors(changes, math.inf):
            due = carry_out(author, self.timeline.state, revision, rate=self._rate)
            if {key: version.value for key, version in due.changes.items()} == changes:
                versions = {
                    key: min(version, versions[key], key=lambda each: each.due_s)
                    for key, version in due.changes.items()
                }
        return versions

    def judge_scan(self, scan: Exchange, revision: int) -> None:
        difference = carry_out(scan, self.timeline.state, revision).find_difference(scan)
        if difference is not None:
            self.accuse(scan, f"was told {difference}, which was the state at revision {revision}")

    def judge_rest(self, moments: Mapping[Exchange, int]) -> None:
        """Find who asked for each change: nobody's request takes effect twice, and no key vanishes too early."""
        super().judge_rest(moments)
        earliest = _Earliest(moments)
        for revision, changes in sorted(self._changes.items()):
            if revision in self._expiries:
                self._judge_expiry(revision, changes, earliest.told(revision))
            elif changes and revision not in self.writes:
                self._find_author(revision, changes)
        for each in self.exchanges:
            if (
                each.outcome == "ok"
                and not each.is_read
                and not each.revision
                and each not in self.lost.places
            ):
                self.accuse(each, "left no trace")

    def _find_author(self, revision: int, changes: Change) -> None:
        for author in self.lost.authors(changes, math.inf):
            state = self.timeline.state_at(author.keys, revision - 1)
            due = carry_out(author, state, revision)
            if {key: version.value for key, version in due.changes.items()} == changes:
                self.lost.use(author, revision)
                return
        words = f"revision {revision} left {describe_changes(changes)}: nobody asked for that, or not twice"
        self.accusations.append(Accusation(words))

    def _judge_expiry(self, revision: int, changes: Change, told_s: float) -> None:
        for key, held in self.timeline.state_at(changes, revision - 1).items():
            if held.due_s > told_s:
                words = (
                    f"{key} of revision {held.revision} vanished at revision {revision}, before"
                    f" {told_s:.6f} s, though it was to stay until {held.due_s:.6f} s at least"
                )
                self.accusations.append(Accusation(words))


class _Earliest:
    """When anybody was told anything of a revision or one behind it: that one was there by then."""

    def __init__(self, moments: Mapping[Exchange, int]) -> None:
        told = sorted(((moment, each.return_s or math.inf) for each, moment in moments.items()), reverse=True)
        self._moments: list[int] = []
        self._told_s: list[float] = []
        lowest_s = math.inf
        for moment, told_s in told:
            lowest_s = min(lowest_s, told_s)
            self._moments.append(-moment)
            self._told_s.append(lowest_s)

    def told(self, revision: int) -> float:
        place = bisect_right(self._moments, -revision)
        return self._told_s[place - 1] if place else math.inf
