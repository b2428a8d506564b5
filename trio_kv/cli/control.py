"""`ctl`: break a running cluster and mend it, through the control door."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import App, Parameter, Token
from cyclopts.validators import Number

from trio_kv.cli.errors import UsageError
from trio_kv.cli.output import UNKNOWN_CODES, ExitCode, Output, say, show, show_json
from trio_kv.cli.parsing import (
    DATA_DIR_DEFAULT,
    ListenPort,
    Node,
    ReplyOutput,
    Timeout,
    flag,
    option,
    read_whole,
)
from trio_kv.cli.status import show_links, show_status
from trio_kv.cli.way import TlsOptions
from trio_kv.cli.words import examples
from trio_kv.control.commands import (
    Crash,
    Cut,
    Delay,
    Drop,
    FailDisk,
    FillDisk,
    Heal,
    HealDisk,
    NodeCommand,
    Partition,
    Pause,
    Rebuild,
    Restart,
    Resume,
    SlowDisk,
    Snapshot,
    StallDisk,
    Stop,
    Transfer,
)

READS = frozenset({"status", "links"})
"""Commands that change nothing: without an answer such a command was just not done."""
MILLISECONDS_MAX = 3_600_000
"""An hour. A longer delay is a mistake."""

app = App(
    name="ctl",
    help="Break a running cluster and mend it.",
    help_format="plaintext",
    help_epilogue=examples(
        "trio-kv ctl crash 2                     # dies and comes back by itself",
        "trio-kv ctl partition 1,2/3,4,5",
        "trio-kv ctl heal",
        more="The door is found by the data directory of the server, or by its port if it keeps nothing.",
    ),
)


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class DoorWay(TlsOptions):
    """How to find the door."""

    data_dir: Annotated[Path, option("The server's data directory.", "DATA_DIR")] = DATA_DIR_DEFAULT
    control_port: Annotated[
        ListenPort | None,
        option("The server's control port; 0: whatever its directory says.", "CONTROL_PORT"),
    ] = None
    timeout_s: Timeout = 5.0


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class DoorOptions(DoorWay):
    """The same, and how to tell what it said."""

    output: ReplyOutput = "text"


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class SlowDoorOptions(DoorOptions):
    """How to find the door, for what may take its time."""

    timeout_s: Timeout = 100.0


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class SlowDoorWay(DoorWay):
    """How to find the door, for what may take its time and has one output."""

    timeout_s: Timeout = 100.0


DEFAULT_DOOR = DoorOptions()
DEFAULT_SLOW_DOOR = SlowDoorOptions()
DEFAULT_SLOW_WAY = SlowDoorWay()

LEADER = "leader"


def _read_node(_: object, tokens: Sequence[Token]) -> str:
    word = tokens[0].value
    if word != LEADER and word not in tuple("123456789"):
        raise ValueError(f"{word!r} is no node: write its number, 1 to 9, or {LEADER} for the one that leads")
    return word


def _named(node: str) -> int | str:
    """Return what the door calls a node."""
    return node if node == LEADER else int(node)


NodeNumber = Annotated[Node, Parameter(help="The node's number.")]
NodeOrLeader = Annotated[
    str, Parameter(converter=_read_node, help=f"The node's number, or {LEADER} for the one that leads.")
]
Milliseconds = Annotated[
    float, Parameter(validator=Number(gte=0, lte=MILLISECONDS_MAX), help="Milliseconds; 0 ends it.")
]

OneLink = Annotated[
    str | None, Parameter(help="Two nodes, as 1-2: their link alone, both ways. [default: all links]")
]


def _examples(*lines: str) -> str:
    return examples(*(f"trio-kv ctl {line}" for line in lines))


def _send(name: str, arguments: Mapping[str, Any], door_options: DoorOptions) -> ExitCode:
    from trio_kv.client import control as client

    try:
        door = client.find_door(door_options.data_dir, door_options.control_port)
        reply = client.command(
            door, name, arguments, timeout_s=door_options.timeout_s, tls=door_options.tls()
        )
    except client.UnansweredError as error:
        say(str(error) if name in READS else f"{error}. The command may or may not take effect")
        return _code_without_result(name)
    except client.NoDoorError as error:
        say(str(error))
        return ExitCode.NOT_CONNECTED
    if reply.get("status") == "ok":
        return _show_done(name, arguments, reply, door_options.output)
    if door_options.output == "json":
        show_json(reply)
    else:
        say(f"{reply.get('error')}: {reply.get('message')}")
    return _code_without_result(name) if reply.get("error") in UNKNOWN_CODES else ExitCode.NOT_DONE


def _code_without_result(name: str) -> ExitCode:
    return ExitCode.NOT_CONNECTED if name in READS else ExitCode.OUTCOME_UNKNOWN


def _show_done(name: str, arguments: Mapping[str, Any], reply: Mapping[str, Any], output: Output) -> ExitCode:
    if name == "status":
        return show_status(reply, output)
    if name == "links":
        return show_links(reply, output)
    if output == "json":
        show_json(reply)
    elif name == "rebuild":
        from trio_kv.cli.rebuild import describe_rebuilt

        show(describe_rebuilt(reply.get("node", arguments["node"]), reply, "The"))
    else:
        show(f"ok: n{reply.get('node')}" if LEADER in arguments.values() else "ok")
    return ExitCode.OK


@app.command(help_epilogue=_examples("status", "status --links"))
def status(
    *,
    links: Annotated[bool, flag("Show the links between processes, or hosts, instead.")] = False,
    door: DoorOptions = DEFAULT_DOOR,
) -> ExitCode:
    """Show every node, as `trio-kv status` does."""
    return _send("links" if links else "status", {}, door)


def _add_node_command(command: type[NodeCommand], *lines: str) -> None:
    """Add a command that takes a node and nothing else."""
    name = command.name()

    def send(node: NodeOrLeader, /, *, door: DoorOptions = DEFAULT_DOOR) -> ExitCode:
        return _send(name, {"node": _named(node)}, door)

    app.command(send, name=name, help=command.what(), help_epilogue=_examples(*lines))


_add_node_command(Crash, "crash 2", "crash leader")
_add_node_command(Stop, "stop 2")
_add_node_command(Restart, "restart 2")
_add_node_command(Pause, "pause 2")
_add_node_command(Resume, "resume 2")
_add_node_command(StallDisk, "stall-disk 2")
_add_node_command(FillDisk, "fill-disk 2")
_add_node_command(FailDisk, "fail-disk 2")
_add_node_command(HealDisk, "heal-disk 2")
_add_node_command(Snapshot, "snapshot 2")


@app.command(help=Partition.what(), help_epilogue=_examples("partition 1,2/3,4,5", "partition 1/2,3"))
def partition(
    groups: Annotated[str, Parameter(help="Groups of nodes, as 1,2/3,4,5.")],
    /,
    *,
    door: DoorOptions = DEFAULT_DOOR,
) -> ExitCode:
    """Cut the groups off from one another."""
    return _send("partition", {"groups": parse_groups(groups)}, door)


@app.command(help=Cut.what(), help_epilogue=_examples("cut 1-2"))
def cut(
    link: Annotated[str, Parameter(help="Two nodes, as 1-2.")], /, *, door: DoorOptions = DEFAULT_DOOR
) -> ExitCode:
    """Cut a link."""
    return _send("cut", {"link": parse_link(link)}, door)


@app.command(help=Heal.what(), help_epilogue=_examples("heal", "heal 1-2"))
def heal(link: OneLink = None, /, *, door: DoorOptions = DEFAULT_DOOR) -> ExitCode:
    """Make links and disks sound."""
    return _send("heal", _on_link(link), door)


@app.command(help=Delay.what(), help_epilogue=_examples("delay 20", "delay 20 1-2", "delay 0"))
def delay(ms: Milliseconds, link: OneLink = None, /, *, door: DoorOptions = DEFAULT_DOOR) -> ExitCode:
    """Delay messages."""
    return _send("delay", {"ms": ms, **_on_link(link)}, door)


@app.command(help=Drop.what(), help_epilogue=_examples("drop 10", "drop 10 1-2", "drop 0"))
def drop(
    percent: Annotated[float, Parameter(validator=Number(gte=0, lte=100), help="0 to 100; 0 ends it.")],
    link: OneLink = None,
    /,
    *,
    door: DoorOptions = DEFAULT_DOOR,
) -> ExitCode:
    """Lose messages."""
    return _send("drop", {"percent": percent, **_on_link(link)}, door)


@app.command(help=SlowDisk.what(), help_epilogue=_examples("slow-disk 2 50", "slow-disk 2 0"))
def slow_disk(node: NodeOrLeader, ms: Milliseconds, /, *, door: DoorOptions = DEFAULT_DOOR) -> ExitCode:
    """Slow a disk down."""
    return _send("slow-disk", {"node": _named(node), "ms": ms}, door)


@app.command(help=Transfer.what(), help_epilogue=_examples("transfer 3"))
def transfer(target: NodeNumber, /, *, door: DoorOptions = DEFAULT_DOOR) -> ExitCode:
    """Let another lead."""
    return _send("transfer", {"target": target}, door)


@app.command(
    help=f"{Rebuild.what()} Without a running server: `trio-kv rebuild`.",
    help_epilogue=_examples("stop 2", "rebuild 2"),
)
def rebuild(node: NodeOrLeader, /, *, door: SlowDoorOptions = DEFAULT_SLOW_DOOR) -> ExitCode:
    """Fill a node anew."""
    return _send("rebuild", {"node": _named(node)}, door)


def _on_link(link: str | None) -> dict[str, object]:
    """Return the members that name a link, if one is named."""
    return {} if link is None else {"link": parse_link(link)}


def parse_groups(text: str) -> list[list[int]]:
    """Return the groups of `1,2/3,4,5`. A UsageError says what is wrong."""
    try:
        groups = [[read_whole(node) for node in group.split(",")] for group in text.split("/")]
    except ValueError as error:
        raise UsageError(f"{text!r} are no groups of nodes; write 1,2/3,4,5") from error
    nodes = [node for group in groups for node in group]
    if len(groups) < 2:
        raise UsageError(f"{text!r} is one group; write at least two, as 1,2/3,4,5")
    if len(set(nodes)) != len(nodes):
        raise UsageError(f"{text!r} names a node twice")
    return groups


def parse_link(text: str) -> list[int]:
    """Return the two nodes of `1-2`. A UsageError says what is wrong."""
    try:
        first, second = map(read_whole, text.split("-"))
    except ValueError as error:
        raise UsageError(f"{text!r} is no pair of nodes; write 1-2") from error
    if first == second:
        raise UsageError(f"{text!r} is one node twice; write 1-2")
    return [first, second]
