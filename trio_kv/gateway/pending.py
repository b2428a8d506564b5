"""What is under way at the gateway: runs of writes, runs of reads, and the opening of a session."""

from collections.abc import Sequence
from typing import Any

import attrs
import trio

from trio_kv.gateway.store import Answer
from trio_kv.kv.commands import Command
from trio_kv.kv.operations import AnyQuery
from trio_kv.kv.reply import Reply
from trio_kv.wire.node_port import Place


@attrs.define(eq=False, slots=True)
class PendingWrite:
    """A run with writes under way."""

    number: int
    session: int | None
    """Whose seqs these are; None of a run that opens one."""
    first: int
    """The run's first seq."""
    commands: Sequence[Command]
    places: Sequence[Place]
    """The queries between them."""
    size_bytes: int
    deadline: float
    task: Any
    """Who waits for the answer; None for the opening of a session."""
    handed_to: tuple[int, int] | None = None
    """(node, term) of the attempt that may still be answered."""
    retry_at: float = 0.0
    """When it is handed over again, if the leader is still the same and there is no answer."""
    unresolved: int = 0
    """Attempts that may take effect, for all we know."""
    answer: Answer | None = None


@attrs.define(eq=False, slots=True)
class PendingRead:
    """A run of reads under way."""

    number: int
    queries: Sequence[AnyQuery]
    deadline: float
    task: Any
    is_stale: bool
    applied_min: int
    hedge_at: float
    asked: list[int] = attrs.field(factory=list)
    answer: Answer | None = None


@attrs.define(eq=False, slots=True)
class Opening:
    """The opening of a session, and who waits for it."""

    used_at: float
    ended: trio.Event = attrs.field(factory=trio.Event)
    refusal: Reply | None = None
    """Why there is no session, once it has ended without one."""
