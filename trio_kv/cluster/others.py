"""The nodes of other processes, as this one knows them: what it was told of them, and how they are spoken to.

Each process has a registry of all nodes. Those of other processes stand in it with what their process told last, and
have a handle as long as there is a connection to that process over which they can be asked.
"""

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Final, Protocol

import attrs
import msgspec
import trio

from trio_kv.cluster.elsewhere import Look, decode_look
from trio_kv.cluster.registry import Handle, Registry
from trio_kv.cluster.statistics import LinkStatistics, look_at_link
from trio_kv.raft.messages import Message
from trio_kv.transport.connection import LinkLostError
from trio_kv.transport.link import Link
from trio_kv.transport.links import LinksState
from trio_kv.transport.memory import MemoryNetwork
from trio_kv.transport.peers import Identity, Layout, encode_faults
from trio_kv.transport.tcp import TcpLinks
from trio_kv.wire.links import encode_statuses
from trio_kv.wire.node_port import Answer, Refused, ReplyTo, Request, Unknown
from trio_kv.wire.node_status import NodeStatus, State

TOLD_S: Final = 0.1
"""Numbers of nodes are told to other processes at most so often; role, term and state at once."""

LOOK_S: Final = 0.25
"""How long a look waits for other processes."""
LOOK: Final = "look"
"""The call by which one process looks at another one."""

Carried = Callable[[bytes], Awaitable[bytes]]


class Lives(Protocol):
    """What is known of the incarnations of nodes."""

    def known(self, node: int) -> int:
        """Return the highest incarnation of a node that was heard of here; 0 if none was."""

    def vouch(self, nodes: Collection[int]) -> dict[int, int]:
        """Return the highest incarnations that were heard of here. Raises ValueError: what was heard may be lost."""

    def heard(self, incarnations: dict[int, int]) -> None:
        """Note these, durably before anything is built on them."""


