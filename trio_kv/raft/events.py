"""What happened, in the past tense: the facts that the core tells of itself.

One frozen class an event, each with a stable dotted name and a level (the numbers of the logging
module). Who tells it (node, term, role, time) is added by the trace.
"""

from typing import ClassVar

import attrs

DEBUG = 10
INFO = 20
WARNING = 30
ERROR = 40


@attrs.frozen
class Event:
    """A fact. Its attributes are the members of the event, next to those that all events share."""

    name: ClassVar[str]
    level: ClassVar[int] = INFO


@attrs.frozen
class ElectionStarted(Event):
    """A node entered a new term and stands for election."""

    name: ClassVar[str] = "election.started"
    reason: str


@attrs.frozen
class PreVoteStarted(Event):
    """A node asks whether it would win an election (thesis §9.6). A node that is cut off goes on asking."""

    name: ClassVar[str] = "prevote.started"
    level: ClassVar[int] = DEBUG
    reason: str


@attrs.frozen
class VoteGranted(Event):
    """A vote was given. It is on disk before the candidate hears of it."""

    name: ClassVar[str] = "vote.granted"
    candidate: int


@attrs.frozen
class PreVoteGranted(Event):
    """A pre-vote was given: it binds nobody."""

    name: ClassVar[str] = "prevote.granted"
    level: ClassVar[int] = DEBUG
    candidate: int


@attrs.frozen
class LeaderLost(Event):
    """This node heard nothing of its leader for an election time-out."""

    name: ClassVar[str] = "leader.lost"
    leader: int


@attrs.frozen
class VoteRefused(Event):
    """A vote was refused."""

    name: ClassVar[str] = "vote.refused"
    level: ClassVar[int] = DEBUG
    candidate: int
    is_pre_vote: bool
    reason: str


@attrs.frozen
class LeaderElected(Event):
    """This node won a majority of its term's votes."""

    name: ClassVar[str] = "leader.elected"
    votes: tuple[int, ...]
    first_index: int
    """Index of the no-op that opens its term."""


@attrs.frozen
class LeaderFollowed(Event):
    """This node heard of the term's leader for the first time."""

    name: ClassVar[str] = "leader.followed"
    level: ClassVar[int] = DEBUG
    leader: int


@attrs.frozen
class LeaderSteppedDown(Event):
    """This node leads no more."""

    name: ClassVar[str] = "leader.stepped_down"
    reason: str


@attrs.frozen
class TermAdvanced(Event):
    """This node entered a newer term."""

    name: ClassVar[str] = "term.advanced"
    level: ClassVar[int] = DEBUG
    previous: int


@attrs.frozen
class TransferStarted(Event):
    """The leader began to hand over."""

    name: ClassVar[str] = "transfer.started"
    target: int
    reason: str


@attrs.frozen
class TransferEnded(Event):
    """The leader gave up handing over: the target did not catch up in time."""

    name: ClassVar[str] = "transfer.ended"
    target: int
    reason: str


@attrs.frozen
class EntriesAppended(Event):
    """Entries were put into this node's log (not yet on its disk)."""

    name: ClassVar[str] = "entries.appended"
    level: ClassVar[int] = DEBUG
    first: int
    last: int
    last_term: int
    crc: int
    """CRC-32C over the bytes of these entries."""


@attrs.frozen
class LogTruncated(Event):
    """Entries in conflict with the leader's were dropped (paper §5.3)."""

    name: ClassVar[str] = "log.truncated"
    first: int
    last: int


@attrs.frozen
class AppendRefused(Event):
    """The leader's entries don't join this node's log."""

    name: ClassVar[str] = "append.rejected"
    level: ClassVar[int] = DEBUG
    prev_index: int
    hint_term: int
    hint_index: int


@attrs.frozen
class EntriesStored(Event):
    """The log is durable on this node up to `last`."""

    name: ClassVar[str] = "entries.stored"
    level: ClassVar[int] = DEBUG
    last: int


@attrs.frozen
class EntriesCommitted(Event):
    """The commit index moved from before `first` to `last`."""

    name: ClassVar[str] = "entries.committed"
    level: ClassVar[int] = DEBUG
    first: int
    last: int
    last_term: int
    crc: int


@attrs.frozen
class ReadsConfirmed(Event):
    """Reads may be answered once `index` is applied (thesis §6.4)."""

    name: ClassVar[str] = "reads.confirmed"
    level: ClassVar[int] = DEBUG
    index: int
    count: int


@attrs.frozen
class InstallStarted(Event):
    """The leader began to send its snapshot to a follower whose next entry is gone."""

    name: ClassVar[str] = "install.started"
    peer: int
    next_index: int


@attrs.frozen
class SnapshotInstalled(Event):
    """A leader's snapshot took the place of this node's state; `is_log_kept`: the log agreed with it."""

    name: ClassVar[str] = "snapshot.installed"
    index: int
    index_term: int
    is_log_kept: bool


@attrs.frozen
class SnapshotRefused(Event):
    """A leader's snapshot can't be read here."""

    name: ClassVar[str] = "snapshot.refused"
    level: ClassVar[int] = WARNING
    reason: str


@attrs.frozen
class LogCompacted(Event):
    """Entries that a snapshot holds were forgotten."""

    name: ClassVar[str] = "log.compacted"
    level: ClassVar[int] = DEBUG
    first: int
    """The log begins here now."""


@attrs.frozen
class RebuildEnded(Event):
    """A rebuilt node has all that was committed when its rebuild began: it counts and votes again."""

    name: ClassVar[str] = "rebuild.ended"
    index: int
