"""The order of one connection, by revisions: its requests take effect in the order in which it sent them.

Pipelined requests are under way at the same time, so the history of all clients tells nothing of their order. A write
stands behind all that its connection was told before, and a page of a scan, also a stale one, is not older than that.
"""

from trio_kv.check.exchange import Exchange, read, read_list
from trio_kv.check.revision_order import RevisionOrder
from trio_kv.check.violation import Violation


class ConnectionOrder:
    """Judges the answers on one connection, in the order of its requests."""

    def __init__(self, keys: RevisionOrder) -> None:
        """Have been told nothing; `keys` knows of each key's versions that the connection was told of."""
        self._keys = keys
        self._told = 0
        """The highest revision of a write or page."""

    def told(self, exchange: Exchange) -> None:
        """Judge the next answer.

        Raises:
            Violation: it is older than an earlier one.

        """
        if exchange.outcome != "ok":
            return
        revision = exchange.revision or 0
        if exchange.op == "get":
            self._keys.follows(exchange.keys[0], revision)
            return
        if revision < self._told or (revision == self._told and not exchange.is_read):
            raise Violation(f"{exchange} is behind revision {self._told} on its connection")
        self._told = revision
        for item in read_list(exchange.told, "items"):
            self._keys.follows(read(item, "key"), read(item, "revision"))
        if exchange.op in ("set", "cas", "incr"):
            self._keys.follows(exchange.keys[0], revision)
