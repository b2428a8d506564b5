"""Who the other processes of a cluster are, what they are told, and what is done with what they say."""

from collections.abc import Callable, Mapping
from typing import Protocol

import attrs
import msgspec

from trio_kv.raft.messages import Message
from trio_kv.transport.links import LinksState
from trio_kv.wire import links
from trio_kv.wire.links import VERSIONS, Hello, LinkFormatError, Welcome
from trio_kv.wire.node_port import Answer, ReplyTo, Request
from trio_kv.wire.node_status import NodeStatus

Address = tuple[str, int]


@attrs.frozen
class Layout:
    """Which processes a cluster has, which nodes each of them runs, and where it listens."""

    own: int
    """The number of this process."""
    nodes: Mapping[int, tuple[int, ...]]
    """By process."""
    addresses: Mapping[int, Address]
    """By process; names are resolved anew at each connection."""

    @property
    def others(self) -> tuple[int, ...]:
        """All processes but this one."""
        return tuple(sorted(self.nodes.keys() - {self.own}))

    @property
    def node_count(self) -> int:
        """How many nodes the cluster has."""
        return sum(map(len, self.nodes.values()))

    @property
    def here(self) -> tuple[int, ...]:
        """The nodes of this process."""
        return self.nodes[self.own]

    def process_of(self, node: int) -> int | None:
        """Return the process that runs a node; None if nobody does."""
        return next((process for process, nodes in self.nodes.items() if node in nodes), None)


class Guest(Protocol):
    """One connection of another process, as it is looked after here."""

    def request(self, node: int, request: Request) -> None:
        """Hand a request to a node; its answer goes back over the connection, if that still lives then."""
        ...  # pragma: no cover

    def leave(self) -> None:
        """Take no further answers: the connection is gone."""
        ...  # pragma: no cover


class Host(Protocol):
    """What becomes of what other processes say. Nothing here raises or waits, but for `carry_out`."""

    def incarnations(self) -> dict[int, int]:
        """Return those of the nodes of this process, by node."""
        ...  # pragma: no cover

    def known_incarnation(self, node: int) -> int:
        """Return the highest incarnation of a node that was ever heard of here; 0 if none was."""
        ...  # pragma: no cover

    def vouch(self, process: int) -> dict[int, int]:
        """Return the highest incarnations of another process' nodes that were ever heard of here.

        Raises:
            ValueError: what was heard here may be lost; the text says why.

        """
        ...  # pragma: no cover

    def heard(self, incarnations: dict[int, int]) -> None:
        """Note which lives nodes of another process have, as its hello says."""
        ...  # pragma: no cover

    def statuses(self) -> list[NodeStatus]:
        """Return how the nodes of this process are."""
        ...  # pragma: no cover

    def take_message(self, message: Message) -> None:
        """Give a message to its node."""
        ...  # pragma: no cover

    def take_statuses(self, process: int, statuses: list[NodeStatus]) -> None:
        """Note how the nodes of another process are."""
        ...  # pragma: no cover

    def take_faults(self, state: LinksState) -> None:
        """Let be wrong with the links what another process says is."""
        ...  # pragma: no cover

    def faults(self) -> LinksState:
        """Return what is wrong with the links."""
        ...  # pragma: no cover

    def take_event(self, process: int, data: bytes) -> None:
        """Tell here what another process tells."""
        ...  # pragma: no cover

    def take_answer(self, reply_to: ReplyTo, answer: Answer) -> None:
        """Give an answer to who asked."""
        ...  # pragma: no cover

    def open_guest(self, process: int, answer: Callable[[ReplyTo, Answer], None]) -> Guest:
        """Look after a connection that another process has opened."""
        ...  # pragma: no cover

    async def carry_out(self, name: str, payload: bytes) -> bytes:
        """Do what an operator asks of this process, from another one.

        Raises:
            ValueError: it can't be done; the text says why.

        """
        ...  # pragma: no cover

    def link_changed(self, process: int, reason: str | None) -> None:
        """Note that a process can be spoken to (None), or why it can't."""
        ...  # pragma: no cover


@attrs.frozen(kw_only=True)
class Identity:
    """Who this process is, to others, and what it asks of them.

    Args:
        layout: the processes.
        cluster: its id.
        secret: what all processes of the cluster know, where certificates prove nothing.

    """

    layout: Layout
    cluster: str
    secret: str = attrs.field(default="", repr=False)

    def hello(
        self, incarnations: dict[int, int], target: int, *, is_bulk: bool = False, is_asking: bool = False
    ) -> Hello:
        """Return what to say to a process that is called, given the incarnations of the nodes here."""
        return Hello(
            versions=VERSIONS,
            cluster=self.cluster,
            process=self.layout.own,
            target=target,
            incarnations=incarnations,
            is_bulk=is_bulk,
            nodes=self.layout.node_count,
            secret=self.secret,
            is_asking=is_asking,
        )

    def welcome(self, host: Host, known: dict[int, int] | None = None) -> Welcome:
        """Return what to say to a process that called, and what is `known` to one that asks."""
        return Welcome(
            version=VERSIONS[1],
            process=self.layout.own,
            incarnations=host.incarnations(),
            nodes=self.layout.node_count,
            known=known or {},
        )


def encode_faults(state: LinksState) -> bytes:
    """Return the item that tells what is wrong with the links."""
    return links.FAULTS + links.encode(state)


def decode_faults(item: bytes) -> LinksState:
    """Return what is wrong with the links. Raises LinkFormatError."""
    try:
        return _decode_state(item[1:])
    except ValueError as error:
        raise LinkFormatError(f"malformed state of links: {error}") from error


_decode_state = msgspec.msgpack.Decoder(LinksState).decode
