"""What a state machine holds: keys, sessions, cluster time and two digests. `kv.machine` says how it moves on.

It can be copied, and frozen: then the state of one moment stays readable while the machine goes on (`kv.layers`).
"""

from typing import Self

from trio_kv.kv.expiry import Expiry
from trio_kv.kv.frozen import Frozen
from trio_kv.kv.image import Head
from trio_kv.kv.layers import Layers
from trio_kv.kv.reply import Item
from trio_kv.kv.sessions import Sessions


class MachineState:
    """The state after the first `applied` entries of a log."""

    __slots__ = (
        "__weakref__",
        "_frozen",
        "applied",
        "applied_term",
        "entries_digest",
        "expiry",
        "items",
        "known_time_us",
        "sessions",
        "state_digest",
        "time_us",
    )

    def __init__(self) -> None:
        """Make the state before the first entry."""
        self.applied = 0
        """Index of the last applied entry."""
        self.applied_term = 0
        """Term of that entry."""
        self.time_us = 0
        """Cluster time of that entry."""
        self.entries_digest = 0
        self.state_digest = 0
        self.items: dict[str, Item] | Layers = {}
        """A plain dict, and two layers only from `freeze` until what changed since is settled."""
        self.expiry = Expiry()
        """Which of them end, and when."""
        self.known_time_us = 0
        """Cluster time as far as this node knows, for who asks how long a key still lives; no part of the state."""
        self.sessions = Sessions()
        self._frozen: Frozen | None = None

    @property
    def expires_at_us(self) -> int | None:
        """Earliest cluster time at which something is due; None if nothing ever is."""
        session_us, key = self.sessions.expires_at_us(), self.expiry.first
        if key is None:
            return session_us
        return key[0] if session_us is None else min(session_us, key[0])

    def get(self, key: str) -> Item | None:
        """Return what a key holds; None if it does not exist."""
        return self.items.get(key)

    def copy(self) -> Self:
        """Return a machine that changes on its own. Items and replies are immutable and stay shared.

        The copy is not frozen, and has nothing to settle.
        """
        twin = type(self)()
        twin.applied, twin.applied_term, twin.time_us = self.applied, self.applied_term, self.time_us
        twin.entries_digest, twin.state_digest = self.entries_digest, self.state_digest
        twin.items, twin.expiry = self.items.copy(), self.expiry.copy()
        twin.sessions = self.sessions.copy()
        return twin

    def freeze(self) -> Frozen:
        """Return the state after `applied`, which stays as it is while more is applied here, until `thaw`.

        Takes the same short time whatever the machine holds: writes go to a second layer from here on.

        Raises:
            AssertionError: the last one is not thawed yet, or the machine has not settled since.

        """
        assert self._frozen is None, "a state is frozen already"
        assert isinstance(self.items, dict), "what changed since the last freeze is not settled yet"
        self._frozen = frozen = Frozen(self._head(), self.sessions.freeze(), self.items)
        self.items = Layers(self.items)
        return frozen

    def thaw(self) -> None:
        """Let go of the frozen state: nobody reads it any more. What changed since has to be settled then.

        Raises:
            AssertionError: no state is frozen.

        """
        frozen, self._frozen = self._frozen, None
        assert frozen is not None, "no state is frozen"
        assert isinstance(self.items, Layers)
        frozen.close()
        self.sessions.thaw()
        self.items.thaw()
        self.settle(0)

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing for `settle` to do: False between `thaw` and the last change put back."""
        return self._frozen is not None or isinstance(self.items, dict)

    def settle(self, items_max: int) -> bool:
        """Put at most so many of the keys that changed while frozen back in place; tell whether that was all.

        It may be called at any time, and does nothing when there is nothing to do. Keys that are new, or come
        back, go on to queue up behind the others meanwhile: it comes to an end if it is called more often, or for
        more keys, than such keys come.
        """
        items = self.items
        if self._frozen is None and isinstance(items, Layers):
            settled = items.settle(items_max)
            if settled is None:
                return False
            self.items = settled
        return True

    def dismantle(self, items_max: int) -> bool:
        """Let go of at most so many keys; tell whether there are none left.

        For a machine in whose place another one was put: to free a million keys at once takes a third of a second.

        Raises:
            AssertionError: its state is frozen.

        """
        assert self._frozen is None, "the state is frozen"
        if not self.settle(items_max):
            return False
        items = self.items
        for _ in range(min(items_max, len(items))):
            items.popitem()
        return not items and self.expiry.dismantle(items_max)

    def _head(self) -> Head:
        return Head(
            applied=self.applied,
            applied_term=self.applied_term,
            time_us=self.time_us,
            entries_digest=self.entries_digest,
            state_digest=self.state_digest,
        )
