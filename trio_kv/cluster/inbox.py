"""A node's inbox: three bounded lanes in one memory channel.

| lane | limit | when full |
|---|---|---|
| completions and control | what the node itself has under way | never refused |
| peers | `peers_max` messages | lost and counted: Raft sends again |
| requests | `requests_max` requests | refused: the gateway says `overloaded` |
| writes among them | `WRITE_BYTES_MAX` bytes, here and in the log until they are committed | refused likewise |

One channel and not three, so that a node waits for all lanes at once and takes what came in the order in which
it came. The limits are counted at the sender's side: nobody ever waits for room.

What goes through the channel is the list of all that has come. It is put there by the first item that the node can act
on (`replica.patience`); what comes before that lies in the list and wakes nobody, and what comes behind it, until the
node takes the list, goes along.

Writes are weighed until their commit and not only as long as they lie here, for a leader takes all that there is and
commits nothing while a majority of the disks stands still. Its log would grow without end otherwise: each write is
handed over again now and then, and clients send new ones when they have waited for long enough.
"""

from collections.abc import Callable
from typing import Any

import trio

from trio_kv.raft.messages import HeartbeatReply, Message
from trio_kv.replica.driver import MAY_NEED_NO_PASS, Control
from trio_kv.replica.patience import Patience
from trio_kv.wire.node_port import WRITE_BYTES_MAX, Propose, Request

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
        self._send, self._receive = trio.open_memory_channel[list[Any]](1)
        self._items: list[Any] = []
        self._is_sent = False
        """Whether the list of items is in the channel."""
        self._peers = 0
        self._requests = 0
        self._write_bytes = 0
        self.patience: Patience | None = None
        """Tells what the node can act on; None: on all. The node renews it at each pass."""
        self.on_left_lying: Callable[[], object] = _nothing
        """Is called when something is left lying where nothing lay; whoever is called calls `wake` before long."""
        self.pass_on: Callable[[Control | Message], bool] = _never
        """Takes what needs no pass of the node, and says whether it did."""
        self.on_heartbeat_reply: Callable[[HeartbeatReply], object] = _nothing
        """Is told when one arrives, which may be a while before the node takes it."""
        self.uncommitted_bytes = 0
        """What the node has taken from here that still waits for its commit. It keeps this up to date."""
        self.lost = 0
        """Messages of peers that found no room."""

    def post(self, item: Control) -> None:
        """Put a completion or a command into the first lane, unless it is done with at once."""
        if not self.pass_on(item):
            self._put(item)

    def post_peer(self, message: Message) -> bool:
        """Put a message of a peer into the second lane, if it has room, unless it is done with at once.

        Nothing is done at once while something lies here, so no message overtakes another one.
        """
        if type(message) in MAY_NEED_NO_PASS:
            if type(message) is HeartbeatReply:
                self.on_heartbeat_reply(message)
            if not self._items and self.pass_on(message):
                return True
        if self._peers >= self._peers_max:
            self.lost += 1
            return False
        self._peers += 1
        self._put(message)
        return True

    def post_request(self, request: Request) -> bool:
        """Put a request into the third lane, if it has room."""
        if self._requests >= self._requests_max:
            return False
        if isinstance(request, Propose):
            under_way_bytes = self._write_bytes + self.uncommitted_bytes
            if under_way_bytes and under_way_bytes + request.size_bytes > WRITE_BYTES_MAX:
                return False
            self._write_bytes += request.size_bytes
        self._requests += 1
        self._put(request)
        return True

    @property
    def is_awake(self) -> bool:
        """Whether there is something that the node can act on."""
        return self._is_sent

    def wake(self) -> None:
        """Let the node have a pass, with whatever lies here, whether it can act on it or not."""
        if not self._is_sent:
            self._is_sent = True
            self._send.send_nowait(self._items)

    async def receive(self) -> list[Any]:
        """Wait until something is there, or `wake`; return all that is there. Always lets other tasks run."""
        await self._receive.receive()
        return self._take()

    def drain(self) -> list[Any]:
        """Return all that is there now."""
        if self._is_sent:
            self._receive.receive_nowait()
        return self._take()

    def _put(self, item: Any) -> None:
        items = self._items
        items.append(item)
        if self._is_sent:
            return
        if self.patience is None or self.patience.is_over(item):
            self._is_sent = True
            self._send.send_nowait(items)
        elif len(items) == 1:
            self.on_left_lying()

    def _take(self) -> list[Any]:
        items, self._items = self._items, []
        self._is_sent = False
        self._peers = self._requests = self._write_bytes = 0
        return items


def _nothing(*_: object) -> None:
    """Do nothing."""


def _never(item: Control | Message) -> bool:
    """Take nothing."""
    del item
    return False
