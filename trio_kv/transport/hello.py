"""The rules by which a process takes another one for what it says it is. Pure.

Whatever differs, nothing is taken from it: a process that listens to a wrong one would count its votes.
"""

import hmac

from trio_kv.transport.peers import Host, Identity
from trio_kv.wire.links import VERSIONS, Hello, Welcome


def why_refused(hello: Hello, identity: Identity, host: Host) -> str | None:
    """Return why a process that calls is not listened to; None if it is.

    The secret comes first: whoever does not know it learns nothing else.
    """
    layout = identity.layout
    lowest, highest = hello.versions
    if not hmac.compare_digest(hello.secret.encode(), identity.secret.encode()):
        return "it does not know the secret of this cluster: both must read it from the same file"
    if hello.cluster != identity.cluster:
        return f"it belongs to cluster {hello.cluster[:32]}, and this is {identity.cluster}"
    if lowest > VERSIONS[1] or highest < VERSIONS[0]:
        return f"it speaks versions {lowest} to {highest}, and this process {VERSIONS[0]} to {VERSIONS[1]}"
    if hello.target != layout.own:
        return f"it wants process {hello.target}, and this is process {layout.own}"
    if hello.process not in layout.others:
        return f"there is no other process {hello.process}: the others are {layout.others}"
    return why_not_nodes(hello.process, hello.incarnations, identity, host)


def why_not_welcome(welcome: Welcome, target: int, identity: Identity, host: Host) -> str | None:
    """Return why a process that was called is not the one that was meant; None if it is."""
    if welcome.process != target:
        return f"process {welcome.process} answers where process {target} was called"
    if not VERSIONS[0] <= welcome.version <= VERSIONS[1]:
        return f"it chose version {welcome.version}, and this process speaks {VERSIONS[0]} to {VERSIONS[1]}"
    return why_not_nodes(target, welcome.incarnations, identity, host)


def why_not_nodes(process: int, incarnations: dict[int, int], identity: Identity, host: Host) -> str | None:
    """Return why the nodes that a process says it has can't be its own; None if they can."""
    nodes = identity.layout.nodes[process]
    if tuple(sorted(incarnations)) != tuple(sorted(nodes)):
        return f"it has nodes {sorted(incarnations)}, and process {process} has {sorted(nodes)}"
    for node, incarnation in incarnations.items():
        known = host.known_incarnation(node)
        if incarnation < known:
            return (
                f"node {node} comes with incarnation {incarnation:x}, and was replaced by {known:x}: it is a former"
                " self of that node, and must not run again"
            )
    return None
