"""The commands of the control door: what may be asked for, and how it is carried out.

Each command is a class with its arguments; the JSON names are the attributes. Decoding is strict (a number
in quotes is no number), and an error tells what would be right, because a person has typed it.
"""

import inspect
import os
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from trio_kv.control.port import Cluster

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

    usage: ClassVar[str]
    """How it looks, for people."""
    is_slow: ClassVar[bool] = False
    """Whether it works through much data, and may take its time."""

    id: msgspec.Raw = msgspec.Raw()

    @property
    def name(self) -> str:
        """What it is called in JSON."""
        return str(self.__struct_config__.tag)

    def carry_out(self, cluster: Cluster) -> object:
        """Do it; return what the method of `cluster` returned.

        Raises:
            ArgumentsError: its arguments don't fit together.
            ValueError: it makes no sense now.

        """
        raise NotImplementedError


class Status(Command, frozen=True, tag="status"):
    """Tell what the cluster looks like."""

    usage = '{"command": "status"}'

    def carry_out(self, cluster: Cluster) -> object:
        """See the class."""
        return cluster.status()


class Events(Command, frozen=True, tag="events"):
    """Send all further events to this connection."""

    usage = '{"command": "events"}'

    def carry_out(self, cluster: Cluster) -> object:
        """See the class; nothing is done to the cluster."""
        del cluster
        return None


class NodeCommand(Command, frozen=True):
    """A command for one node. If it is for the leader, the reply tells which `node` that was."""

    node: NodeOrLeader

    def carry_out(self, cluster: Cluster) -> object:
        """See the class."""
        if self.node != "leader":
            return self.do(self.node, cluster)
        node = cluster.leader()
        return _with_node(self.do(node, cluster), node)

    def do(self, node: int, cluster: Cluster) -> object:
        """Do it to this node; return what the method of `cluster` returned."""
        raise NotImplementedError


async def _with_node(done: object, node: int) -> dict[str, object]:
    members = await done if inspect.isawaitable(done) else done
    return {"node": node, **(members if isinstance(members, dict) else {})}


class Crash(NodeCommand, frozen=True, tag="crash"):
    """Let a node die; it comes back by itself."""

    usage = '{"command": "crash", "node": 2}'

    def do(self, node: int, cluster: Cluster) -> object:
        """See the class."""
        return cluster.faults.crash(node)


class Stop(NodeCommand, frozen=True, tag="stop"):
    """Stop a node; it stays down."""

    usage = '{"command": "stop", "node": 2}'

    def do(self, node: int, cluster: Cluster) -> object:
        """See the class."""
        return cluster.stop(node)


class Restart(NodeCommand, frozen=True, tag="restart"):
    """Start a node that is down, or let one that runs die and start again, at once."""

    usage = '{"command": "restart", "node": 2}'

    def do(self, node: int, cluster: Cluster) -> object:
        """See the class."""
        return cluster.restart(node)


class Pause(NodeCommand, frozen=True, tag="pause"):
    """Let a node do nothing."""

    usage = '{"command": "pause", "node": 2}'

    def do(self, node: int, cluster: Cluster) -> object:
        """See the class."""
        return cluster.faults.pause(node)


class Resume(NodeCommand, frozen=True, tag="resume"):
    """Let a paused node go on."""

    usage = '{"command": "resume", "node": 2}'

    def do(self, node: int, cluster: Cluster) -> object:
        """See the class."""
        return cluster.faults.resume(node)


class Partition(Command, frozen=True, tag="partition"):
    """Cut all links between nodes of different groups."""

    usage = '{"command": "partition", "groups": [[1, 2], [3, 4, 5]]}'
    groups: Annotated[list[Annotated[list[Node], Meta(min_length=1)]], Meta(min_length=2)]

    def carry_out(self, cluster: Cluster) -> object:
        """See the class."""
        nodes = [node for group in self.groups for node in group]
        if len(set(nodes)) != len(nodes):
            raise ArgumentsError("a node stands in two groups, or twice in one")
        return cluster.faults.partition(self.groups)


class Cut(Command, frozen=True, tag="cut"):
    """Cut one link."""

    usage = '{"command": "cut", "link": [1, 2]}'
    link: tuple[Node, Node]

    def carry_out(self, cluster: Cluster) -> object:
        """See the class."""
        first, second = self.link
        if first == second:
            raise ArgumentsError("a link has two different ends")
        return cluster.faults.cut(first, second)


