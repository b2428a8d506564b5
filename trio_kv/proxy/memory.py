"""A `Store` in a dictionary: for tests of the door, and for measuring the door alone.

It answers at once, or when its gate is opened, and remembers what runs it was given. It knows nothing of
conditions, revisions other than a count, or nodes.
"""

from collections.abc import Sequence

import msgspec
import trio

from trio_kv.gateway.store import Answer, View
from trio_kv.kv.reply import Reply
from trio_kv.wire.operations import DeleteRequest, WriteRequest


class MemoryStore:
    """A store that is one dictionary.

    Args:
        gate: nothing is answered before this event is set; None answers at once.

    """

    def __init__(self, gate: trio.Event | None = None) -> None:
        """Begin empty; see the class."""
        self.gate = gate
        self.values: dict[str, msgspec.Raw] = {}
        self.runs: list[tuple[str, tuple[str, ...]]] = []
        """What was asked: ("write" or "read", the keys of the run)."""
        self.timeouts_s: list[float] = []
        self.revision = 0

    async def write(self, operations: Sequence[WriteRequest], *, timeout_s: float) -> Answer:
        """Apply writes without looking at their conditions."""
        self.runs.append(("write", tuple(operation.key for operation in operations)))
        self.timeouts_s.append(timeout_s)
        if self.gate is not None:
            await self.gate.wait()
        return self._answer([self._apply(operation) for operation in operations])

    async def read(self, keys: Sequence[str], *, timeout_s: float, is_stale: bool, view: View) -> Answer:
        """Read keys; stale reads are as good as others."""
        self.runs.append(("stale read" if is_stale else "read", tuple(keys)))
        self.timeouts_s.append(timeout_s)
        view.applied = self.revision
        if self.gate is not None:
            await self.gate.wait()
        values = [self.values.get(key) for key in keys]
        return self._answer(
            [Reply("missing") if value is None else Reply("ok", value, 1) for value in values]
        )

    def status(self) -> dict[str, object]:
        """Return the status of a cluster of one."""
        return {"leader": 1, "term": 1, "nodes": []}

    def _apply(self, operation: WriteRequest) -> Reply:
        self.revision += 1
        if isinstance(operation, DeleteRequest):
            old = self.values.pop(operation.key, None)
            return Reply("missing") if old is None else Reply("ok", old, self.revision)
        self.values[operation.key] = operation.value
        return Reply("ok", operation.value, self.revision)

    def _answer(self, replies: list[Reply]) -> Answer:
        return Answer(replies, node=1, term=1, applied=self.revision)
