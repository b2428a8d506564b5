"""Bugs of who is taken for a process of the cluster: the hello, the certificate's name, and who only asks."""

from collections.abc import Callable
from typing import Any

import msgspec

from tests.mutants.registry import Patch, mutant
from trio_kv.cli import rebuild_host
from trio_kv.cluster.lives import KnownLives
from trio_kv.storage.data_directory import DataDirectory
from trio_kv.transport import door, hello, secure, tls
from trio_kv.transport.connection import Connection
from trio_kv.transport.door import PeerDoor
from trio_kv.transport.peer_tls import check_peer
from trio_kv.transport.peers import Identity
from trio_kv.transport.secure import MutualTls
from trio_kv.wire import incarnations, links
from trio_kv.wire.links import VERSIONS, Hello


def rules(*names: str) -> tuple[str, ...]:
    """Return tests of the hello's rules."""
    return tuple(f"tests/unit/test_hello.py::{name}" for name in names)


def linked(*names: str) -> tuple[str, ...]:
    """Return tests of processes that are joined by links."""
    return tuple(f"tests/integration/test_links.py::{name}" for name in names)


def proved(*names: str) -> tuple[str, ...]:
    """Return tests of certificates between processes."""
    return tuple(f"tests/integration/test_peer_links.py::{name}" for name in names)


DIFFERS = rules("test_whatever_differs_is_a_reason")
UNPROVED = proved("test_who_can_not_prove_it_is_refused_and_both_ends_tell_why")


def believe(patch: Patch, change: Callable[[Hello, Identity], dict[str, Any]]) -> None:
    """Let the rules see a hello in which something is as it should be."""
    real = hello.why_refused

    def why_refused(said: Hello, identity: Identity, known: hello.Known) -> str | None:
        return real(msgspec.structs.replace(said, **change(said, identity)), identity, known)

    patch.setattr(hello, "why_refused", why_refused)
    patch.setattr(door, "why_refused", why_refused)


@mutant("hello nobody is asked for the secret", tests=DIFFERS)
def _(patch: Patch) -> None:
    believe(patch, lambda said, identity: {"secret": identity.secret})


@mutant("hello a process of another cluster is listened to", tests=DIFFERS)
def _(patch: Patch) -> None:
    believe(patch, lambda said, identity: {"cluster": identity.cluster})


@mutant("hello a program that speaks another version is listened to", tests=DIFFERS)
def _(patch: Patch) -> None:
    believe(patch, lambda said, identity: {"versions": VERSIONS})


@mutant("hello who wants another process is served all the same", tests=DIFFERS)
def _(patch: Patch) -> None:
    believe(patch, lambda said, identity: {"target": identity.layout.own})


@mutant("hello a process that there is not is listened to", tests=DIFFERS)
def _(patch: Patch) -> None:
    others = {2, 3}
    believe(patch, lambda said, identity: {"process": said.process if said.process in others else 2})


@mutant(
    "hello a process that counts other majorities is listened to",
    tests=(*DIFFERS, *rules("test_who_answers_is_looked_at_as_well")),
)
def _(patch: Patch) -> None:
    patch.setattr(hello, "why_not_count", lambda nodes, identity: None)


@mutant(
    "hello nodes that a process does not have are taken for its own",
    tests=(*DIFFERS, *rules("test_who_answers_is_looked_at_as_well")),
)
def _(patch: Patch) -> None:
    real = hello.why_not_nodes

    def why_not_nodes(
        process: int, said: dict[int, int], identity: Identity, known: hello.Known
    ) -> str | None:
        nodes = identity.layout.nodes[process]
        return real(process, {node: said.get(node, known(node)) for node in nodes}, identity, known)

    patch.setattr(hello, "why_not_nodes", why_not_nodes)


@mutant(
    "D8 a node that was made twice is taken, if its number is the higher one",
    tests=(*DIFFERS, *rules("test_who_answers_is_looked_at_as_well")),
)
def _(patch: Patch) -> None:
    def why_no_successor(incarnation: int, known: int) -> str | None:
        return "was made twice, a former self" if incarnation < known else None

    patch.setattr(hello, "why_no_successor", why_no_successor)


