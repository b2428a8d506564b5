"""The rules by which a process takes another one for what it says it is. Pure.

Whatever differs, nothing is taken from it: a process that listens to a wrong one would count its votes.
"""

import hmac
from collections.abc import Callable

from trio_kv.transport.peers import Identity
from trio_kv.wire.incarnations import why_no_successor
from trio_kv.wire.links import VERSIONS, Hello, Welcome

Known = Callable[[int], int]
"""Returns the highest incarnation of a node that was ever heard of; 0 if none was."""


def why_refused(hello: Hello, identity: Identity, known: Known) -> str | None:
    """Return why a process that calls is not listened to; None if it is.

    The secret comes first: whoever does not know it learns nothing else.
    """
    lowest, highest = hello.versions
    if not hmac.compare_digest(hello.secret.encode(), identity.secret.encode()):
        return "it does not know the secret of this cluster: both must read it from the same file"
    if hello.cluster != identity.cluster:
        return f"it belongs to cluster {hello.cluster[:32]}, and this is {identity.cluster}"
    if lowest > VERSIONS[1] or highest < VERSIONS[0]:
        return f"it speaks versions {lowest} to {highest}, and this process {VERSIONS[0]} to {VERSIONS[1]}"
    why = _why_not_ends(hello, identity) or why_not_count(hello.nodes, identity)
    if hello.is_asking:
        return why or _why_not_asking(hello)
    return why or why_not_nodes(hello.process, hello.incarnations, identity, known)


def _why_not_ends(hello: Hello, identity: Identity) -> str | None:
    layout = identity.layout
    if hello.target != layout.own:
        return f"it wants process {hello.target}, and this is process {layout.own}"
    if hello.process not in layout.others:
        return f"there is no other process {hello.process}: the others are {layout.others}"
    return None


def why_not_welcome(welcome: Welcome, target: int, identity: Identity, known: Known) -> str | None:
    """Return why a process that was called is not the one that was meant; None if it is."""
    if welcome.process != target:
        return f"process {welcome.process} answers where process {target} was called"
    if not VERSIONS[0] <= welcome.version <= VERSIONS[1]:
        return f"it chose version {welcome.version}, and this process speaks {VERSIONS[0]} to {VERSIONS[1]}"
    return why_not_count(welcome.nodes, identity) or why_not_nodes(
        target, welcome.incarnations, identity, known
    )


def why_not_count(nodes: int, identity: Identity) -> str | None:
    """Return why a process can't be of this cluster that knows of so many nodes; None if it can."""
    own = identity.layout.node_count
    return (
        None
        if nodes == own
        else f"its cluster has {nodes} nodes, and this one {own}: majorities would differ"
    )


def why_not_nodes(process: int, incarnations: dict[int, int], identity: Identity, known: Known) -> str | None:
    """Return why the nodes that a process says it has can't be its own; None if they can."""
    nodes = identity.layout.nodes[process]
    if tuple(sorted(incarnations)) != tuple(sorted(nodes)):
        return f"it has nodes {sorted(incarnations)}, and process {process} has {sorted(nodes)}"
    for node, incarnation in incarnations.items():
        why = why_no_successor(incarnation, known(node))
        if why is not None:
            return f"node {node} {why}"
    return None


def _why_not_asking(hello: Hello) -> str | None:
    has_something = bool(hello.incarnations) or hello.is_bulk
    return "it asks what is known of its nodes, and has some" if has_something else None
