"""What watches are about, found by what changes: by its key, or by what its key begins with.

A change costs one look for its key, and one for each length that a watched prefix has, however many watches there are.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

from trio_kv.gateway.drawn import Drawn, Selector, draw
from trio_kv.kv.history import History
from trio_kv.kv.operations.operation import Change

DRAWN_KEPT_MAX: Final = 8
"""Of each topic; clients that are further apart than that are told what is made for them alone."""


class Watch(Protocol):
    """One watch, as its topic knows it."""

    @property
    def is_ended(self) -> bool:
        """Whether nothing is told to it any more."""

    @property
    def on_more(self) -> Callable[[], object]:
        """Tells its owner that there is something to draw."""


class Topic:
    """The watches of one key or prefix.

    Invariant: of what changed behind `last`, up to the end of the window, nothing concerns them.
    """

    __slots__ = ("_drawn", "_forgotten", "_recent", "last", "selector", "watches")

    def __init__(self, selector: Selector, last: int) -> None:
        """Have no watch yet."""
        self.selector = selector
        self.last = self._forgotten = last
        self._recent: deque[int] = deque()
        """Revisions that concern them, and may still be in the window; those before stand behind `_forgotten`."""
        self.watches: dict[Watch, None] = {}
        """In the order in which they began."""
        self._drawn: dict[int, Drawn] = {}
        """What was drawn last, by the place behind which it begins."""

    def stir(self, revision: int, begin: int) -> None:
        """Note that a revision concerns them; the window begins behind `begin`."""
        self.last = revision
        self.forgotten(begin)
        if not self._recent or self._recent[-1] != revision:
            self._recent.append(revision)

    def forgotten(self, begin: int) -> int:
        """Return the last revision that concerned them, or may have, and is out of the window, which begins there."""
        recent = self._recent
        while recent and recent[0] <= begin:
            self._forgotten = recent.popleft()
        return self._forgotten

    def jump(self, revision: int) -> None:
        """Note that it is not known what up to a revision concerned them."""
        self.last = self._forgotten = revision
        self._recent.clear()

    def draw(self, window: History, after: int, end: int) -> Drawn:
        """Return what the window has to tell them of (after, end]: the same object for all that are there.

        Where some clients are slower than others there are several places at a time, in any order.
        """
        drawn = self._drawn.get(after)
        if drawn is None or (drawn.upto < end and not drawn.is_cut):
            self._drawn.pop(after, None)
            if len(self._drawn) >= DRAWN_KEPT_MAX:
                del self._drawn[next(iter(self._drawn))]
            self._drawn[after] = drawn = draw(window, self.selector, after, end)
        return drawn


class Topics:
    """All topics of a store."""

    def __init__(self) -> None:
        """Have none."""
        self._by_key: dict[str, Topic] = {}
        self._by_prefix: dict[int, dict[str, Topic]] = {}
        """By the length of the prefix, and the prefix."""

    def __iter__(self) -> Iterator[Topic]:
        yield from self._by_key.values()
        for topics in self._by_prefix.values():
            yield from topics.values()

    def find(self, selector: Selector, upto: int) -> Topic:
        """Return the topic of a selector; a new one may have missed something up to this revision."""
        topics = self._by_key
        if selector.is_prefix:
            topics = self._by_prefix.setdefault(len(selector.text), {})
        topic = topics.get(selector.text)
        if topic is None:
            topic = topics[selector.text] = Topic(selector, upto)
        return topic

    def remove(self, topic: Topic) -> None:
        """Forget a topic that has no watch any more."""
        text = topic.selector.text
        if not topic.selector.is_prefix:
            del self._by_key[text]
            return
        topics = self._by_prefix[len(text)]
        del topics[text]
        if not topics:
            del self._by_prefix[len(text)]

    def stir(self, changes: Sequence[Change], begin: int) -> dict[Topic, None]:
        """Note what changed, in a window that begins behind `begin`; return the topics that it concerns."""
        stirred: dict[Topic, None] = {}
        for change in changes:
            for topic in self._concerned(change.key):
                topic.stir(change.revision, begin)
                stirred[topic] = None
        return stirred

    def _concerned(self, key: str) -> Iterable[Topic]:
        topic = self._by_key.get(key)
        if topic is not None:
            yield topic
        for length, topics in self._by_prefix.items():
            topic = topics.get(key[:length])
            if topic is not None:
                yield topic
