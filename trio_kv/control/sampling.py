"""The messages on their way between nodes, as somebody who looks sees them: one of each kind a link, and how many.

Under load there are tens of thousands a second. What a node sends is counted by link and kind, and of each the first
is kept; what is told of it is written down only when a frame is taken. The rare ones are shown before the frequent.
"""

from collections.abc import Callable
from operator import attrgetter
from typing import Any, Final

import attrs
import trio

from trio_kv.raft.messages import (
    AppendAccepted,
    AppendEntries,
    AppendRejected,
    Heartbeat,
    HeartbeatReply,
    InstallReply,
    InstallSnapshot,
    Message,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    RequestPreVote,
    RequestVote,
    TimeoutNow,
    VoteReply,
)

MESSAGES_MAX = 40
"""Entries of one frame; further ones are counted as left out."""

KINDS: Final[dict[type[Message], str]] = {
    RequestPreVote: "prevote",
    PreVoteReply: "prevote-reply",
    RequestVote: "vote",
    VoteReply: "vote-reply",
    AppendEntries: "append",
    AppendAccepted: "append-reply",
    AppendRejected: "append-reply",
    Heartbeat: "heartbeat",
    HeartbeatReply: "heartbeat-reply",
    ReadIndex: "read",
    ReadIndexReply: "read-reply",
    TimeoutNow: "timeout-now",
    InstallSnapshot: "snapshot",
    InstallReply: "snapshot-reply",
}


@attrs.define(eq=False, slots=True)
class _Seen:
    """The messages of one kind over one direction of a link."""

    first: Message
    at: float
    """When it was sent, by Trio's clock."""
    is_lost: bool
    count: int = 1


class MessageSampler:
    """A tap of the network (`transport.network.Tap`) that is emptied with each frame.

    Invariant: it holds one entry at most for each direction, kind and fate, whatever is sent.
    """

    def __init__(self) -> None:
        """Have seen nothing yet; see the class."""
        self._seen: dict[tuple[int, int, type[Message], bool], _Seen] = {}

    def __call__(self, message: Message, is_lost: bool) -> None:
        """See a message."""
        key = (message.source, message.target, type(message), is_lost)
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = _Seen(message, trio.current_time(), is_lost)
        else:
            seen.count += 1

    def take(self, now: float) -> tuple[list[dict[str, object]], int]:
        """Return what was seen since the last time, in the order of time, and how many messages are not in it."""
        all_seen, self._seen = list(self._seen.values()), {}
        total = sum([seen.count for seen in all_seen])
        shown = set(sorted(all_seen, key=attrgetter("count"))[:MESSAGES_MAX])
        told = [_tell(seen, now) for seen in all_seen if seen in shown]
        return told, total - sum([seen.count for seen in shown])


def _tell(seen: _Seen, now: float) -> dict[str, object]:
    message = seen.first
    return {
        "from": message.source,
        "to": message.target,
        "kind": KINDS[type(message)],
        "at_ms": round(1000 * (seen.at - now), 1),
        "count": seen.count,
        "dropped": seen.is_lost,
        "term": message.term,
        "note": note_of(message),
    }


def note_of(message: Message) -> str:
    """Return what a message says, in a few words. Nothing of what clients have stored."""
    return _NOTES[type(message)](message)


def _span(first: int, count: int) -> str:
    if count == 0:
        return ""
    return f"entry {first}" if count == 1 else f"{count} entries, {first}-{first + count - 1}"


def _note_log(message: Any) -> str:
    return f"its log ends at {message.last_index} of term {message.last_term}"


def _note_vote(message: Any) -> str:
    return "granted" if message.is_granted else "refused"


def _note_heartbeat(message: Any) -> str:
    return f"commit {message.commit}" + (f", round {message.round}" if message.round else "")


_NOTES: Final[dict[type[Message], Callable[[Any], str]]] = {
    RequestPreVote: _note_log,
    RequestVote: _note_log,
    PreVoteReply: _note_vote,
    VoteReply: _note_vote,
    AppendEntries: lambda each: _span(each.prev_index + 1, len(each.entries)) or f"commit {each.commit}",
    AppendAccepted: lambda each: f"has all up to {each.match}",
    AppendRejected: lambda each: f"rejected: lacks {each.prev_index}",
    Heartbeat: _note_heartbeat,
    HeartbeatReply: lambda each: f"round {each.round}",
    ReadIndex: lambda _: "up to where must I have applied?",
    ReadIndexReply: lambda each: f"up to {each.index}",
    InstallSnapshot: lambda each: f"chunk {each.number} of the snapshot up to {each.index}",
    InstallReply: lambda each: f"wants chunk {each.next_number}",
    TimeoutNow: lambda _: "stand for election now",
}
