"""The wire of a golden script: what is on its way, and what can't pass (see `sim.script`)."""

from collections.abc import Iterable, Sequence

from trio_kv.raft.messages import Message


class Wire:
    """The messages between nodes, in the order in which they were sent.

    Which of them is meant says a pattern: links (`1->2`, `*->3`) and kinds (`AppendEntries`). A message is meant if it
    is on one of the links, and of one of the kinds; without links all are meant, and without kinds, too.
    """

    def __init__(self) -> None:
        """Carry nothing, and cut nothing."""
        self.messages: list[Message] = []
        self.cuts: set[tuple[int, int]] = set()
        """(source, target) of links on which nothing passes."""
        self._held: list[Message] = []

    def is_cut(self, message: Message) -> bool:
        """Return whether a message can't pass."""
        return (message.source, message.target) in self.cuts

    def partition(self, groups: Iterable[Iterable[int]]) -> None:
        """Let nothing pass between the groups."""
        side = {node: place for place, group in enumerate(groups) for node in group}
        self.cuts = {(one, other) for one in side for other in side if side[one] != side[other]}

    def chosen(self, pattern: Sequence[str]) -> list[Message]:
        """Return what of this is on its way."""
        return _chosen(self.messages, pattern)

    def take(self, pattern: Sequence[str]) -> list[Message]:
        """Remove what of this is on its way, and return it."""
        taken, self.messages = _parted(self.messages, pattern)
        return taken

    def hold(self, pattern: Sequence[str]) -> None:
        """Keep what of this is on its way aside."""
        self._held += self.take(pattern)

    def release(self, pattern: Sequence[str]) -> None:
        """Put what of this was kept aside behind all else."""
        released, self._held = _parted(self._held, pattern)
        self.messages += released


def _parted(messages: list[Message], pattern: Sequence[str]) -> tuple[list[Message], list[Message]]:
    """Return what is meant of these messages, and the others."""
    return _chosen(messages, pattern), [each for each in messages if not _is_meant(each, pattern)]


def _chosen(messages: list[Message], pattern: Sequence[str]) -> list[Message]:
    return [message for message in messages if _is_meant(message, pattern)]


def _is_meant(message: Message, pattern: Sequence[str]) -> bool:
    links = [each.split("->") for each in pattern if "->" in each]
    kinds = [each for each in pattern if "->" not in each]
    is_on_link = not links or any(
        source in {"*", str(message.source)} and target in {"*", str(message.target)}
        for source, target in links
    )
    return is_on_link and (not kinds or type(message).__name__ in kinds)
