"""What a gateway asks of a node, and what a node answers: the two ends may be in different processes.

Every request is answered exactly once by a node that lives: `Done`, `Refused`, `Full` or `Unknown`.
`Refused` and `Full` say that nothing happened and nothing will. A request to a node that dies is answered
`Unknown` by what stops it.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from trio_kv.kv.commands import Command
from trio_kv.kv.operations import AnyQuery
from trio_kv.kv.reply import Reply


class Propose(msgspec.Struct, frozen=True, gc=False):
    """Commit these commands, in this order and in a row."""

    source: Any
    """Where the answer goes; a node only hands it back."""
    number: int
    commands: Sequence[Command]
    size_bytes: int = 0
    """What they weigh in memory, about: the sender's word, for limits."""


class Read(msgspec.Struct, frozen=True, gc=False):
    """Answer these queries, all from one state."""

    source: Any
    number: int
    queries: Sequence[AnyQuery]
    is_stale: bool = False
    """Answer from what is applied, without asking the leader."""
    applied_min: int = 0
    """With a stale read: not before this index is applied here, so that its reader never goes back in time."""


class Done(msgspec.Struct, frozen=True, gc=False):
    """The request took effect: one reply a command or query."""

    number: int
    node: int
    term: int
    applied: int
    replies: Sequence[Reply]


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Nothing was appended: this node does not lead."""

    number: int
    node: int
    hint: int | None


class Full(msgspec.Struct, frozen=True, gc=False):
    """Nothing was appended: the disks of a majority are full."""

    number: int
    node: int


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """The commands may or may not take effect: this node can't tell any more."""

    number: int
    node: int


Request = Propose | Read
Answer = Done | Refused | Full | Unknown
