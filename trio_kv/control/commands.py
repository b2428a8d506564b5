"""The commands of the control door: what may be asked for, and how it is carried out.

Each command is a class with its arguments; the JSON names are the attributes. Decoding is strict (a number
in quotes is no number), and an error tells what would be right, because a person has typed it.
"""

import os
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from trio_kv.cluster.cluster import Cluster

MS_MAX = 60_000
NODE_MAX = 9

Node = Annotated[int, Meta(ge=1, le=NODE_MAX)]
NodeOrLeader = Node | Literal["leader"]
"""A node by its number, or whichever leads at the moment."""
Milliseconds = Annotated[float, Meta(ge=0, le=MS_MAX)]
Percent = Annotated[float, Meta(ge=0, le=100)]


class ArgumentsError(ValueError):
    """The arguments of a command don't fit together: whatever the cluster is like, this can't be done."""


class CommandError(Exception):
    """A message that is no command, or one that cannot be done. Its argument says what would be right."""

    def __init__(self, message: str, id: msgspec.Raw = msgspec.Raw()) -> None:  # noqa: B008
        """Say what is wrong.

        Args:
            message: for a person.
            id: the text of the message's id, if it has one that can be read.

        """
        super().__init__(message)
        self.id = id


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="command"):
    """A command. Its reply echoes `id`."""

    example: ClassVar[str] = ""
    """Arguments that it takes, for people."""
    is_slow: ClassVar[bool] = False
    """Whether it works through much data, and may take its time."""

    id: msgspec.Raw = msgspec.Raw()

    @classmethod
    def name(cls) -> str:
        """Return what it is called in JSON."""
        return str(cls.__struct_config__.tag)

    @classmethod
    def usage(cls) -> str:
        """Return how it looks, for people."""
        return f'{{"command": "{cls.name()}"{cls.example}}}'


class Status(Command, frozen=True, tag="status"):
    """Tell what the cluster looks like."""


class Events(Command, frozen=True, tag="events"):
    """Send all further events to this connection."""


class NodeCommand(Command, frozen=True):
    """A command for one node. If it is for the leader, the reply tells which `node` that was."""

    example = ', "node": 2'
    node: NodeOrLeader


class Crash(NodeCommand, frozen=True, tag="crash"):
    """Let a node die; it comes back by itself."""


class Stop(NodeCommand, frozen=True, tag="stop"):
    """Stop a node; it stays down."""


class Restart(NodeCommand, frozen=True, tag="restart"):
    """Start a node that is down, or let one that runs die and start again, at once."""


class Pause(NodeCommand, frozen=True, tag="pause"):
    """Let a node do nothing."""


class Resume(NodeCommand, frozen=True, tag="resume"):
    """Let a paused node go on."""


class Partition(Command, frozen=True, tag="partition"):
    """Cut all links between nodes of different groups."""

    example = ', "groups": [[1, 2], [3, 4, 5]]'
    groups: Annotated[list[Annotated[list[Node], Meta(min_length=1)]], Meta(min_length=2)]


class Cut(Command, frozen=True, tag="cut"):
    """Cut one link."""

    example = ', "link": [1, 2]'
    link: tuple[Node, Node]


class Heal(Command, frozen=True, tag="heal"):
    """End all faults of links."""


class Delay(Command, frozen=True, tag="delay"):
    """Delay every message."""

    example = ', "ms": 50'
    ms: Milliseconds


class Drop(Command, frozen=True, tag="drop"):
    """Lose a share of all messages."""

    example = ', "percent": 10'
    percent: Percent


class SlowDisk(NodeCommand, frozen=True, tag="slow-disk"):
    """Let every sync of a node's disk take longer."""

    example = ', "node": 2, "ms": 50'
    ms: Milliseconds


class FailDisk(NodeCommand, frozen=True, tag="fail-disk"):
    """Let a node's next write fail."""


class Transfer(Command, frozen=True, tag="transfer"):
    """Hand leadership to a node, which is named `node` or `target`."""

    example = ', "node": 2'
    node: Node | None = None
    target: Node | None = None


class Snapshot(NodeCommand, frozen=True, tag="snapshot"):
    """Let a node take a snapshot, and drop the log behind it."""


class Rebuild(NodeCommand, frozen=True, tag="rebuild"):
    """Rebuild a node that is down from the others."""

    is_slow = True


class Backup(Command, frozen=True, tag="backup"):
    """Take a snapshot that holds all that was acknowledged, for somebody to copy."""

    is_slow = True
    without: frozenset[Node] = frozenset()
    """Nodes whose snapshots were found to be of no use."""


