"""What a run of chaos is told."""

from pathlib import Path
from typing import Literal, get_args

import attrs
from attrs import validators

FaultKind = Literal[
    "crash",
    "stop",
    "pause",
    "kill",
    "freeze",
    "kill-one",
    "freeze-one",
    "fail-disk",
    "rebuild",
    "transfer",
    "snapshot",
    "partition",
    "cut",
    "delay",
    "drop",
    "slow-disk",
    "stall-disk",
    "fill-disk",
    "command",
]
"""What the nemesis can do, in the words of the control door; beside them:

- `kill`, `freeze`: SIGKILL and SIGSTOP of the server's process, which must be our child, or of all hosts;
- `kill-one`, `freeze-one`: the same of one of its further processes, or of one host;
- `stall-disk`: a disk so slow that it stands still;
- `command`: whatever a command line of the user's does.
"""

FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
PROCESS_KINDS: frozenset[FaultKind] = frozenset({"kill", "freeze"})
"""Those that need the process to be our own."""
ONE_KINDS: frozenset[FaultKind] = frozenset({"kill-one", "freeze-one"})
"""Those that need several of them."""
DOOR_KINDS = frozenset(FAULT_KINDS) - PROCESS_KINDS - ONE_KINDS - {"command"}
"""Those that need a control door."""

COVERAGE_S = 60.0
"""A run that is at least this long must have met the situations that its faults are there for."""


@attrs.frozen(kw_only=True)
class ChaosConfig:
    """A run.

    Raises:
        ValueError: a number is out of its range.

    """

    seed: int
    """Draws what clients ask for and which faults come; the moments at which they meet are the machine's."""
    out: Path
    """Folder for what is found; it is made."""
    seconds: float = attrs.field(default=60.0, validator=validators.gt(0))
    """How long load and faults last; recovery and verdict come after."""
    nodes: int = attrs.field(default=5, validator=[validators.ge(1), validators.le(9)])
    """Of a server of our own."""
    processes: int = attrs.field(default=1, validator=[validators.ge(1), validators.le(9)])
    """Over which its nodes are spread."""
    is_cluster: bool = False
    """Whether each of its nodes is a host, with doors of its own."""
    clients: int = attrs.field(default=16, validator=validators.ge(1))
    """Connections at a time."""
    keys: int = attrs.field(default=10, validator=validators.ge(1))
    """In use at a time; each is replaced by a fresh one after some hundred operations."""
    rate: float = attrs.field(default=1000.0, validator=validators.ge(0))
    """Operations a second, all clients together; 0 is as many as the store takes."""
    faults: frozenset[FaultKind] = frozenset()
    has_trace: bool = True
    """Let a server of our own write every event into a file, too."""
    has_families: bool = True
    """Whether all kinds of operations are asked, on families of keys. A server that does not tell revisions can't be
    judged by them."""
    fault_command: str | None = None
    """A command line that is run with `start` and, some seconds later, with `stop` behind it."""
    command: str = ""
    """The command line that repeats the run, for its summary."""
    recovery_s: float = attrs.field(default=60.0, validator=validators.gt(0))
    """How long the store may take to be whole again when all faults have ended."""
