"""The commands of the control door: what may be asked for. How it is carried out stands in `operation`.

Each command is a class with its arguments; the JSON names are the attributes. Decoding is strict (a number
in quotes is no number), and an error tells what would be right, because a person has typed it.

What will happen is said once, in the class docstring: the command line and the page take it from there.
"""

import functools
import inspect
from typing import Annotated, Any, ClassVar, Literal

import attrs
import msgspec
from msgspec import Meta

MS_MAX = 60_000
PAGE_FRAMES_MAX = 200
"""Frames that are sent at once."""
NODE_MAX = 9

Node = Annotated[int, Meta(ge=1, le=NODE_MAX)]
NodeOrLeader = Node | Literal["leader"]
"""A node by its number, or whichever leads at the moment."""
Milliseconds = Annotated[float, Meta(ge=0, le=MS_MAX)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Link = tuple[Node, Node]


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


@attrs.frozen
class Undo:
    """What takes a command back."""

    command: str
    copied: tuple[str, ...] = ()
    """Members that it has in common with what it takes back."""
    members: tuple[tuple[str, object], ...] = ()
    """Its other members."""

    def told(self) -> dict[str, object]:
        """Return it as JSON tells it."""
        return {"command": self.command, "with": list(self.copied), "members": dict(self.members)}


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="command"):
    """A command. Its reply echoes `id`."""

    example: ClassVar[str] = ""
    """Arguments that it takes, for people."""
    is_slow: ClassVar[bool] = False
    """Whether it works through much data, and may take its time."""
    undo: ClassVar[Undo | None] = None
    """What takes it back; None: nothing has to, or nothing can."""

    id: msgspec.Raw = msgspec.Raw()

    @classmethod
    def name(cls) -> str:
        """Return what it is called in JSON."""
        return str(cls.__struct_config__.tag)

    @classmethod
    def usage(cls) -> str:
        """Return how it looks, for people."""
        return f'{{"command": "{cls.name()}"{cls.example}}}'

    @classmethod
    def what(cls) -> str:
        """Return what will happen, in words: a sentence, and a paragraph where that is not enough."""
        return "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(cls) or "").split("\n\n"))

    @classmethod
    def described(cls) -> dict[str, object]:
        """Return all that a page needs to offer it."""
        members = [name for name in cls.__struct_encode_fields__ if name != "id"]
        undo = None if cls.undo is None else cls.undo.told()
        return {"command": cls.name(), "what": " ".join(cls.what().split()), "members": members, "undo": undo}


class Status(Command, frozen=True, tag="status"):
    """Tell what the cluster looks like."""


class Links(Command, frozen=True, tag="links"):
    """Tell how the links between processes are: where nodes run in several, or on several hosts."""


class Events(Command, frozen=True, tag="events"):
    """Send all further events to this connection."""


class Frames(Command, frozen=True, tag="frames"):
    """Send the newest frame to this connection, and further ones as fast as it takes them.

    A frame is all that is to be seen of the cluster at one moment.
    """


class FramesKept(Command, frozen=True, tag="frames-kept"):
    """Tell which frames of the last ten minutes there are."""


class FramesMarks(Command, frozen=True, tag="frames-marks"):
    """Tell at which of these frames term or leader became others, or something was told."""


class FramesPage(Command, frozen=True, tag="frames-page"):
    """Send frames of the last ten minutes: those from a number on, as many as there is room for."""

    example = ', "from": 1200, "count": 100'
    first: Annotated[int, Meta(ge=0)] = msgspec.field(name="from")
    count: Annotated[int, Meta(ge=1, le=PAGE_FRAMES_MAX)] = PAGE_FRAMES_MAX


class StoreRequest(Command, frozen=True, tag="request"):
    """Carry out one request of a client, and tell the way that it went."""

    example = ', "request": {"key": "snack"}'
    is_slow = True
    request: msgspec.Raw


class Describe(Command, frozen=True, tag="describe"):
    """Tell what each command does, and what takes it back."""


class NodeCommand(Command, frozen=True):
    """A command for one node. If it is for the leader, the reply tells which `node` that was."""

    example = ', "node": 2'
    node: NodeOrLeader


class Crash(NodeCommand, frozen=True, tag="crash"):
    """Kill a node; it comes back by itself.

    It dies as if its power failed: what it had not written to its disk is gone. After a second, or longer if it has
    died before, it starts again from what its disk holds.
    """


class Stop(NodeCommand, frozen=True, tag="stop"):
    """Kill a node; it stays down until `restart`."""

    undo = Undo("restart", ("node",))


class Restart(NodeCommand, frozen=True, tag="restart"):
    """Start a node from what its disk holds, at once; one that runs is killed first."""


class Pause(NodeCommand, frozen=True, tag="pause"):
    """Let a node do nothing, as a process under SIGSTOP.

    The others find that it is silent; when it goes on it still believes what it believed before.
    """

    undo = Undo("resume", ("node",))


class Resume(NodeCommand, frozen=True, tag="resume"):
    """Let a paused node go on."""


class Partition(Command, frozen=True, tag="partition"):
    """Let messages pass only inside each group.

    A group with a majority of the nodes goes on, after an election if the leader is not in it. The others answer
    nobody until `heal`. A node in no group is alone.
    """

    example = ', "groups": [[1, 2], [3, 4, 5]]'
    undo = Undo("heal")
    groups: Annotated[list[Annotated[list[Node], Meta(min_length=1)]], Meta(min_length=2)]


