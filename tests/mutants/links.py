"""Bugs in the links between processes: who is let in, what of it is believed, and what becomes of what was lost."""

from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import msgspec

from tests.mutants.registry import Patch, mutant
from trio_kv.transport import door as door_module
from trio_kv.transport.door import PeerDoor
from trio_kv.transport.hello import Known, why_refused
from trio_kv.transport.link import Link
from trio_kv.transport.peers import Identity
from trio_kv.wire import links, peer_frames
from trio_kv.wire.links import VERSIONS, Hello


def link_tests(*names: str) -> tuple[str, ...]:
    """Return these tests of links."""
    return tuple(f"tests/integration/test_links.py::{name}" for name in names)


def believing(patch: Patch, right: Callable[[Hello, Identity, Known], dict[str, Any]]) -> None:
    """Take a part of a hello for right, whatever it says."""

    def why(hello: Hello, identity: Identity, known: Known) -> str | None:
        return why_refused(msgspec.structs.replace(hello, **right(hello, identity, known)), identity, known)

    patch.setattr(door_module, "why_refused", why)


@mutant("links: a process of another cluster is let in", world="whole")
def _(patch: Patch) -> None:
    believing(patch, lambda hello, identity, known: {"cluster": identity.cluster})


@mutant("links: a process that does not know the secret is let in", world="whole")
def _(patch: Patch) -> None:
    believing(patch, lambda hello, identity, known: {"secret": identity.secret})


@mutant("links: a process that wants another one is let in", world="whole")
def _(patch: Patch) -> None:
    believing(patch, lambda hello, identity, known: {"target": identity.layout.own})


@mutant("links: a process that speaks another version is let in", world="whole")
def _(patch: Patch) -> None:
    believing(patch, lambda hello, identity, known: {"versions": VERSIONS})


@mutant("links: a process with other nodes is let in", world="whole")
def _(patch: Patch) -> None:
    def right(hello: Hello, identity: Identity, known: Known) -> dict[str, Any]:
        nodes = identity.layout.nodes.get(hello.process, ())
        if sorted(hello.incarnations) == sorted(nodes):
            return {}
        return {"incarnations": {node: known(node) for node in nodes}}

    believing(patch, right)


@mutant("links: a process that counts other majorities is let in", world="whole")
def _(patch: Patch) -> None:
    believing(patch, lambda hello, identity, known: {"nodes": identity.layout.node_count})


@mutant("D8 links: a former self of a node is let in", world="whole")
def _(patch: Patch) -> None:
    def right(hello: Hello, identity: Identity, known: Known) -> dict[str, Any]:
        del identity
        return {"incarnations": {node: max(each, known(node)) for node, each in hello.incarnations.items()}}

    believing(patch, right)


@mutant("D8 links: what a former self of a node had said is taken", world="whole")
def _(patch: Patch) -> None:
    class AnyNodes(dict[int, Any]):
        def get(self, node: int, default: Any = None) -> Any:
            return ANY

    real = PeerDoor._receive

    async def receive(self: PeerDoor, hello: Hello, *others: Any) -> None:
        await real(self, msgspec.structs.replace(hello, incarnations=AnyNodes()), *others)

    patch.setattr(PeerDoor, "_receive", receive)


@mutant(
    "links: nobody looks at the check of a frame",
    tests=("tests/property/test_peers.py::test_a_wrong_bit_never_becomes_a_message",),
)
def _(patch: Patch) -> None:
    patch.setattr(peer_frames, "crc32c", lambda data: 0)


@mutant(
    "links: a process that is called again does not tell again how its nodes are",
    tests=link_tests("test_a_process_that_is_called_again_tells_again_how_its_nodes_are"),
)
def _(patch: Patch) -> None:
    patch.setattr(Link, "called", lambda self: self._stir.set())


@mutant(
    "links: a process that comes back does not hear what is wrong with links",
    tests=link_tests("test_a_process_that_comes_back_hears_what_is_wrong_with_links"),
)
def _(patch: Patch) -> None:
    def tell_state(self: Link) -> None:
        self._outbox.put(links.encode_statuses(self._host.statuses()))

    patch.setattr(Link, "_tell_state", tell_state)
