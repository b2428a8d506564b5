"""Which links each shape of a broken network cuts, in the order in which they are cut."""

from collections.abc import Iterable, Iterator
from functools import partial

from trio_kv.sim.faults import Bridge, Ring, Swizzle
from trio_kv.sim.later import Later
from trio_kv.transport.links import Links


def pairs_of_bridge(fault: Bridge) -> Iterator[tuple[int, int]]:
    """Return the pairs of nodes of which neither hears the other, each pair once."""
    left, right = (set(group) - {fault.node} for group in fault.groups)
    return ((one, other) for one in sorted(left) for other in sorted(right))


def links_of_ring(fault: Ring, members: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Return the links (source, target) between nodes that are not beside each other, both directions."""
    size = len(fault.order)
    for place, one in enumerate(fault.order):
        beside = {fault.order[place - 1], one, fault.order[(place + 1) % size]}
        yield from ((one, other) for other in members if other not in beside)


def cut_off(links: Links, members: Iterable[int], node: int, *, is_deaf: bool, is_mute: bool) -> None:
    """Cut one node off from all others, in one direction or in both."""
    for other in members:
        if other != node and is_deaf:
            links.cut(other, node)
        if other != node and is_mute:
            links.cut(node, other)


def swizzle(fault: Swizzle, links: Links, members: Iterable[int], later: Later) -> None:
    """Cut nodes off one by one, and mend their links in another order (FoundationDB's "swizzle-clogging")."""
    for turn, node in enumerate(fault.cut):
        later.do(turn * fault.gap_s, partial(cut_off, links, members, node, is_deaf=True, is_mute=True))
    for turn, node in enumerate(fault.mended, len(fault.cut)):
        later.do(turn * fault.gap_s, _mend, links, members, node)


def _mend(links: Links, members: Iterable[int], node: int) -> None:
    for other in members:
        links.mend(node, other)
        links.mend(other, node)
