"""A node's inbox: three bounded lanes in one memory channel.

| lane | limit | when full |
|---|---|---|
| completions and control | what the node itself has under way | never refused |
| peers | `peers_max` messages | lost and counted: Raft sends again |
| requests | `requests_max` requests | refused: the gateway says `overloaded` |
| writes among them | `WRITE_BYTES_MAX` bytes, here and in the log until they are committed | refused likewise |

One channel and not three, so that a node waits for all lanes at once and takes what came in the order in which
it came. The limits are counted at the sender's side: nobody ever waits for room.

Writes are weighed until their commit and not only as long as they lie here, for a leader takes all that there is and
commits nothing while a majority of the disks stands still. Its log would grow without end otherwise: each write is
handed over again now and then, and clients send new ones when they have waited for long enough.
"""

import math
from typing import Any

import trio

from trio_kv.raft.messages import Message
from trio_kv.replica.driver import Control
from trio_kv.wire.node_port import WRITE_BYTES_MAX, Propose, Read

PEERS_MAX = 4096
REQUESTS_MAX = 65_536


class Inbox:
    """Where everything that a node must know arrives.

    Args:
        peers_max: so many messages of peers may wait.
        requests_max: so many requests may wait.

    """

    def __init__(self, *, peers_max: int = PEERS_MAX, requests_max: int = REQUESTS_MAX) -> None:
        """Open all lanes; see the class."""
        self._peers_max = peers_max
        self._requests_max = requests_max
        self._send, self._receive = trio.open_memory_channel[Any](math.inf)
        self._peers = 0
        self._requests = 0
        self._write_bytes = 0
        self.uncommitted_bytes = 0
        """What the node has taken from here that still waits for its commit. It keeps this up to date."""
        self.lost = 0
        """Messages of peers that found no room."""

    def post(self, item: Control) -> None:
        """Put a completion or a command into the first lane."""
        self._send.send_nowait(item)

    def post_peer(self, message: Message) -> bool:
        """Put a message of a peer into the second lane, if it has room."""
        if self._peers >= self._peers_max:
            self.lost += 1
            return False
        self._peers += 1
        self._send.send_nowait(message)
        return True

    def post_request(self, request: Propose | Read) -> bool:
        """Put a request into the third lane, if it has room."""
        if self._requests >= self._requests_max:
            return False
        if isinstance(request, Propose):
            under_way_bytes = self._write_bytes + self.uncommitted_bytes
            if under_way_bytes and under_way_bytes + request.size_bytes > WRITE_BYTES_MAX:
                return False
            self._write_bytes += request.size_bytes
        self._requests += 1
        self._send.send_nowait(request)
        return True

    async def receive(self) -> list[Any]:
        """Wait until something is there; return all that is. Always lets other tasks run."""
        items = [await self._receive.receive()]
        items += self.drain()
        return items

    def drain(self) -> list[Any]:
        """Return all that is there now."""
        items: list[Any] = []
        try:
            while True:
                items.append(self._receive.receive_nowait())
        except trio.WouldBlock:
            pass
        self._peers = self._requests = self._write_bytes = 0
        return items
