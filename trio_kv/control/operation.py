"""How the commands of the control door are carried out."""

import os
from collections.abc import Callable, Mapping
from typing import Final

from trio_kv.cluster.cluster import Cluster
from trio_kv.cluster.statistics import LinkStatistics
from trio_kv.control.commands import (
    ArgumentsError,
    Backup,
    Command,
    CommandError,
    Crash,
    Cut,
    Delay,
    Drop,
    FailDisk,
    FillDisk,
    Heal,
    HealDisk,
    Links,
    NodeCommand,
    Partition,
    Pause,
    Rebuild,
    Restart,
    Resume,
    SlowDisk,
    Snapshot,
    StallDisk,
    Status,
    Stop,
    Transfer,
)


async def carry_out(command: Command, cluster: Cluster) -> dict[str, object]:
    """Carry a command out; return the members of its reply, but for `id` and `status`.

    Raises:
        CommandError: it makes no sense now, or its arguments don't fit together.

    """
    try:
        if not isinstance(command, NodeCommand):
            return await _operate(command, cluster)
        if command.node != "leader":
            return await _operate_node(command, command.node, cluster)
        node = cluster.leader()
        return {"node": node, **await _operate_node(command, node, cluster)}
    except ArgumentsError as error:
        raise CommandError(f"{error}; a right one would be {command.usage()}", command.id) from error
    except ValueError as error:
        raise CommandError(str(error), command.id) from error


async def _operate(command: Command, cluster: Cluster) -> dict[str, object]:
    """Do what is for the cluster as a whole.

    Raises:
        ArgumentsError: the arguments don't fit together.
        ValueError: it makes no sense now.

    """
    match command:
        case Status():
            return cluster.status()
        case Links():
            return {"links": [look_at_link(each) for each in cluster.statistics().links]}
        case Partition(groups=groups):
            nodes = [node for group in groups for node in group]
            if len(set(nodes)) != len(nodes):
                raise ArgumentsError("a node stands in two groups, or twice in one")
            cluster.faults.partition(groups)
        case Cut(link=link):
            _joining(link)
            cluster.faults.cut(*link)
        case Heal(link=link):
            cluster.faults.heal(_joining(link))
        case Delay(ms=ms, link=link):
            cluster.faults.delay(ms / 1000, _joining(link))
        case Drop(percent=percent, link=link):
            cluster.faults.drop(percent / 100, _joining(link))
        case Transfer():
            named = [node for node in (command.node, command.target) if node is not None]
            if len(named) != 1:
                raise ArgumentsError("name one node to hand over to")
            cluster.transfer(named[0])
        case Backup():
            members = await cluster.backup(command.without)
            return {**members, "path": _absolute(str(members["path"]))}
        case _:
            raise AssertionError(command)
    return {}


async def _operate_node(command: NodeCommand, node: int, cluster: Cluster) -> dict[str, object]:
    """Do what is for one node. Raises as `_operate`."""
    match command:
        case SlowDisk(ms=ms):
            cluster.faults.slow_disk(node, ms / 1000)
        case Rebuild():
            return await cluster.rebuild(node)
        case _:
            _ON_NODE[type(command)](cluster, node)
    return {}


_ON_NODE: Final[Mapping[type[NodeCommand], Callable[[Cluster, int], None]]] = {
    Crash: lambda cluster, node: cluster.faults.crash(node),
    Stop: lambda cluster, node: cluster.stop(node),
    Restart: lambda cluster, node: cluster.restart(node),
    Pause: lambda cluster, node: cluster.faults.pause(node),
    Resume: lambda cluster, node: cluster.faults.resume(node),
    StallDisk: lambda cluster, node: cluster.faults.stall_disk(node),
    FillDisk: lambda cluster, node: cluster.faults.fill_disk(node),
    FailDisk: lambda cluster, node: cluster.faults.fail_disk(node),
    HealDisk: lambda cluster, node: cluster.faults.heal_disk(node),
    Snapshot: lambda cluster, node: cluster.snapshot(node),
}
"""Those that take a node and nothing else."""


def look_at_link(link: LinkStatistics) -> dict[str, object]:
    """Return what JSON tells of a link."""
    median_s = link.round_trips.quantile(0.5)
    return {
        "from": link.source,
        "to": link.target,
        "state": "up" if link.is_up else "down",
        "reason": link.reason,
        "connects": link.connects,
        "bytes_sent": link.bytes_sent,
        "bytes_received": link.bytes_received,
        "messages_lost": link.messages_lost,
        "round_trip_ms": None if median_s is None else round(1000 * median_s, 3),
    }


def _joining(link: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return a link, if it is one.

    Raises:
        ArgumentsError: it has one node at both ends.

    """
    if link is not None and link[0] == link[1]:
        raise ArgumentsError("a link has two different ends")
    return link


def _absolute(path: str) -> str:
    """Return a path for others: they work in another directory than this process does. Asks no disk."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps what stands before a ".."
