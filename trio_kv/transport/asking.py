"""Asking the other processes which incarnations of nodes they know, for a process whose nodes have lost their disks.

The asker is no peer: it says hello, gets one answer from each, and is listened to no longer (decision 0051).
"""

import attrs
import trio

from trio_kv.transport.connection import ByteCounts, Connection, LinkLostError, Outbox
from trio_kv.transport.hello import why_not_welcome
from trio_kv.transport.link import why_unreachable
from trio_kv.transport.peers import Identity
from trio_kv.transport.secure import Security
from trio_kv.wire import links
from trio_kv.wire.links import HELLO_BYTES_MAX, LinkFormatError, Refusal
from trio_kv.wire.peers import PeerError


@attrs.frozen
class Asked:
    """What the others said."""

    known: dict[int, dict[int, int]] = attrs.field(factory=dict)
    """By process: the highest incarnation of each of the asker's nodes that was ever heard of there; 0 if none was."""
    reasons: dict[int, str] = attrs.field(factory=dict)
    """By process: why it did not say it."""


async def ask_all(identity: Identity, security: Security, *, timeout_s: float) -> Asked:
    """Ask all other processes, all at a time.

    Args:
        identity: who asks; its nodes must not run.
        security: opens the connections.
        timeout_s: whoever has not answered by then has not.

    """
    asked = Asked()

    async def ask(process: int) -> None:
        try:
            with trio.fail_after(timeout_s):
                asked.known[process] = await _ask(identity, security, process)
        except trio.TooSlowError:
            asked.reasons[process] = f"it did not answer within {timeout_s:g} s"
        except (OSError, LinkLostError) as error:
            asked.reasons[process] = why_unreachable(error)
        except (PeerError, LinkFormatError) as error:
            asked.reasons[process] = f"it answered what no process of a cluster says: {error}"

    async with trio.open_nursery() as nursery:
        for process in identity.layout.others:
            nursery.start_soon(ask, process)
    return asked


async def _ask(identity: Identity, security: Security, process: int) -> dict[int, int]:
    """Ask one process. Raises OSError, LinkLostError, PeerError or LinkFormatError."""
    stream = await security.dial(identity.layout.addresses[process], process)
    try:
        connection = Connection(stream, Outbox(items_max=1, bytes_max=1), ByteCounts())
        connection.limit_frames(HELLO_BYTES_MAX)
        hello = identity.hello({}, process, is_asking=True)
        await connection.send([links.HELLO + links.encode(hello)])
        answer = links.decode_reply((await connection.receive())[0])
    finally:
        await trio.aclose_forcefully(stream)
    if isinstance(answer, Refusal):
        raise LinkLostError(answer.reason)
    why = why_not_welcome(answer, process, identity, lambda node: 0)  # noqa: ARG005
    if why is not None:
        raise LinkLostError(why)
    if answer.known.keys() != {*identity.layout.here}:
        raise LinkFormatError(f"what it knows of nodes {sorted(answer.known)}")
    return answer.known
