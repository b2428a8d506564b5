"""What a client of the core world asks, over all its attempts, and what came of it."""

from collections.abc import Sequence

import attrs

from trio_kv.kv.commands import Command
from trio_kv.kv.operations import AnyQuery
from trio_kv.kv.reply import Reply
from trio_kv.wire.node_port import Place


@attrs.define(eq=False)
class Operation:
    """One operation of a client, over all its attempts."""

    kind: str
    """open, get, set, delete or cas; ask or write: of a family."""
    keys: tuple[str, ...]
    """Of registers; what is asked of a family names its keys itself."""
    began_at_s: float
    session: int = 0
    seqs: tuple[int, ...] = ()
    templates: tuple[Command, ...] = ()
    """The commands, `done` as it was at first."""
    places: tuple[Place, ...] = ()
    """What is read between them."""
    queries: tuple[AnyQuery, ...] = ()
    """What is read, if nothing is written."""
    attempts: int = 0
    numbers: list[int] = attrs.field(factory=list)
    """The requests under which it was asked."""
    node: int = 0
    """Whom to ask next; 0: who is thought to lead."""
    asked: int = 0
    """Who was asked last."""
    ended_at_s: float | None = None
    outcome: str = ""
    lane: int = 0
    """A lane has one operation under way at a time; 0: that of the probes."""
    replies: Sequence[Reply] = ()
    """To the commands, or to a get."""
    reads: Sequence[Reply] = ()
    """To what was read between commands."""
    answered_by: int = 0
    forged: list[Command] = attrs.field(factory=list)
    """Other commands that were sent under the same (session, seq): one of all of them took effect, or will."""

    @property
    def is_of_family(self) -> bool:
        """Whether it is about keys that are used together."""
        return self.kind in ("ask", "write")

    def __str__(self) -> str:
        ended = "..." if self.ended_at_s is None else f"{self.ended_at_s:.6f}"
        return f"{self.began_at_s:.6f} {ended} {self.kind} {','.join(self.keys)} {self.seqs} {self.outcome}"
