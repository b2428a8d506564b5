"""What comes after the faults: everything is mended, and then the store must be whole again, soon and with all data.

Whole means: it takes a write and gives it back; all nodes run; and all have the same digest at the same applied
index. After that each key that was ever used is read once more, in the history like any other read, so that a value
that was lost long after its last use is missed all the same.
"""

import json
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
import trio

from trio_kv.check.exchange import Exchange
from trio_kv.check.exchange import read as read_member
from trio_kv.check.history import Operation
from trio_kv.check.replay import GONE_WITHIN_S
from trio_kv.client.addresses import Address, format_address
from trio_kv.client.control import NoDoorError
from trio_kv.kv.operations import Get, Set
from trio_kv.sim.chaos.lines import LineStream, connect
from trio_kv.sim.chaos.outcomes import classify
from trio_kv.sim.chaos.recorder import Recorder
from trio_kv.sim.chaos.target import SLOW_DOOR_TIMEOUT_S, RefusedError, StartError, Target
from trio_kv.sim.families import TTL_SHORT_S, Family
from trio_kv.wire.operations import Request, Status
from trio_kv.wire.replies import ReplyError, ReplyLine
from trio_kv.wire.requests import encode_request

ATTEMPT_S = 5.0
POLL_S = 0.1
ALIKE_S = 2.0
"""Within this time all nodes apply what was just written, and tell one another."""
AUDIT_BATCH = 64
MENDING = {"paused": "resume", "stopped": "restart", "crashed": "restart", "needs_rebuild": "rebuild"}
"""What to do about a node that is not up. A rebuild that was killed half-way leaves a node that needs another."""
LOST_ERRORS = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, ReplyError)


class NotWholeError(Exception):
    """The store is not whole again in time; the message says what is missing."""


async def mend(target: Target) -> None:
    """End every fault that may still be there.

    Raises:
        StartError: our own server does not come up.

    """
    if target.own is not None:
        await target.own.revive()
    await _mend_by_door(target)


async def _mend_by_door(target: Target) -> None:
    if target.has_door:
        # What is still wrong after this shows when the store must be whole.
        with suppress(NoDoorError, RefusedError):
            await target.ask_door("heal")
        with suppress(NoDoorError):
            await mend_nodes(target)


async def mend_nodes(target: Target) -> None:
    """Do what brings nodes up that are down.

    Raises:
        NoDoorError: nobody opens.

    """
    status = await target.ask_door("status")
    for node in status["nodes"]:
        command = MENDING.get(node["state"])
        if command is not None:
            with suppress(RefusedError):  # it came up by itself meanwhile
                await target.ask_door(command, node=node["node"], timeout_s=SLOW_DOOR_TIMEOUT_S)


async def wait_whole(target: Target, key: str, *, within_s: float) -> float:
    """Wait until the store is whole; return how many seconds that took.

    Args:
        target: the server.
        key: to be written and read.
        within_s: how long it may take.

    Raises:
        NotWholeError: it took longer.

    """
    started_s = trio.current_time()
    missing, address = "it does not answer", target.addresses[0]
    with trio.move_on_after(within_s):
        while missing:
            try:
                for address in target.addresses:
                    with trio.fail_after(ATTEMPT_S):
                        if missing := await _what_is_missing(address, key):
                            break
            except LOST_ERRORS as error:
                missing = f"no answer from {format_address(address)}: {error}"
            if missing:
                await trio.sleep(POLL_S)
                # A process that was away a moment ago has not heard of it.
                await _mend_by_door(target)
        return trio.current_time() - started_s
    raise NotWholeError(f"{within_s:g} s after the last fault ended the store is not whole: {missing}")


async def _what_is_missing(address: Address, key: str) -> str:
    value = msgspec.Raw(b'"whole"')
    async with _open(address) as stream:
        for request in (Request(Set(key, value)), Request(Get(key))):
            reply = await _ask(stream, request)
            if reply.code != "ok" or reply.value is None or bytes(reply.value) != bytes(value):
                return f"{type(request).__name__} of {key!r} is answered with {reply.line!r}"
        deadline = trio.current_time() + ALIKE_S
        while True:
            reply = await _ask(stream, Request(Status()))
            if reply.code != "ok":
                return ""  # a server that does not tell its state; it serves, and that is all we can know
            missing = compare_nodes(msgspec.json.decode(reply.line))
            if not missing or trio.current_time() > deadline:
                return missing
            await trio.sleep(POLL_S)


async def write_last(target: Target, key: str) -> int:
    """Write something behind all else; return its revision.

    Raises:
        NotWholeError: the store, whole a moment ago, does not take it.

    """
    try:
        with trio.fail_after(ATTEMPT_S):
            async with _open(target.addresses[0]) as stream:
                reply = await _ask(stream, Request(Set(key, msgspec.Raw(b'"last"')), meta=True))
    except LOST_ERRORS as error:
        raise NotWholeError(f"the last write had no answer: {error}") from error
    if reply.code != "ok" or not reply.revision:
        raise NotWholeError(f"the last write was answered with {reply.line!r}")
    return reply.revision