class Cut(Command, frozen=True, tag="cut"):
    """Let no message pass between two nodes."""

    example = ', "link": [1, 2]'
    undo = Undo("heal", ("link",))
    link: Link


class Heal(Command, frozen=True, tag="heal"):
    """End every partition, cut, delay and drop, and make slow, stalled and full disks sound again.

    With a link, that one alone becomes sound, also out of a partition.
    """

    link: Link | None = None


class Delay(Command, frozen=True, tag="delay"):
    """Delay every message between nodes, or those of one link; 0 ends it."""

    example = ', "ms": 50'
    undo = Undo("delay", ("link",), (("ms", 0),))
    ms: Milliseconds
    link: Link | None = None


class Drop(Command, frozen=True, tag="drop"):
    """Lose messages between nodes by chance, or those of one link; 0 ends it."""

    example = ', "percent": 10'
    undo = Undo("drop", ("link",), (("percent", 0),))
    percent: Percent
    link: Link | None = None


class SlowDisk(NodeCommand, frozen=True, tag="slow-disk"):
    """Make every sync of a node's disk take longer; 0 ends it.

    Writes wait for the fastest majority of the disks: one slow disk of five is hardly felt.
    """

    example = ', "node": 2, "ms": 50'
    undo = Undo("heal-disk", ("node",))
    ms: Milliseconds


class StallDisk(NodeCommand, frozen=True, tag="stall-disk"):
    """Let a node's disk stand still: it gives neither an answer nor an error.

    The node acknowledges nothing meanwhile. A leader hands over after two seconds.
    """

    undo = Undo("heal-disk", ("node",))


class FillDisk(NodeCommand, frozen=True, tag="fill-disk"):
    """Let a node's disk be full: no new log segment and no snapshot can be made.

    What is reserved is used up first. The node still votes and answers reads; if a majority is full, writes are
    refused with `read_only`.
    """

    undo = Undo("heal-disk", ("node",))


class FailDisk(NodeCommand, frozen=True, tag="fail-disk"):
    """Let a node's next write to its disk fail: the node stops.

    A failed sync is never tried again: what of it reached the disk is not known. `restart` reads what is there.
    """

    undo = Undo("restart", ("node",))


class HealDisk(NodeCommand, frozen=True, tag="heal-disk"):
    """Make a slow, stalled or full disk sound again."""


class Transfer(Command, frozen=True, tag="transfer"):
    """Hand leadership over to a node.

    The leader takes no writes until the other has all of its log, and lets it stand for election at once.
    """

    example = ', "node": 2'
    node: Node | None = None
    target: Node | None = None
    """The same by another name."""


class Snapshot(NodeCommand, frozen=True, tag="snapshot"):
    """Let a node take a snapshot and drop the log behind it."""


class Rebuild(NodeCommand, frozen=True, tag="rebuild"):
    """Give a node that is down, because its files are lost or damaged, a new copy from the others.

    Its old directory is moved aside. It votes and counts again when it has all that was acknowledged.
    """

    is_slow = True


class Backup(Command, frozen=True, tag="backup"):
    """Take a snapshot that holds all that was acknowledged, for somebody to copy."""

    is_slow = True
    without: frozenset[Node] = frozenset()
    """Nodes whose snapshots were found to be of no use."""


COMMANDS: tuple[type[Command], ...] = (
    Status, Links, Events, Frames, FramesKept, FramesMarks, FramesPage, StoreRequest, Describe, Crash, Stop, Restart,
    Pause, Resume, Partition, Cut, Heal, Delay, Drop, SlowDisk, StallDisk, FillDisk, FailDisk, HealDisk, Transfer,
    Snapshot, Rebuild, Backup,
)  # fmt: skip
BY_NAME: dict[str, type[Command]] = {command.name(): command for command in COMMANDS}


class _Named(msgspec.Struct):
    """What every message must have, whatever else is wrong with it."""

    command: str = ""
    id: msgspec.Raw = msgspec.Raw()


_decode_named = msgspec.json.Decoder(_Named).decode


@functools.cache
def _decoder(kind: type[Command]) -> msgspec.json.Decoder[Any]:
    # Made when it is needed: the command line takes words from here, and decodes nothing.
    return msgspec.json.Decoder(kind)


def parse_command(message: str | bytes) -> Command:
    """Return the command in a message.

    Raises:
        CommandError: it is none; says what would be right.

    """
    try:
        named = _decode_named(message)
    except (ValueError, RecursionError) as error:
        raise CommandError(f'{error}; a command looks like {{"id": 1, "command": "status"}}') from None
    kind = BY_NAME.get(named.command)
    if kind is None:
        wrong = f"there is no command {named.command!r}" if named.command else "`command` is missing"
        raise CommandError(f"{wrong}; the commands are {', '.join(BY_NAME)}", named.id)
    try:
        command: Command = _decoder(kind).decode(message)
    except (ValueError, RecursionError) as error:
        raise CommandError(f"{error}; right would be {kind.usage()}", named.id) from None
    return command


def describe(command: Command) -> str:
    """Return a command's arguments as a person would write them."""
    members = msgspec.structs.asdict(command)
    members.pop("id")
    given = {name: sorted(each) if isinstance(each, frozenset) else each for name, each in members.items()}
    return " ".join(f"{name}={value}" for name, value in given.items() if value not in (None, []))
