"""The messages between nodes: one frozen class each, with the paper's names.

Every message carries its sender, its receiver, the sender's term and the sender's incarnation: a random
number made together with the node's directory. A node that comes back with a new disk has a higher
one, so that what its former self acknowledged no longer counts. As long as it is being rebuilt from the others
it says so, and counts for no majority.

A vote of the former self must be void, too, though nobody who rebuilds the node may have heard of its term. So a leader
names in its heartbeats which nodes are being rebuilt, and a voter names with each vote the incarnations that it knows.
The majority that confirmed the leader of the rebuild shares a member with each majority that a candidate gathers: that
member tells the candidate which votes are void. It knows that durably before it confirms anything; and if it loses its
own disk, it learns it anew with the answer that ends its rebuild (decision 0048).
"""

from typing import Final

import attrs

from trio_kv.raft.entry import Entry

TermTime = tuple[int, int]
"""A term, and cluster time in microseconds as its leader told it."""
NO_TIME: Final = (0, 0)


@attrs.frozen
class Message:
    """What all messages share."""

    source: int
    target: int
    term: int
    incarnation: int
    is_rebuilding: bool

    def __str__(self) -> str:
        return f"n{self.source}@{self.term} -> n{self.target} {type(self).__name__}{self.detail()}"

    def detail(self) -> str:
        """Return what the message says beyond its kind, with a leading space, or nothing."""
        return ""


@attrs.frozen(str=False)
class RequestPreVote(Message):
    """Would you vote for me? Asked with the sender's own term; changes nothing (thesis §9.6)."""

    last_index: int
    last_term: int

    def detail(self) -> str:
        return f" last={self.last_index}@{self.last_term}"


@attrs.frozen(str=False)
class PreVoteReply(Message):
    """The answer to a pre-vote. `term` is the voter's own."""

    asked_term: int
    """The term in which the asker stood when it asked; an answer to an older question is void."""
    is_granted: bool

    def detail(self) -> str:
        return f" {'granted' if self.is_granted else 'refused'}"


@attrs.frozen(str=False)
class RequestVote(Message):
    """Vote for me in my term (paper figure 2)."""

    last_index: int
    last_term: int
    is_transfer: bool = False
    """The leader itself asked for this election: voters don't wait for its silence (thesis §3.10)."""

    def detail(self) -> str:
        return f" last={self.last_index}@{self.last_term}{' transfer' if self.is_transfer else ''}"


@attrs.frozen(str=False)
class VoteReply(Message):
    """The answer to a request for a vote."""

    is_granted: bool
    incarnations: tuple[tuple[int, int], ...] = ()
    """(node, incarnation) of all that the voter knows: a vote of a disk that was replaced meanwhile is void."""
    heard_time: TermTime = NO_TIME
    """Cluster time as the voter heard it last, so that the new leader loses nothing of it."""

    def detail(self) -> str:
        return f" {'granted' if self.is_granted else 'refused'}"


@attrs.frozen(str=False)
class AppendEntries(Message):
    """Log entries that follow (prev_index, prev_term), and the leader's commit index (paper figure 2)."""

    prev_index: int
    prev_term: int
    entries: tuple[Entry, ...]
    commit: int

    def detail(self) -> str:
        span = f" [{self.entries[0]}..{self.entries[-1]}]" if self.entries else ""
        return f" base={self.prev_index}@{self.prev_term}{span} commit={self.commit}"


@attrs.frozen(str=False)
class AppendAccepted(Message):
    """The sender's durable log equals the leader's up to `match`."""

    match: int
    free_log_bytes: int | None = None
    """Log space that the sender has left while its disk is full; None as long as it is not."""

    def detail(self) -> str:
        free = "" if self.free_log_bytes is None else f" room={self.free_log_bytes}"
        return f" match={self.match}{free}"


@attrs.frozen(str=False)
class AppendRejected(Message):
    """The sender's log does not hold (prev_index, prev_term).

    `hint_term` and `hint_index` name the term that the sender has at prev_index, and its first index of that
    term; with a log too short they are 0 and one past its end (paper §5.3, last paragraphs).
    """

    prev_index: int
    hint_term: int
    hint_index: int

    def detail(self) -> str:
        return f" base={self.prev_index} hint={self.hint_index}@{self.hint_term}"


@attrs.frozen(str=False)
class Heartbeat(Message):
    """I lead. `prev_*` name an entry of the leader's log, so that `commit` can be taken as far as it is verified.

    Round 0 asks for no answer: it only tells a new commit index.
    """

    round: int
    prev_index: int
    prev_term: int
    commit: int
    rebuilding: tuple[tuple[int, int], ...] = ()
    """(node, incarnation) of those that are being rebuilt: who answers this round knows of them, durably."""
    time_us: int = 0
    """Cluster time. It goes on while nothing is written, and nobody else would know how far it has come."""

    def detail(self) -> str:
        return f" round={self.round} base={self.prev_index}@{self.prev_term} commit={self.commit}"


@attrs.frozen(str=False)
class HeartbeatReply(Message):
    """I know of no newer term than yours, and durably of the incarnations that your round named.

    Of the disk it promises nothing else: as long as no incarnation is news, it waits for no write. Round 0 only says
    that the sender is there: to a leader of an older term, or while the answer to a round waits.
    """

    round: int

    def detail(self) -> str:
        return f" round={self.round}"


@attrs.frozen(str=False)
class ReadIndex(Message):
    """Up to where must I have applied, to read what is true now? (thesis §6.4)

    (source, nonce, counter) is never used twice: nonce is drawn at each start of a node, so that no answer to an
    older question can be taken for the answer to this one (scenario R3).
    """

    nonce: int
    counter: int

    def detail(self) -> str:
        return f" {self.nonce:x}/{self.counter}"


@attrs.frozen(str=False)
class ReadIndexReply(Message):
    """The commit index that the leader noted after the question came, its leadership confirmed since."""

    nonce: int
    counter: int
    index: int
    index_term: int
    """Term of the entry there: a log that has it knows that it is committed. 0 if the leader has forgotten it."""
    incarnations: tuple[tuple[int, int], ...] = ()
    """To a node that is being rebuilt: (node, incarnation) of all that the leader knows."""

    def detail(self) -> str:
        return f" {self.nonce:x}/{self.counter} index={self.index}"


@attrs.frozen(str=False)
class TimeoutNow(Message):
    """Stand for election now, without waiting (thesis §3.10)."""


@attrs.frozen(str=False)
class InstallSnapshot(Message):
    """One chunk of the leader's snapshot, for a follower whose next entry is gone (paper §7)."""

    index: int
    """The snapshot holds the effect of the log up to here."""
    index_term: int
    number: int
    """Which chunk, from 0."""
    data: bytes
    is_last: bool

    def detail(self) -> str:
        last = " last" if self.is_last else ""
        return f" {self.index}@{self.index_term} chunk={self.number}{last} ({len(self.data)} bytes)"


@attrs.frozen(str=False)
class InstallReply(Message):
    """Send this chunk next. After the last one the answer is that the logs are equal: `AppendAccepted`."""

    index: int
    index_term: int
    next_number: int

    def detail(self) -> str:
        return f" {self.index}@{self.index_term} next={self.next_number}"
