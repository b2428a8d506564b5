"""Is what clients were told one history, in the order of the revisions? Decided by carrying all writes out once more.

Every write has a revision: its place in the one order of all writes. So nothing has to be searched for. All writes are
carried out in that order by the rules of the protocol (`check.rules`), on any number of keys, and then
- each write was told what the rules say of its place, and a transaction did all of its work there, or none;
- a page of a scan shows the state at its own revision, whole;
- all other answers, and the order itself, agree with the clock (`check.real_time`).

What nobody was told the outcome of may have taken effect or not. Who knows the log knows which: `check.replay_log`. Who
does not finds out from what others were told, as far as that tells: `check.replay_replies`.

The search of `check.linearizability` looks at no revision. Where it judges the same keys it is a second opinion.
"""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping

import attrs

from trio_kv.check.exchange import Exchange, read, read_list
from trio_kv.check.lost_writes import LostWrites
from trio_kv.check.real_time import find_moments
from trio_kv.check.timeline import Timeline

ROUNDING_S = 1e-6
GONE_WITHIN_S = 6.0
"""A key is gone so long after its time, as long as there is a leader: a second by the protocol, and more than enough
for a machine that is busy."""

Change = Mapping[str, bytes | None]
"""What an entry left of the keys that it changed; None: it removed them."""


@attrs.frozen
class Accusation:
    """Something that can't be."""

    words: str
    exchange: Exchange | None = None
    """The one that can't, if it is one."""


@attrs.frozen
class Replayed:
    """What became of a history."""

    exchanges: int
    accusations: tuple[Accusation, ...]
    doubts: tuple[str, ...]
    """What could not be decided."""

    @property
    def violations(self) -> tuple[str, ...]:
        """What can't be, in words."""
        return tuple(each.words for each in self.accusations)

    @property
    def outcome(self) -> str:
        """Return valid, violation or unknown."""
        if self.violations:
            return "violation"
        return "unknown" if self.doubts else "valid"

    @property
    def words(self) -> str:
        """Return the verdict in sentences, one a line."""
        head = {"valid": "one history", "violation": "no one history", "unknown": "not decided"}[self.outcome]
        return "\n".join([f"{self.exchanges:,} exchanges: {head}", *self.violations, *self.doubts])


class Replay(ABC):
    """A history while it is judged.

    Args:
        exchanges: all that was asked of some keys, in any order.
        calm_from_s: from then on the store was whole, so that keys end when their time is over.

    """

    def __init__(self, exchanges: Iterable[Exchange], calm_from_s: float = math.inf) -> None:
        """Have judged nothing; see the class."""
        self._calm_from_s = calm_from_s
        self.exchanges = sorted(exchanges, key=lambda each: each.call_s)
        self.accusations: list[Accusation] = []
        self.doubts: list[str] = []
        self.timeline = Timeline()
        self.writes: dict[int, Exchange] = {}
        """By revision."""
        self._scans: dict[int, list[Exchange]] = defaultdict(list)
        lost = []
        for each in self.exchanges:
            if each.outcome == "ok" and each.op == "scan":
                self._scans[each.revision or 0].append(each)
            elif each.outcome == "ok" and not each.is_read and each.revision:
                other = self.writes.setdefault(each.revision, each)
                if other is not each:
                    self.accuse(each, f"has the revision of another write: {other}")
            elif each.outcome in ("ok", "unknown") and not each.is_read:
                lost.append(each)
        self.lost = LostWrites(lost)
        """Writes of which nobody was told whether they took effect, or where."""

    def run(self) -> Replayed:
        """Judge."""
        for revision in sorted({*self.writes, *self._scans, *self.revisions()}):
            self.take_effect(revision)
            for scan in self._scans.get(revision, ()):
                self.judge_scan(scan, revision)
        known = {write: revision for revision, write in self.writes.items()} | self.lost.places
        known |= {scan: revision for revision, scans in self._scans.items() for scan in scans}
        moments = find_moments(self.exchanges, self.timeline, known, self.accuse, self.may_be_lost)
        self.judge_rest(moments)
        return Replayed(len(self.exchanges), tuple(self.accusations), tuple(self.doubts))

    def accuse(self, exchange: Exchange, words: str) -> None:
        """Note that an answer can't be."""
        self.accusations.append(Accusation(f"{exchange} {words}", exchange))

    @abstractmethod
    def revisions(self) -> Iterable[int]:
        """Return the revisions at which something changed that are not those of answered writes."""

    @abstractmethod
    def take_effect(self, revision: int) -> None:
        """Let what has this revision change keys."""

    @abstractmethod
    def judge_scan(self, scan: Exchange, revision: int) -> None:
        """Judge a page of the present state."""

    def may_be_lost(self, exchange: Exchange) -> bool:
        """Tell whether an answer that fits no moment may come of writes of which nobody knows enough."""
        del exchange
        return False

    def judge_rest(self, moments: Mapping[Exchange, int]) -> None:
        """Judge what can only be judged in the end, when it is known at which moment each answer is true."""
        del moments
        for each in self.exchanges:
            if each.op == "get" and each.outcome == "ok" and each.revision in self.writes:
                self._judge_ttl(each, self.writes[each.revision])
            told = read_list(each.told, "items") if each.op == "scan" else [each.told]
            if (
                each.is_read
                and each.outcome == "ok"
                and not each.is_stale
                and each.call_s > self._calm_from_s
            ):
                for item in told:
                    self._judge_end(each, read(item, "key"), read(item, "revision", 0))

    def _judge_ttl(self, reader: Exchange, write: Exchange) -> None:
        """Judge whether a key is said to end, if it was written by a request for it alone."""
        if write.op not in ("set", "cas"):
            return
        due_s, told_s = read(write.asked, "ttl"), read(reader.told, "ttl")
        if (due_s is None) != (told_s is None) or (
            due_s is not None and not 0 <= told_s <= due_s + ROUNDING_S
        ):
            self.accuse(reader, f"is said to end in {told_s} s, and was written with a ttl of {due_s} s")

    def _judge_end(self, reader: Exchange, key: str, revision: int) -> None:
        """Judge whether a key has outlived its time, though there was somebody to end it."""
        held = self.timeline.state_at((key,), revision).get(key)
        if held is None or held.revision != revision:
            return
        write = self.writes.get(revision)
        began_s = self._calm_from_s if write is None else max(self._calm_from_s, write.return_s or 0.0)
        gone_s = began_s + held.ttl_s + GONE_WITHIN_S
        if reader.call_s > gone_s:
            self.accuse(reader, f"though {key} of revision {revision} was to be gone at {gone_s:.6f} s")


def describe_changes(changes: Change) -> str:
    """Return what keys were left at, in words."""
    words = [
        f"{key} gone" if value is None else f"{key} = {value.decode(errors='replace')}"
        for key, value in changes.items()
    ]
    return ", ".join(words) or "nothing"
