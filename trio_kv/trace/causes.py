"""Which events caused which, across nodes: by what messages do, and not by clocks.

A vote has a candidate that asked for it, a leader has votes, a follower's entries come from the leader, a commit from
what others stored. Each of these is found again by node, term and index; no event need name another one. Used to
merge the traces of processes, for vector clocks, and for arrows.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

import attrs

from trio_kv.raft.events import (
    ElectionStarted,
    EntriesAppended,
    EntriesCommitted,
    EntriesStored,
    InstallStarted,
    LeaderElected,
    LeaderFollowed,
    PreVoteGranted,
    PreVoteStarted,
    SnapshotInstalled,
    VoteGranted,
)
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import ClusterStarted

KEPT_MAX = 4096
"""So many of the latest causes of a kind are known: a message is not later than that."""
TRACKS_MAX = 4096
"""So many kinds: those of the newest terms."""

Track = tuple[str | int, ...]
R = TypeVar("R")


@attrs.frozen
class Need:
    """An event that must come before: the first one of a track that reaches an index."""

    track: Track
    index: int
    node: int | None
    """Who tells it; None: whoever leads the term."""


class Causes(Generic[R]):
    """Knows what was told, as a reference of the caller's choice for each event that may cause others."""

    def __init__(self) -> None:
        """Know nothing."""
        self._tracks: dict[Track, deque[tuple[int, R]]] = {}
        self._leaders: dict[int, int] = {}
        self._members: tuple[int, ...] = ()
        self._joined: dict[int, tuple[int, int]] = {}
        """Node -> (term, up to where its log is that of the term's leader)."""

    def of(self, record: Record) -> list[R]:
        """Return the references of the events of other nodes that caused this one, as far as they are known."""
        found = (self._find(need.track, need.index) for need in self._needs(record))
        return [reference for reference in found if reference is not None]

    def missing(self, record: Record) -> list[int]:
        """Return the nodes that must tell something before this can have happened."""
        event, node = record.event, record.node
        if isinstance(event, EntriesCommitted) and record.role == "leader":
            # Its own disk may be the last one.
            lacking = [
                peer
                for peer in self._members
                if self._find(("stored", record.term or 0, peer), event.last) is None
            ]
            has_majority = 2 * (len(self._members) - len(lacking)) > len(self._members)
            return [] if has_majority else [peer for peer in lacking if peer != node]
        unmet = [need for need in self._needs(record) if self._find(need.track, need.index) is None]
        nodes = (self._leaders.get(record.term or 0) if need.node is None else need.node for need in unmet)
        return [each for each in nodes if each is not None and each != node]

    def note(self, record: Record, reference: R) -> None:
        """Note an event that may cause others."""
        event, node, term = record.event, record.node, record.term
        match event:
            case ClusterStarted():
                self._members = event.nodes
            case ElectionStarted():
                self._put(("stood", term or 0, node or 0), 0, reference)
            case PreVoteStarted():
                self._put(("asked", node or 0), 0, reference)
            case VoteGranted():
                self._put(("vote", term or 0, node or 0), 0, reference)
            case LeaderElected():
                self._leaders[term or 0] = node or 0
                self._put(("elected", term or 0), 0, reference)
            case EntriesAppended() if record.role == "leader":
                self._put(("appended", term or 0), event.last, reference)
                self._joined[node or 0] = term or 0, event.last
            case EntriesAppended():
                self._joined[node or 0] = term or 0, event.last
            case EntriesStored():
                self._note_stored(event.last, node or 0, reference)
            case EntriesCommitted() if record.role == "leader":
                # Of whatever term: a leader tells what others committed before it.
                if self._find(("committed",), event.last) is None:
                    self._put(("committed",), event.last, reference)
            case InstallStarted():
                self._put(("install", event.peer), 0, reference)
            case _:
                pass

    def _needs(self, record: Record) -> Iterator[Need]:  # noqa: C901, PLR0912 - one case an event is the point
        event, node, term = record.event, record.node, record.term or 0
        is_leader = record.role == "leader"
        match event:
            case VoteGranted():
                yield Need(("stood", term, event.candidate), 0, event.candidate)
            case PreVoteGranted():
                yield Need(("asked", event.candidate), 0, event.candidate)
            case LeaderElected():
                for voter in event.votes:
                    if voter != node:
                        yield Need(("vote", term, voter), 0, voter)
            case LeaderFollowed():
                yield Need(("elected", term), 0, event.leader)
            case EntriesAppended() if not is_leader:
                yield (
                    Need(("appended", term), event.last, None)
                    if event.last_term == term
                    else Need(("elected", term), 0, None)
                )
            case EntriesCommitted() if is_leader:
                for peer in self._members:
                    if peer != node:
                        yield Need(("stored", term, peer), event.last, peer)
            case EntriesCommitted():
                yield Need(("committed",), event.last, None)
            case SnapshotInstalled():
                yield Need(("install", node or 0), 0, None)
            case _:
                pass

    def _note_stored(self, last: int, node: int, reference: R) -> None:
        """Note what a follower has stored of a leader's log. What it had before may be in conflict with that."""
        term, joined = self._joined.get(node, (0, 0))
        if term and min(last, joined):
            self._put(("stored", term, node), min(last, joined), reference)

    def _find(self, track: Track, index: int) -> R | None:
        known = self._tracks.get(track)
        if not known:
            return None
        if not index:
            return known[-1][1]
        place = bisect_left(known, index, key=_index_of)
        return known[place][1] if place < len(known) else None

    def _put(self, track: Track, index: int, reference: R) -> None:
        known = self._tracks.get(track)
        if known is None:
            if len(self._tracks) >= TRACKS_MAX:
                del self._tracks[next(iter(self._tracks))]
            known = self._tracks[track] = deque(maxlen=KEPT_MAX)
        if not index or (known and known[-1][0] >= index):
            known.clear()  # Only the latest counts; a log that was cut back begins anew.
        known.append((index, reference))


def _index_of(item: tuple[int, object]) -> int:
    return item[0]