class Others:
    """The nodes of other processes. It is the `Host` of the links. `run` must be running.

    Args:
        registry: where their handles go, and from which the nodes here are told.
        network: takes messages for the nodes here.
        identity: who this process is.
        lives: the incarnations of all nodes, as far as they are known here.
        is_host: whether the doors of this process stand where its one node is. What is wrong with links between nodes
            is then wrong with requests and answers, too: who is cut off is so for his clients.

    """

    def __init__(
        self,
        registry: Registry,
        network: MemoryNetwork,
        identity: Identity,
        lives: Lives,
        *,
        is_host: bool = False,
    ) -> None:
        """Know nothing of them yet; see the class."""
        self.links: TcpLinks | None = None
        """Over which they are spoken to."""
        self.calls: dict[str, Carried] = {}
        """What other processes may ask of this one, by name."""
        self.on_event: Callable[[int, bytes], object] = lambda process, data: None  # noqa: ARG005
        """Takes what other processes tell."""
        self._registry = registry
        self._network = network
        self._layout = identity.layout
        self._lives = lives
        self.is_host = is_host
        """Whether each node has a host of its own."""
        self._door_node = identity.layout.here[0] if is_host else None
        network.links.on_change = self._on_change
        network.links.process = identity.layout.own
        self._told: dict[str, bytes] = {}
        """What all have heard that can be reached."""
        self._heard: set[int] = set()
        """Processes that have told how their nodes are, since they could be reached."""
        self.looks: dict[int, Look] = {}
        """What was last seen of other processes, by process; nothing of those that can't be reached."""
        self.rebuilding = trio.Lock()
        """One rebuild at a time: each writes the manifest, which names the incarnations of all nodes."""
        self._changed = trio.Event()
        for node in registry.nodes.keys() - set(self._layout.here):
            # Nobody knows what became of it; it comes back by itself, as one that crashed does.
            registry.nodes[node].state = State.CRASHED
            registry.nodes[node].reason = "nothing was heard of its process yet"

    async def run(self) -> None:
        """Tell other processes how the nodes here are, and what is wrong with links, until cancelled."""
        unlisten = self._registry.listen(self._on_change)
        try:
            while True:
                with trio.move_on_after(TOLD_S):
                    await self._changed.wait()
                self._changed = trio.Event()
                self._tell()
        finally:
            unlisten()

    def _on_change(self) -> None:
        """Tell at once what has changed."""
        self._changed.set()

    def _tell(self) -> None:
        """Tell what is new. What found no room somewhere is told again: nothing else would say it."""
        assert self.links is not None
        items = {"statuses": encode_statuses(self.statuses()), "faults": encode_faults(self.faults())}
        for name, item in items.items():
            if item != self._told.get(name) and self.links.tell_all(item):
                self._told[name] = item

    async def refresh(self) -> None:
        """Look anew at all other processes; whoever takes too long is seen as he was."""
        with trio.move_on_after(LOOK_S):
            async with trio.open_nursery() as nursery:
                for process in self._layout.others:
                    nursery.start_soon(self._look, process)

    async def _look(self, process: int) -> None:
        try:
            look = decode_look(await self.call(process, LOOK, b""))
        except (LinkLostError, ValueError):
            self.looks.pop(process, None)
        else:
            self.looks[process] = look
            # What others act on comes by itself, and may have come before what was seen earlier: this is not taken.
            for status in look.statuses:
                known = self._registry.nodes.get(status.node)
                if known is not None and _what_matters(known) == _what_matters(status):
                    _copy(status, known)

    async def call(self, process: int, name: str, payload: bytes) -> bytes:
        """Let another process do something, and return what came of it.

        Raises:
            ValueError: it was not done; the text says why.
            LinkLostError: it can't be reached, or was lost meanwhile: what came of it is unknown.

        """
        assert self.links is not None
        return await self.links.links[process].call(name, payload)

    def look_at_links(self) -> tuple[LinkStatistics, ...]:
        """Return how the links are that this process opens; those for snapshots count with the others."""
        assert self.links is not None
        own = self._layout.own
        ways = [(self.links.links[each], self.links.bulk[each]) for each in self._layout.others]
        return tuple([look_at_link(own, link, bulk) for link, bulk in ways])

    @property
    def layout(self) -> Layout:
        """Which process runs which nodes."""
        return self._layout

    # What others say: see `transport.peers.Host`

    def incarnations(self) -> dict[int, int]:
        """See `Host`."""
        return {node: self._lives.known(node) for node in self._layout.here}

    def known_incarnation(self, node: int) -> int:
        """See `Host`."""
        return self._lives.known(node)

    def vouch(self, process: int) -> dict[int, int]:
        """See `Host`."""
        return self._lives.vouch(self._layout.nodes[process])

    def heard(self, incarnations: dict[int, int]) -> None:
        """See `Host`."""
        self._lives.heard(incarnations)

    def statuses(self) -> list[NodeStatus]:
        """See `Host`."""
        registry = self._registry
        for node in self._layout.here:
            handle = registry.handle(node)
            if handle is not None:
                handle.refresh()
        return [registry.nodes[node] for node in self._layout.here]

    def take_message(self, message: Message) -> None:
        """See `Host`."""
        self._network.arrive(message)

    def take_faults(self, state: LinksState) -> None:
        """See `Host`."""
        self._network.links.follow(state)

    def faults(self) -> LinksState:
        """See `Host`."""
        return self._network.links.state()

    def take_event(self, process: int, data: bytes) -> None:
        """See `Host`."""
        self.on_event(process, data)

    def take_answer(self, reply_to: ReplyTo, answer: Answer) -> None:
        """See `Host`."""
        deliver = partial(self._registry.deliver, ((reply_to, answer),))
        if self._door_node is None or isinstance(answer, Unknown):
            # That something is unknown the link itself says, at this end.
            deliver()
        else:
            self._travel(answer.node, self._door_node, deliver)

    def _submit(self, link: Link, node: int, request: Request) -> bool:
        """Hand a request over, to a node of another process; see `NodeHandle`."""
        if self._door_node is None:
            return link.submit(node, request)
        return self._travel(self._door_node, node, partial(link.submit, node, request))

    def _travel(self, source: int, target: int, arrive: Callable[[], object]) -> bool:
        """Let something of the store go from node to node; return whether it is on its way, though it may be lost.

        It goes over a connection, so it never comes twice: an answer that did would end two attempts.
        """
        network = self._network
        if not network.links.is_faulty:
            return arrive() is not False
        delays = network.links.route(source, target)
        return not delays or network.later(delays[0], source, target, arrive)

    def take_statuses(self, process: int, statuses: list[NodeStatus]) -> None:
        """See `Host`."""
        nodes, told = self._registry.nodes, False
        for status in statuses:
            if status.node in self._layout.nodes[process]:
                known = nodes[status.node]
                told |= _what_matters(known) != _what_matters(status)
                _copy(status, known)
        self._heard.add(process)
        self._attach(process)
        if told:
            self._registry.changed()

    def link_changed(self, process: int, reason: str | None) -> None:
        """See `Host`."""
        if reason is None:
            self._attach(process)
            return
        self._heard.discard(process)
        self.looks.pop(process, None)
        for node in self._layout.nodes[process]:
            status = self._registry.nodes[node]
            status.state, status.reason = State.CRASHED, f"its process {process} can't be reached: {reason}"
            self._registry.detach(node)

    def _attach(self, process: int) -> None:
        """Let those nodes of a process be spoken to that run, if the process can be."""
        assert self.links is not None
        link, registry = self.links.links[process], self._registry
        for node in self._layout.nodes[process]:
            status, is_there = registry.nodes[node], registry.handle(node) is not None
            is_able = link.is_up and process in self._heard and status.role is not None
            if is_able and not is_there:
                registry.attach(Handle(status, partial(self._submit, link, node), _nothing, is_near=False))
                registry.changed()
            elif is_there and not is_able:
                registry.detach(node)

    def open_guest(self, process: int, answer: Callable[[ReplyTo, Answer], None]) -> "_Guest":
        """See `Host`."""
        del process
        return _Guest(self._registry, self._layout.here, answer)

    async def carry_out(self, name: str, payload: bytes) -> bytes:
        """See `Host`."""
        call = self.calls.get(name)
        if call is None:
            raise ValueError(f"there is no {name!r} to be asked for")
        return await call(payload)