def compare_nodes(status: dict[str, Any]) -> str:
    """Return what keeps the nodes from being whole and alike, or nothing."""
    nodes = status.get("nodes", [])
    down = [f"n{node['node']} is {node['state']}" for node in nodes if node["state"] != "up"]
    if down:
        return ", ".join(down)
    applied = {node["applied"] for node in nodes}
    if len(applied) > 1:
        return f"the nodes have applied up to {', '.join(map(str, sorted(applied)))}"
    digests = {f"n{node['node']}": node["digest"] for node in nodes}
    if len(set(digests.values())) > 1:
        return f"the nodes hold different data at the same index: {digests}"
    return ""


async def audit(target: Target, recorder: Recorder, client: int) -> dict[str, list[Operation | Exchange]]:
    """Read every key that was used, those of families among them; return the reads by key, or by family.

    A key that ends soon is read until it has ended, or should have: the judge knows when that is.

    Raises:
        NotWholeError: the store, whole a moment ago, does not answer.

    """
    keys = sorted(key for key, group in recorder.groups.items() if not group.is_family)
    families = sorted(key for key, group in recorder.groups.items() if group.is_family)
    reads: dict[str, list[Operation | Exchange]] = {}
    gone_s = recorder.now() + TTL_SHORT_S + GONE_WITHIN_S
    try:
        async with _open(target.addresses[0]) as stream:
            for prefix in families:
                while any(map(_ends_soon, read := await _read_family(stream, prefix, recorder, client))):
                    if recorder.now() > gone_s:
                        break
                    await trio.sleep(POLL_S)
                reads[prefix] = [*read]
            for start in range(0, len(keys), AUDIT_BATCH):
                batch = keys[start : start + AUDIT_BATCH]
                reads |= {read.key: [read] for read in await _read_batch(stream, batch, recorder, client)}
                client += AUDIT_BATCH
    except LOST_ERRORS as error:
        raise NotWholeError(f"after {len(reads)} of {len(keys)} keys were read once more: {error}") from error
    return reads


def _ends_soon(exchange: Exchange) -> bool:
    return bool(read_member(exchange.told, "ttl", math.inf) <= TTL_SHORT_S)


async def _read_family(stream: LineStream, prefix: str, recorder: Recorder, client: int) -> list[Exchange]:
    requests = [json.dumps({"op": "get", "key": key, "meta": True}).encode() for key in Family(prefix).keys]
    call_s, reads = recorder.now(), []
    with trio.fail_after(2 * ATTEMPT_S):
        await stream.send(b"".join(request + b"\n" for request in requests))
        for request in requests:
            reply = await stream.receive()
            if reply is None or reply.code not in ("ok", "missing"):
                raise ReplyError(f"{request!r} is answered with {reply and reply.line!r}")
            reads.append(Exchange(client, request, call_s, recorder.now(), reply.line))
    return reads


async def _read_batch(
    stream: LineStream, keys: Sequence[str], recorder: Recorder, client: int
) -> list[Operation]:
    reads = []
    requests = [Request(Get(key), meta=True) for key in keys]
    call_s = recorder.now()
    with trio.fail_after(2 * ATTEMPT_S):
        await stream.send(b"".join(map(encode_request, requests)))
        for number, (key, request) in enumerate(zip(keys, requests, strict=True)):
            reply = await stream.receive()
            outcome, result = classify(request, reply)
            if outcome == "failed":
                raise ReplyError(f"{request!r} is answered with {reply and reply.line!r}")
            reads.append(
                Operation(
                    client=client + number,
                    op="get",
                    key=key,
                    call_s=call_s,
                    return_s=recorder.now(),
                    outcome=outcome,
                    result=result,
                    node=(reply and reply.node) or 0,
                )
            )
    return reads


async def find_nodes(target: Target) -> int:
    """Ask how many nodes there are; return 0 if the server does not say.

    Raises:
        StartError: nobody is there, or somebody who does not speak our protocol.

    """
    try:
        with trio.fail_after(ATTEMPT_S):
            async with _open(target.addresses[0]) as stream:
                reply = await _ask(stream, Request(Status()))
    except LOST_ERRORS as error:
        address = format_address(target.addresses[0])
        raise StartError(f"no server of our protocol answers at {address}: {error!r}") from error
    if reply.code != "ok":
        return 0
    nodes = msgspec.json.decode(reply.line).get("nodes")
    return len(nodes) if isinstance(nodes, list) else 0


@asynccontextmanager
async def _open(address: Address) -> AsyncIterator[LineStream]:
    stream = await connect(*address)
    try:
        yield stream
    finally:
        stream.close()


async def _ask(stream: LineStream, request: Request) -> ReplyLine:
    await stream.send(encode_request(request))
    reply = await stream.receive()
    if reply is None:
        raise ReplyError("the connection ended without an answer")
    return reply
