"""What happened, in the past tense: the facts that the core tells of itself.

One frozen class an event, each with a stable dotted name and a level (the numbers of the logging
module). The core says with which term and role it told one (`Told`), for a pass may see several; node and time are
added by the trace.
"""

from collections.abc import Callable
from typing import ClassVar, NamedTuple, TypeVar, dataclass_transform

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


class Told(NamedTuple):
    """An event, with the term and the role that its node had then."""

    event: Event
    term: int
    role: str


EventClass = TypeVar("EventClass", bound=type[Event])


@dataclass_transform(frozen_default=True)
def event(name: str, level: int = INFO) -> Callable[[EventClass], EventClass]:
    """Make a class an event of this name and level, frozen."""

    def decorate(cls: EventClass) -> EventClass:
        made = attrs.frozen(cls)
        made.name, made.level = name, level
        return made

    return decorate


@event("election.started")
class ElectionStarted(Event):
    """A node entered a new term and stands for election."""

    reason: str


@event("prevote.started", DEBUG)
class PreVoteStarted(Event):
    """A node asks whether it would win an election (thesis §9.6). A node that is cut off goes on asking."""

    reason: str


@event("vote.granted")
class VoteGranted(Event):
    """A vote was given. It is on disk before the candidate hears of it."""

    candidate: int


@event("prevote.granted", DEBUG)
class PreVoteGranted(Event):
    """A pre-vote was given: it binds nobody."""

    candidate: int


@event("leader.lost")
class LeaderLost(Event):
    """This node heard nothing of its leader for an election time-out."""

    leader: int


@event("vote.refused", DEBUG)
class VoteRefused(Event):
    """A vote was refused."""

    candidate: int
    is_pre_vote: bool
    reason: str


@event("leader.elected")
class LeaderElected(Event):
    """This node won a majority of its term's votes."""

    votes: tuple[int, ...]
    first_index: int
    """Index of the no-op that opens its term."""


@event("leader.followed", DEBUG)
class LeaderFollowed(Event):
    """This node heard of the term's leader for the first time."""

    leader: int


@event("leader.stepped_down")
class LeaderSteppedDown(Event):
    """This node leads no more."""

    reason: str


@event("term.advanced", DEBUG)
class TermAdvanced(Event):
    """This node entered a newer term."""

    previous: int


ASKED_FOR = "it was asked for"
"""Why a leader hands over that was told to."""


@event("transfer.started")
class TransferStarted(Event):
    """The leader began to hand over."""

    target: int
    reason: str


@event("transfer.ended")
class TransferEnded(Event):
    """The leader gave up handing over: the target did not catch up in time."""

    target: int
    reason: str


@event("entries.appended", DEBUG)
class EntriesAppended(Event):
    """Entries were put into this node's log (not yet on its disk)."""

    first: int
    last: int
    last_term: int
    crc: int
    """CRC-32C over the bytes of these entries."""
    size_bytes: int = 0
    """Of these entries; with it the CRCs of neighbours can be joined."""


@event("log.truncated")
class LogTruncated(Event):
    """Entries in conflict with the leader's were dropped (paper §5.3)."""

    first: int
    last: int


@event("append.rejected", DEBUG)
class AppendRefused(Event):
    """The leader's entries don't join this node's log."""

    prev_index: int
    hint_term: int
    hint_index: int


@event("entries.stored", DEBUG)
class EntriesStored(Event):
    """The log is durable on this node up to `last`."""

    last: int


@event("entries.committed", DEBUG)
class EntriesCommitted(Event):
    """The commit index moved from before `first` to `last`."""

    first: int
    last: int
    last_term: int
    crc: int
    size_bytes: int = 0


@event("reads.confirmed", DEBUG)
class ReadsConfirmed(Event):
    """Reads may be answered once `index` is applied (thesis §6.4)."""

    index: int
    count: int


@event("install.started")
class InstallStarted(Event):
    """The leader began to send its snapshot to a follower whose next entry is gone."""

    peer: int
    next_index: int


@event("snapshot.installed")
class SnapshotInstalled(Event):
    """A leader's snapshot took the place of this node's state; `is_log_kept`: the log agreed with it."""

    index: int
    index_term: int
    is_log_kept: bool


@event("snapshot.refused", WARNING)
class SnapshotRefused(Event):
    """A leader's snapshot can't be read here."""

    reason: str


@event("log.compacted", DEBUG)
class LogCompacted(Event):
    """Entries that a snapshot holds were forgotten."""

    first: int
    """The log begins here now."""


@event("rebuild.ended")
class RebuildEnded(Event):
    """A rebuilt node has all that was committed when its rebuild began: it counts and votes again."""

    index: int