COMMANDS: tuple[type[Command], ...] = (
    Status, Events, Crash, Stop, Restart, Pause, Resume, Partition, Cut, Heal, Delay, Drop, SlowDisk,
    FailDisk, Transfer, Snapshot, Rebuild, Backup,
)  # fmt: skip
BY_NAME: dict[str, type[Command]] = {command.name(): command for command in COMMANDS}


class _Named(msgspec.Struct):
    """What every message must have, whatever else is wrong with it."""

    command: str = ""
    id: msgspec.Raw = msgspec.Raw()


_decode_named = msgspec.json.Decoder(_Named).decode
_decoders = {name: msgspec.json.Decoder(command) for name, command in BY_NAME.items()}


def parse_command(message: str | bytes) -> Command:
    """Return the command in a message.

    Raises:
        CommandError: it is none; says what would be right.

    """
    try:
        named = _decode_named(message)
    except (ValueError, RecursionError) as error:
        raise CommandError(f'{error}; a command looks like {{"id": 1, "command": "status"}}') from None
    decoder = _decoders.get(named.command)
    if decoder is None:
        wrong = f"there is no command {named.command!r}" if named.command else "`command` is missing"
        raise CommandError(f"{wrong}; the commands are {', '.join(BY_NAME)}", named.id)
    try:
        return decoder.decode(message)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{error}; right would be {BY_NAME[named.command].usage()}", named.id) from None


async def carry_out(command: Command, cluster: Cluster) -> dict[str, object]:
    """Carry a command out; return the members of its reply, but for `id` and `status`.

    Raises:
        CommandError: it makes no sense now, or its arguments don't fit together.

    """
    try:
        if not isinstance(command, NodeCommand):
            return await _operate(command, cluster)
        if command.node != "leader":
            return await _operate_node(command, command.node, cluster)
        node = cluster.leader()
        return {"node": node, **await _operate_node(command, node, cluster)}
    except ArgumentsError as error:
        raise CommandError(f"{error}; a right one would be {command.usage()}", command.id) from error
    except ValueError as error:
        raise CommandError(str(error), command.id) from error


async def _operate(command: Command, cluster: Cluster) -> dict[str, object]:
    """Do what is for the cluster as a whole.

    Raises:
        ArgumentsError: the arguments don't fit together.
        ValueError: it makes no sense now.

    """
    match command:
        case Status():
            return cluster.status()
        case Partition(groups=groups):
            nodes = [node for group in groups for node in group]
            if len(set(nodes)) != len(nodes):
                raise ArgumentsError("a node stands in two groups, or twice in one")
            cluster.faults.partition(groups)
        case Cut(link=(first, second)):
            if first == second:
                raise ArgumentsError("a link has two different ends")
            cluster.faults.cut(first, second)
        case Heal():
            cluster.faults.heal()
        case Delay(ms=ms):
            cluster.faults.delay(ms / 1000)
        case Drop(percent=percent):
            cluster.faults.drop(percent / 100)
        case Transfer():
            named = [node for node in (command.node, command.target) if node is not None]
            if len(named) != 1:
                raise ArgumentsError("name one node to hand over to")
            cluster.transfer(named[0])
        case Backup():
            members = await cluster.backup(command.without)
            return {**members, "path": _absolute(str(members["path"]))}
        case _:
            raise AssertionError(command)
    return {}


async def _operate_node(command: NodeCommand, node: int, cluster: Cluster) -> dict[str, object]:
    """Do what is for one node. Raises as `_operate`."""
    match command:
        case Crash():
            cluster.faults.crash(node)
        case Stop():
            cluster.stop(node)
        case Restart():
            cluster.restart(node)
        case Pause():
            cluster.faults.pause(node)
        case Resume():
            cluster.faults.resume(node)
        case SlowDisk(ms=ms):
            cluster.faults.slow_disk(node, ms / 1000)
        case FailDisk():
            cluster.faults.fail_disk(node)
        case Snapshot():
            cluster.snapshot(node)
        case Rebuild():
            return await cluster.rebuild(node)
        case _:
            raise AssertionError(command)
    return {}


def _absolute(path: str) -> str:
    """Return a path for others: they work in another directory than this process does. Asks no disk."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps what stands before a ".."


def describe(command: Command) -> str:
    """Return a command's arguments as a person would write them."""
    members = msgspec.structs.asdict(command)
    members.pop("id")
    return " ".join(f"{name}={value}" for name, value in members.items() if value is not None)
