"""What waits for the order of the keys: reads with a page in them, and proposals.

The order is made from the first such question on, and many new keys may have come since the last one. They are put in
place some at a time, pass by pass, and all else goes on in between.
"""

from collections import deque

from trio_kv.kv.machine import Machine
from trio_kv.wire.node_port import Propose, Read

ORDERED_KEYS_MAX = 4000
"""Keys put in place in one pass, in two milliseconds or so."""
PAGES_IN_A_PASS_MAX = 4
"""Pages made in one pass, in a millisecond each."""


class Pages:
    """What waits, in the order in which it came."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.reads: deque[Read] = deque()
        self.proposals: list[Propose] = []

    @property
    def is_waiting(self) -> bool:
        """Whether there is something."""
        return bool(self.reads or self.proposals)

    def settle(self, machine: Machine, applied: int) -> bool:
        """Go on with the order; return whether it is complete.

        Args:
            machine: whose keys they are.
            applied: how many entries were applied in this pass: it must not bring more keys than are put in place.

        """
        return machine.order_keys(ORDERED_KEYS_MAX + applied)


def has_page(propose: Propose) -> bool:
    """Return whether there is a query among its commands that needs the order of the keys."""
    return any(query.has_page for _, queries in propose.queries for query in queries)