class _Guest:
    """See `transport.peers.Guest`. Each asker behind it has an id here that ends with the connection.

    So no answer to what came over this connection can go out over a later one.
    """

    def __init__(
        self, registry: Registry, here: Collection[int], answer: Callable[[ReplyTo, Answer], None]
    ) -> None:
        self._registry = registry
        self._here = here
        self._answer = answer
        self._askers: dict[ReplyTo, ReplyTo] = {}

    def request(self, node: int, request: Request) -> None:
        """Hand a request to a node, or say that it was not."""
        asker, handle = request.reply_to, None
        if node in self._here:
            handle = self._registry.handle(node)
        known = self._askers.get(asker)
        if known is None:
            known = self._askers[asker] = self._registry.join(partial(self._answer, asker))
        if handle is None or not handle.submit(msgspec.structs.replace(request, reply_to=known)):
            self._answer(asker, Refused(request.number, node, None))

    def leave(self) -> None:
        """Take no further answers."""
        for asker in self._askers.values():
            self._registry.leave(asker)


NAMES: Final = tuple(each.name for each in attrs.fields(NodeStatus) if each.name != "node")


def _copy(status: NodeStatus, known: NodeStatus) -> None:
    for name in NAMES:
        setattr(known, name, getattr(status, name))


def _what_matters(status: NodeStatus) -> tuple[object, ...]:
    """Return what of a status others act on."""
    return status.role, status.state, status.term, status.leader, status.reason, status.is_gone


def _nothing() -> None:
    """Do nothing: what is known of the node is what its process told."""
