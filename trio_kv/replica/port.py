"""The port of a node: how others speak to one, whichever process it runs in.

The gateway knows these two protocols and the messages of `wire.node_port`. The cluster of this process is a directory;
a link to another process will be one.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from trio_kv.wire.node_port import Answer, ReplyTo, Request
from trio_kv.wire.node_status import NodeStatus


class NodeHandle(Protocol):
    """A node that can be spoken to. Of no use once the node or the link to it has ended: a restart makes another."""

    @property
    def status(self) -> NodeStatus:
        """What was last heard of the node: a hint, for who leads is decided by Raft alone."""

    @property
    def is_near(self) -> bool:
        """Whether it is in this process: to ask it takes no way over a link."""

    def submit(self, request: Request) -> bool:
        """Hand a request over, without waiting.

        Returns:
            False if it did not fit: it was not handed over, and has no effect. Otherwise the asker gets an answer: from
            the node, or `Unknown` from what stopped the node. If an answer is lost all the same, the gateway hands a
            write over again, and gives a read to other nodes.

        """


class Directory(Protocol):
    """The nodes that can be spoken to. All that it says is a hint: a node that is asked in vain refuses."""

    def leader(self) -> NodeHandle | None:
        """Return the node that leads the highest term, if any says that it leads."""

    def readable(self) -> Sequence[NodeHandle]:
        """Return the nodes that can be asked to read, the leader last."""

    @property
    def is_majority_gone(self) -> bool:
        """Whether so many directories are not where they were that waiting for a leader is in vain."""

    def status(self) -> dict[str, object]:
        """Return the members of the protocol's status reply, but for `status` itself."""

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call `listener` at each change of a node's role, term or state; return what ends that.

        It must neither raise nor wait.
        """

    def join(self, deliver: Callable[[Answer], None]) -> ReplyTo:
        """Let answers to a new asker arrive at `deliver`, which must neither raise nor wait; return the asker's id."""

    def leave(self, reply_to: ReplyTo) -> None:
        """Let further answers to an asker be dropped."""
