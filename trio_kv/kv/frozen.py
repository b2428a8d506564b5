"""The state of a machine at one moment, which a snapshot is made of while the machine goes on."""

from collections.abc import Iterator, Mapping

from trio_kv.kv.image import Head, encode_chunks
from trio_kv.kv.reply import Item
from trio_kv.kv.session import Session


class Frozen:
    """A state machine as it was at one moment: what a snapshot is made of.

    It reads the layer that its machine must not change meanwhile, so it is of no use once that was thawed.
    """

    __slots__ = ("_is_open", "_items", "_sessions", "head")

    def __init__(self, head: Head, sessions: Mapping[int, Session], items: Mapping[str, Item]) -> None:
        """Hold what nobody changes before `close`."""
        self.head = head
        self._sessions = sessions
        self._items = items
        self._is_open = True

    def chunks(self) -> Iterator[bytes]:
        """Yield the chunks of the snapshot, each made in a moment, as slowly as they are asked for.

        Raises:
            AssertionError: one is asked for after the machine was thawed.

        """
        for chunk in encode_chunks(self.head, self._sessions, self._items):
            yield chunk
            assert self._is_open, "the state was thawed before its snapshot was complete"

    def close(self) -> None:
        """Note that what it reads may change from here on."""
        self._is_open = False
