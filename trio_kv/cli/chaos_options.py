"""What `chaos` may be asked for, and what it answers by its exit code."""

import difflib
import random
import shlex
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from trio_kv.cli.errors import UsageError
from trio_kv.cli.parsing import (
    NUMBER_MAX,
    Count,
    Host,
    NaturalNumber,
    Node,
    OutputOption,
    Seconds,
    ServerPort,
    flag,
    option,
)
from trio_kv.sim.chaos.config import (
    DOOR_KINDS,
    FAULT_KINDS,
    ONE_KINDS,
    PROCESS_KINDS,
    ChaosConfig,
    FaultKind,
)


class Verdict(IntEnum):
    """The exit codes of `chaos`."""

    VALID = 0
    VIOLATION = 1
    UNKNOWN = 2
    """Nothing was proved: too little was seen, or it could not be written down; or the command line was wrong."""
    NOT_CONNECTED = 3
    """There is no server."""
    INTERRUPTED = 130
    """A second Ctrl-C ended it before the verdict."""


CLIENTS_MAX = 65_536
"""More connections than a machine has ports for."""


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class ChaosOptions:
    """What to break, and how."""

    nodes: Annotated[Node, option("Nodes of the server that is started, 1 to 9.")] = 5
    processes: Annotated[
        Node, option("Processes over which they are spread; further ones are killed and frozen, too.")
    ] = 1
    is_cluster: Annotated[
        bool,
        flag("Start a host for each node, as `serve --cluster`, with doors of its own.", "", "--cluster"),
    ] = False
    seconds: Annotated[Seconds | None, option("How long load and faults last. [default: 60]")] = None
    minutes: Annotated[Seconds | None, option("The same in minutes.")] = None
    clients: Annotated[int, option("Connections at a time.", validator=Number(gt=0, lte=CLIENTS_MAX))] = 16
    keys: Annotated[Count, option("Keys in use at a time; fewer mean more clients on each.")] = 10
    rate: Annotated[
        float,
        option(
            "Operations a second, all clients together; 0: as many as the store takes.",
            validator=Number(gte=0, lte=NUMBER_MAX),
        ),
    ] = 1000.0
    seed: Annotated[
        NaturalNumber | None,
        option("Draws requests and faults. What meets what is up to the machine. [default: random]"),
    ] = None
    faults: Annotated[
        str, option(f"Which faults may come: all, none, or of {', '.join(FAULT_KINDS[:-1])}.")
    ] = "all"
    out: Annotated[
        Path | None, option("Folder for what is found. [default: trio_kv-chaos/TIME-seed-SEED]")
    ] = None
    has_trace: Annotated[
        bool,
        option("Let the server that is started write every event into the folder, too.", "", "--trace"),
    ] = True
    has_families: Annotated[
        bool,
        option(
            "Ask all kinds of operations; else get, set, delete and cas alone, as any server knows them.",
            "",
            "--families",
        ),
    ] = True
    host: Annotated[
        Host | None, option("Address of a server that runs; without --host and --port one is started.")
    ] = None
    port: Annotated[ServerPort | None, option("Its port for clients. [default: 3001]")] = None
    data_dir: Annotated[
        Path | None, option("Its data directory: faults go through the control door it tells of.")
    ] = None
    control_port: Annotated[ServerPort | None, option("Its control port, the same.")] = None
    fault_command: Annotated[
        str | None,
        option("A command that breaks something when `start` stands behind it, and mends it with `stop`."),
    ] = None
    output: OutputOption = "text"

    @property
    def is_on_running(self) -> bool:
        """Whether the server is one that runs already."""
        return self.host is not None or self.port is not None

    def check(self) -> None:
        """Refuse what can't work together.

        Raises:
            UsageError: says what, and what would do.

        """
        if self.seconds is not None and self.minutes is not None:
            raise UsageError("--seconds and --minutes say the same: use one of them")
        self._check_faults()
        if not self.is_on_running and (self.data_dir is not None or self.control_port is not None):
            raise UsageError(
                "--data-dir and --control-port tell of a server that runs: add --port, or leave them out"
            )
        if self.is_on_running and (self.processes > 1 or self.is_cluster):
            raise UsageError(
                "--processes and --cluster are for a server that is started: leave --host and --port out"
            )
        if self.is_cluster and self.processes > 1:
            raise UsageError("--cluster starts a process for each node: leave --processes out")
        if self.processes > self.nodes:
            raise UsageError(
                f"--processes {self.processes} is more than there are nodes: give at most {self.nodes}"
            )
        if self.out is not None and self.out.exists():
            raise UsageError(f"--out {self.out} is there already: name a new folder")

    def _check_faults(self) -> None:
        """Refuse faults that are named and can't be brought about; `all` means all that can."""
        named = frozenset() if self.faults == "all" else parse_faults(self.faults)
        if self.is_on_running and named & (PROCESS_KINDS | ONE_KINDS):
            raise UsageError(
                "kill and freeze are for a server that is started here: leave --host and --port out"
            )
        if named & ONE_KINDS and self.processes == 1 and not self.is_cluster:
            raise UsageError("kill-one and freeze-one need several processes: add --processes or --cluster")
        if self.is_on_running and named & DOOR_KINDS and self.data_dir is None and self.control_port is None:
            raise UsageError("faults go through the control door: add --data-dir or --control-port")
        if "command" in named and self.fault_command is None:
            raise UsageError("the fault `command` needs --fault-command")

    def to_config(self) -> ChaosConfig:
        """Return what to do, with all that was left open drawn or named."""
        seed = random.Random().getrandbits(32) if self.seed is None else self.seed
        time = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%S")
        out = self.out or Path("trio_kv-chaos") / f"{time}-seed-{seed}"
        seconds = 60 * self.minutes if self.minutes is not None else self.seconds or 60.0
        return ChaosConfig(
            seed=seed,
            out=out,
            seconds=seconds,
            nodes=self.nodes,
            processes=self.processes,
            is_cluster=self.is_cluster,
            clients=self.clients,
            keys=self.keys,
            rate=self.rate,
            faults=parse_faults(self.faults),
            has_trace=self.has_trace,
            has_families=self.has_families,
            fault_command=self.fault_command,
            command=self._command(seed, seconds),
        )

    def _command(self, seed: int, seconds: float) -> str:
        server = {
            "host": self.host,
            "port": self.port,
            "data-dir": self.data_dir,
            "control-port": self.control_port,
        }
        words: dict[str, object] = {
            **({name: value for name, value in server.items() if value is not None} or {"nodes": self.nodes}),
            "seconds": f"{seconds:g}",
            "clients": self.clients,
            "keys": self.keys,
            "rate": f"{self.rate:g}",
            "faults": self.faults,
            "seed": seed,
        }
        if self.fault_command is not None:
            words["fault-command"] = self.fault_command
        if self.processes > 1:
            words["processes"] = self.processes
        options = [f"--{name} {shlex.quote(str(value))}" for name, value in words.items()]
        options += ["--cluster"] if self.is_cluster else []
        options += [] if self.has_families else ["--no-families"]
        return " ".join(["python -m trio_kv chaos", *options])


def parse_faults(text: str) -> frozenset[FaultKind]:
    """Return the faults that `crash,kill` names; `all` and `none` do, too.

    Raises:
        UsageError: there is no such fault.

    """
    if text == "all":
        return frozenset(FAULT_KINDS)
    kinds: set[FaultKind] = set()
    for name in () if text == "none" else text.split(","):
        kind = next((kind for kind in FAULT_KINDS if kind == name.strip()), None)
        if kind is None:
            near = difflib.get_close_matches(name, FAULT_KINDS, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(FAULT_KINDS)}"
            raise UsageError(f"there is no fault {name!r}: {hint}")
        kinds.add(kind)
    return frozenset(kinds)