@mutant(
    "D8 a former self of a node is taken",
    tests=rules("test_a_disk_that_replaced_another_one_is_taken_and_its_former_self_no_more"),
)
def _(patch: Patch) -> None:
    real = incarnations.why_no_successor

    def why_no_successor(incarnation: int, known: int) -> str | None:
        return None if incarnation < known else real(incarnation, known)

    patch.setattr(hello, "why_no_successor", why_no_successor)


@mutant(
    "D8 a disk that replaces one of which nobody has heard may be lower",
    tests=rules("test_a_disk_that_replaces_one_is_higher_than_all_that_there_were"),
)
def _(patch: Patch) -> None:
    patch.setattr(
        incarnations, "draw_successor", lambda incarnation, random: incarnation + random.randrange(1, 1 << 32)
    )


@mutant("hello who asks what is known may have nodes, and bring snapshots", tests=DIFFERS)
def _(patch: Patch) -> None:
    patch.setattr(hello, "_why_not_asking", lambda said: None)


@mutant(
    "hello who asks what is known is listened to afterwards, in the place of the node's process",
    tests=linked("test_who_lost_its_disk_is_told_what_is_known_and_nothing_else_is_taken_from_it"),
)
def _(patch: Patch) -> None:
    decode, greet = links.decode_hello, PeerDoor._greet
    seen: list[Hello] = []

    def decode_hello(item: bytes) -> Hello:
        seen.append(decode(item))
        return seen[-1]

    async def go_on(self: PeerDoor, connection: Connection, stream: Any) -> tuple[Hello, Connection] | None:
        greeted = await greet(self, connection, stream)
        return (seen[-1], connection) if greeted is None and seen[-1].is_asking else greeted

    patch.setattr(links, "decode_hello", decode_hello)
    patch.setattr(PeerDoor, "_greet", go_on)


@mutant(
    "D8 a node says what it knows of incarnations that may have forgotten",
    tests=linked(
        "test_who_may_have_forgotten_does_not_say_what_is_known",
        "test_a_node_that_is_being_filled_does_not_say_what_is_known",
        "test_all_others_are_asked_what_they_know_and_say_why_they_do_not",
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(KnownLives, "vouch", lambda self, nodes: {node: self.known(node) for node in nodes})


@mutant("tls the certificate of who calls need not have the name of its node", tests=UNPROVED)
def _(patch: Patch) -> None:
    patch.setattr(MutualTls, "why_not", lambda self, stream, process: None)


@mutant("tls the certificate of who is called need not have the name of its node", tests=UNPROVED)
def _(patch: Patch) -> None:
    why_not = MutualTls.why_not

    def look(self: MutualTls, stream: Any, process: int) -> str | None:
        with patch.context() as inner:
            inner.setattr(secure, "check_peer", check_peer)
            return why_not(self, stream, process)

    patch.setattr(secure, "check_peer", lambda stream, cluster, process: None)
    patch.setattr(MutualTls, "why_not", look)


@mutant("tls who is refused is not told why", tests=UNPROVED)
def _(patch: Patch) -> None:
    patch.setattr(tls._Context, "read_outgoing", lambda self: b"")


def rebuilt(*names: str) -> tuple[str, ...]:
    """Return tests of the command that replaces a lost disk."""
    return tuple(f"tests/unit/test_rebuild_host.py::{name}" for name in names)


@mutant(
    "D8 a minority may say what a lost node was",
    tests=rebuilt("test_a_minority_is_not_enough"),
)
def _(patch: Patch) -> None:
    patch.setattr(rebuild_host, "check_enough", lambda *arguments: None)


@mutant(
    "D8 of what others know of a lost node the lowest counts",
    tests=rebuilt("test_the_highest_that_a_majority_knows_counts"),
)
def _(patch: Patch) -> None:
    real = rebuild_host._rebuild

    def rebuild(file: Any, node: int, place: Any, known: Any) -> Any:
        return real(file, node, place, dict.fromkeys(known, min(known.values())))

    patch.setattr(rebuild_host, "_rebuild", rebuild)


@mutant(
    "D8 a damaged node is replaced by one that is above its own incarnation alone",
    tests=rebuilt("test_a_node_that_is_there_is_moved_aside"),
)
def _(patch: Patch) -> None:
    real = DataDirectory.replace_node
    patch.setattr(DataDirectory, "replace_node", lambda self, node, random, known=0: real(self, node, random))
