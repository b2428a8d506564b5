"""Commands are carried out where they belong: in the process whose node they name, or in all of them.

A cluster of one process has nobody else to ask. Where there are several, one carries out what is for its own nodes, and
hands the rest over as the JSON that it is; what is wrong with links all learn from one another.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import trio

from trio_kv.cluster.cluster import Cluster
from trio_kv.cluster.others import Others
from trio_kv.control.commands import (
    Backup,
    Command,
    CommandError,
    Heal,
    Links,
    NodeCommand,
    Rebuild,
    Status,
    Transfer,
    parse_command,
)
from trio_kv.control.operation import carry_out
from trio_kv.trace.text import encode_json
from trio_kv.transport.connection import LinkLostError

CARRY_OUT = "command"
"""The call that hands a command over."""
NO_ID = msgspec.Raw(b"null")


async def carry_out_anywhere(command: Command, cluster: Cluster) -> dict[str, object]:
    """Carry a command out in whichever process it belongs to; return the members of its reply.

    Raises:
        CommandError: it makes no sense now, or its arguments don't fit together, or nobody can tell what came of it.

    """
    others = cluster.others
    if others is None:
        return await carry_out(command, cluster)
    match command:
        case Rebuild():
            async with others.rebuilding:
                return await _on_node(command, cluster, others)
        case NodeCommand():
            return await _on_node(command, cluster, others)
        case Transfer():
            return await _in(others.layout.process_of(_leader(command, cluster)), command, cluster, others)
        case Backup():
            return await _back_up(command, cluster, others)
        case Status() | Links():
            await cluster.refresh()
        case _:
            # Links are told of to all by the process where something was made wrong with them.
            pass
    members = await carry_out(command, cluster)
    if isinstance(command, Heal):
        await _in_all(command, others)
    return members


def serve_commands(cluster: Cluster, others: Others) -> None:
    """Let other processes hand commands over to this one."""

    async def call(payload: bytes) -> bytes:
        try:
            return encode_json(await carry_out(parse_command(payload), cluster))
        except CommandError as error:
            raise ValueError(str(error)) from error

    others.calls[CARRY_OUT] = call


async def _on_node(command: NodeCommand, cluster: Cluster, others: Others) -> dict[str, object]:
    is_named = command.node != "leader"
    node = command.node if command.node != "leader" else _leader(command, cluster)
    process = others.layout.process_of(node)
    if process is None:
        return await carry_out(command, cluster)
    members = await _in(process, msgspec.structs.replace(command, node=node), cluster, others)
    return members if is_named else {"node": node, **members}


async def _back_up(command: Backup, cluster: Cluster, others: Others) -> dict[str, object]:
    """Let a process take a snapshot whose nodes hear a leader: this one rather than others."""
    await cluster.refresh()
    able, where = [handle.status.node for handle in cluster.registry.readable()], ""
    if others.is_host:
        # What a node of another host writes lies there, where nobody here can copy it.
        able, where = [node for node in able if node in others.layout.here], " on this host: ask another one"
    processes = _in_order(others.layout.process_of(node) for node in able if node not in command.without)
    own, error = (
        others.layout.own,
        CommandError(f"no node runs that could take a snapshot{where}", command.id),
    )
    for process in sorted(processes, key=lambda each: each != own):
        try:
            return await _in(process, command, cluster, others)
        except CommandError as found:
            error = found
    raise error


async def _in(process: int | None, command: Command, cluster: Cluster, others: Others) -> dict[str, object]:
    """Carry a command out in one process."""
    if process is None or process == others.layout.own:
        return await carry_out(command, cluster)
    try:
        reply = await others.call(process, CARRY_OUT, _encode(command))
    except (ValueError, LinkLostError) as error:
        raise CommandError(str(error), command.id) from error
    members: Mapping[str, Any] = msgspec.json.decode(reply)
    return dict(members)


async def _in_all(command: Command, others: Others) -> None:
    """Let all others that can be reached carry out the same."""
    async with trio.open_nursery() as nursery:
        for process in others.layout.others:
            nursery.start_soon(_try_in, process, command, others)


async def _try_in(process: int, command: Command, others: Others) -> None:
    try:
        await others.call(process, CARRY_OUT, _encode(command))
    except LinkLostError:
        # What is wrong with the links it learns when it can be reached; its disks were sound when it started.
        return


def _leader(command: Command, cluster: Cluster) -> int:
    try:
        return cluster.leader()
    except ValueError as error:
        raise CommandError(str(error), command.id) from error


def _encode(command: Command) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(command, id=NO_ID))


def _in_order(processes: Iterable[int | None]) -> list[int]:
    return list(dict.fromkeys(each for each in processes if each is not None))