class Heal(Command, frozen=True, tag="heal"):
    """End all faults of links."""

    usage = '{"command": "heal"}'

    def carry_out(self, cluster: Cluster) -> object:
        """See the class."""
        return cluster.faults.heal()


class Delay(Command, frozen=True, tag="delay"):
    """Delay every message."""

    usage = '{"command": "delay", "ms": 50}'
    ms: Milliseconds

    def carry_out(self, cluster: Cluster) -> object:
        """See the class."""
        return cluster.faults.delay(self.ms / 1000)


class Drop(Command, frozen=True, tag="drop"):
    """Lose a share of all messages."""

    usage = '{"command": "drop", "percent": 10}'
    percent: Percent

    def carry_out(self, cluster: Cluster) -> object:
        """See the class."""
        return cluster.faults.drop(self.percent / 100)


class SlowDisk(NodeCommand, frozen=True, tag="slow-disk"):
    """Let every sync of a node's disk take longer."""

    usage = '{"command": "slow-disk", "node": 2, "ms": 50}'
    ms: Milliseconds

    def do(self, node: int, cluster: Cluster) -> object:
        """See the class."""
        return cluster.faults.slow_disk(node, self.ms / 1000)


class FailDisk(NodeCommand, frozen=True, tag="fail-disk"):
    """Let a node's next write fail."""

    usage = '{"command": "fail-disk", "node": 2}'

    def do(self, node: int, cluster: Cluster) -> object:
        """See the class."""
        return cluster.faults.fail_disk(node)


class Transfer(Command, frozen=True, tag="transfer"):
    """Hand leadership to a node, which is named `node` or `target`."""

    usage = '{"command": "transfer", "node": 2}'
    node: Node | None = None
    target: Node | None = None

    def carry_out(self, cluster: Cluster) -> object:
        """See the class."""
        named = [node for node in (self.node, self.target) if node is not None]
        if len(named) != 1:
            raise ArgumentsError("name one node to hand over to")
        return cluster.transfer(named[0])


class Snapshot(NodeCommand, frozen=True, tag="snapshot"):
    """Let a node take a snapshot, and drop the log behind it."""

    usage = '{"command": "snapshot", "node": 2}'

    def do(self, node: int, cluster: Cluster) -> object:
        """See the class."""
        return cluster.snapshot(node)


class Rebuild(NodeCommand, frozen=True, tag="rebuild"):
    """Rebuild a node that is down from the others."""

    usage = '{"command": "rebuild", "node": 2}'
    is_slow = True

    def do(self, node: int, cluster: Cluster) -> object:
        """See the class."""
        return cluster.rebuild(node)


class Backup(Command, frozen=True, tag="backup"):
    """Take a snapshot that holds all that was acknowledged, for somebody to copy."""

    usage = '{"command": "backup"}'
    is_slow = True
    without: frozenset[Node] = frozenset()
    """Nodes whose snapshots were found to be of no use."""

    async def carry_out(self, cluster: Cluster) -> dict[str, object]:
        """See the class."""
        members = await cluster.backup(self.without)
        return {**members, "path": _absolute(str(members["path"]))}


def _absolute(path: str) -> str:
    """Return a path for others: they work in another directory than this process does. Asks no disk."""
    return os.path.abspath(path)  # noqa: PTH100 - Path.absolute keeps what stands before a ".."


COMMANDS: tuple[type[Command], ...] = (
    Status, Events, Crash, Stop, Restart, Pause, Resume, Partition, Cut, Heal, Delay, Drop, SlowDisk,
    FailDisk, Transfer, Snapshot, Rebuild, Backup,
)  # fmt: skip
BY_NAME: dict[str, type[Command]] = {str(command.__struct_config__.tag): command for command in COMMANDS}


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
        raise CommandError(f"{error}; right would be {BY_NAME[named.command].usage}", named.id) from None


async def carry_out(command: Command, cluster: Cluster) -> dict[str, Any]:
    """Carry a command out; return the members of its reply, but for `id` and `status`.

    Raises:
        CommandError: it makes no sense now, or its arguments don't fit together.

    """
    try:
        result = command.carry_out(cluster)
        if inspect.isawaitable(result):
            result = await result
    except ArgumentsError as error:
        raise CommandError(f"{error}; a right one would be {command.usage}", command.id) from error
    except ValueError as error:
        raise CommandError(str(error), command.id) from error
    return result if isinstance(result, dict) else {}


def describe(command: Command) -> str:
    """Return a command's arguments as a person would write them."""
    members = msgspec.structs.asdict(command)
    members.pop("id")
    return " ".join(f"{name}={value}" for name, value in members.items() if value is not None)
