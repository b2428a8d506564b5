"""A proposal that waits for its entries to be applied."""

from collections.abc import Iterable

import attrs

from trio_kv.kv.asking import Asked
from trio_kv.kv.reply import Reply
from trio_kv.wire.node_port import Propose

PLACE_LOST = Reply(
    "unavailable",
    message="this read has lost its place before the writes behind it, which may have been done by an earlier attempt "
    "of ours: ask again",
)


@attrs.define(eq=False)
class Waiter:
    """A proposal whose commands stand in the log from `first` to `last`, in entries of `term`."""

    propose: Propose
    term: int
    first: int
    last: int
    replies: list[Reply] = attrs.field(factory=list)
    """To the commands."""
    answers: dict[int, list[Reply]] = attrs.field(factory=dict)
    """To the queries, by their place. As long as that was not reached there are none."""
    repeated: int = 0
    """Index of the last entry up to its end that was not applied there, as its command may have been applied before."""

    def all_replies(self) -> list[Reply]:
        """Return the replies in the order of the run."""
        if not self.answers:
            return self.replies
        merged: list[Reply] = []
        begin = 0
        for place, answers in self.answers.items():
            merged += self.replies[begin:place]
            # A command behind them may have taken effect before: then the state that they met may hold that.
            merged += [PLACE_LOST] * len(answers) if self.first + place <= self.repeated else answers
            begin = place
        merged += self.replies[begin:]
        return merged


def asked_between(waiters: Iterable[Waiter], last: int) -> list[Asked]:
    """Return what is asked between the entries not applied yet up to `last`, in the order of the places."""
    asked: list[Asked] = []
    for waiter in waiters:
        before = waiter.first - 1
        if before > last:
            break
        for place, queries in waiter.propose.queries:
            if before + place > last:
                break
            replies = waiter.answers.setdefault(place, [])
            if not replies:
                asked.append(Asked(before + place, queries, replies))
    return asked
