"""A backup of a cluster that runs: which node is asked for a snapshot, and which one will do.

A snapshot that is begun after a linearizable read was confirmed, and goes as far as that read, holds every write that
was acknowledged before. No node is relied on: one that does not hear a leader is passed over, and one that does not get
its snapshot done in time is not waited for alone.
"""

from collections.abc import Collection, Mapping

import trio

from trio_kv.cluster.members import FaultError, Member
from trio_kv.cluster.registry import Handle, Registry
from trio_kv.replica.driver import TakeSnapshot
from trio_kv.storage.snapshot_reading import snapshot_name
from trio_kv.wire.node_port import Answer, Done, Read

BACKUP_S = 60.0
"""How long a backup waits for its snapshot."""
READ_PATIENCE_S = 1.0
"""How long for a node to hear from a leader, before another one is asked."""
SNAPSHOT_PATIENCE_S = 10.0
"""How long for a node's snapshot, before another one is asked to take one, too."""
RETRY_S = 0.1
"""How long when none could, before all are asked again."""


async def take_backup(
    registry: Registry, members: Mapping[int, Member], without: Collection[int]
) -> dict[str, object]:
    """Have a snapshot taken that holds every write acknowledged before this call.

    Args:
        registry: tells who runs, followers first.
        members: the nodes of this process.
        without: nodes whose snapshots are of no use.

    Returns:
        the snapshot's `path`, its `index` and `term`, and its `node`.

    Raises:
        FaultError: no node could take it in time.

    """
    index_min: int | None = None
    with trio.move_on_after(BACKUP_S):
        while True:
            for handle in registry.readable():
                member = members.get(handle.status.node)
                running = None if member is None else member.node
                if member is None or running is None or handle.status.node in without:
                    continue
                applied = await _wait_read(registry, handle)
                if applied is None or member.node is not running:
                    continue
                # A snapshot of any node will do that goes as far as the first read that was confirmed. What is asked
                # for below does: this node has applied as much.
                index_min = applied if index_min is None else index_min
                running.inbox.post(TakeSnapshot())
                with trio.move_on_after(SNAPSHOT_PATIENCE_S):
                    return await _wait_snapshot(registry, members, index_min, without)
            await trio.sleep(RETRY_S)
    if index_min is not None:
        raise FaultError("no node got a snapshot done in time: is there room on the disks?")
    raise FaultError("no node heard a leader in time: are most nodes up, and connected? See the status")


async def _wait_read(registry: Registry, handle: Handle) -> int | None:
    """Return what a node had applied when a linearizable read there was confirmed; None if that took too long."""
    came = trio.Event()
    answers: list[Answer] = []

    def deliver(answer: Answer) -> None:
        answers.append(answer)
        came.set()

    reply_to = registry.join(deliver)
    try:
        if handle.submit(Read(reply_to, 0, ())):
            with trio.move_on_after(READ_PATIENCE_S):
                await came.wait()
    finally:
        registry.leave(reply_to)
    return next((answer.applied for answer in answers if isinstance(answer, Done)), None)


async def _wait_snapshot(
    registry: Registry, members: Mapping[int, Member], index_min: int, without: Collection[int]
) -> dict[str, object]:
    """Wait for a snapshot of some node that goes so far; return where it is."""
    while True:
        for node, member in members.items():
            if node in without or member.node is None:
                continue
            stored = member.node.replica.snapshots.stored
            if stored.index >= index_min:
                assert member.found is not None
                path = member.found.directory.path / snapshot_name(*stored)
                return {"path": str(path), "index": stored[0], "term": stored[1], "node": node}
        await registry.wait_change()
