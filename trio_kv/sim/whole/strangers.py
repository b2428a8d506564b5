"""Who calls the processes of a cluster and has no business there: strangers, and former selves of nodes.

Whatever they say, nobody lets them in, each is sent away in time, and the cluster goes on.
"""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

import attrs
import trio

from trio_kv.check.violation import Violation
from trio_kv.raft.messages import Message
from trio_kv.sim.whole.wires import Wires
from trio_kv.transport.door import GREETING_S
from trio_kv.wire import links
from trio_kv.wire.links import VERSIONS, Hello
from trio_kv.wire.peer_frames import FrameReader, encode_frame, encode_header
from trio_kv.wire.peers import encode_message

STRANGER: Final = 99
"""As whom the wires know all of them."""
PATIENCE_S: Final = GREETING_S + 2.0
"""After so long a stranger must have been sent away."""
REPLY_BYTES_MAX: Final = 4096

STRANGERS: Final = (
    "garbage",
    "a frame without end",
    "half a frame",
    "nothing",
    "no hello",
    "a malformed hello",
    "a long hello",
    "two hellos",
    "another cluster",
    "another secret",
    "another target",
    "an unknown process",
    "other nodes",
    "more nodes",
    "a node that was made twice",
    "a newer version",
)


@attrs.frozen
class Former:
    """A process of which a node has lost its disk meanwhile."""

    process: int
    incarnations: Mapping[int, int]
    said: Sequence[Message]
    """Some of what its nodes had said."""


def words_of(kind: str, right: Hello, random: Random) -> bytes:
    """Return what a stranger says.

    Args:
        kind: one of `STRANGERS`.
        right: what a process says that belongs to the cluster.
        random: draws what else there is.

    """
    whole = _frame_of(right)
    plain = {
        "garbage": random.randbytes(random.randint(1, 200)),
        "a frame without end": encode_header(random.choice((0xFFFFFFFF, 1 << 30)), 0) + bytes(1000),
        "half a frame": whole[: random.randrange(len(whole))],
        "nothing": b"",
        "no hello": encode_frame([links.PING + bytes(8)]),
        "a malformed hello": encode_frame([links.HELLO + random.randbytes(20)]),
        "a long hello": encode_frame([links.HELLO + bytes(links.HELLO_BYTES_MAX)]),
        "two hellos": encode_frame([links.HELLO + links.encode(right)] * 2),
    }
    return plain[kind] if kind in plain else _frame_of(_wrong_hello(kind, right))


def _wrong_hello(kind: str, right: Hello) -> Hello:
    members: dict[str, Any] = {name: getattr(right, name) for name in right.__struct_fields__}
    newer = VERSIONS[1] + 1
    node, incarnation = next(iter(right.incarnations.items()))
    changed: dict[str, dict[str, Any]] = {
        "another cluster": {"cluster": right.cluster[::-1] + "0"},
        "another secret": {"secret": right.secret + "!"},
        "another target": {"target": right.target + 1},
        "an unknown process": {"process": STRANGER},
        "other nodes": {"incarnations": {node + 100: incarnation}},
        "more nodes": {"nodes": right.nodes + 1},
        "a node that was made twice": {"incarnations": {**right.incarnations, node: incarnation - 1}},
        "a newer version": {"versions": (newer, newer + 1)},
    }
    return Hello(**{**members, **changed[kind]})


def _frame_of(hello: Hello) -> bytes:
    return encode_frame([links.HELLO + links.encode(hello)])


def words_of_former(hello: Hello, said: Sequence[Message]) -> bytes:
    """Return what a former self says: its hello, and behind it what it had said before."""
    items = [links.MESSAGE + encode_message(message) for message in said]
    return _frame_of(hello) + (encode_frame(items) if items else b"")


async def call(wires: Wires, target: int, words: bytes) -> bool:
    """Call a process, and wait until it ends the call; return whether it said so in time.

    Raises:
        Violation: it lets the caller in.

    """
    try:
        stream = await wires.dial(STRANGER, target)
    except OSError:
        return True
    try:
        with trio.move_on_after(PATIENCE_S) as patience:
            await stream.send_all(words)
            frames = FrameReader(REPLY_BYTES_MAX)
            while data := await stream.receive_some():
                frames.feed(bytes(data))
                for item in frames.next() or ():
                    if item[:1] != links.REFUSED:
                        raise Violation(f"process {target} answers {item!r} to {words!r}")
    except trio.BrokenResourceError:
        return True
    finally:
        with trio.CancelScope(shield=True):
            await stream.aclose()
    return not patience.cancelled_caught
