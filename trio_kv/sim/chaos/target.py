"""What chaos is let loose on: a server that somebody runs, or one of our own, be it several processes or hosts.

Of a running server only its doors are used. Processes of our own can also be killed, frozen and started again on the
same data: see `own_server` and `own_hosts`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import attrs
import trio

from trio_kv.client.addresses import Address
from trio_kv.client.control import Door, NoDoorError, command

DOOR_TIMEOUT_S = 5.0
SLOW_DOOR_TIMEOUT_S = 60.0


class RefusedError(Exception):
    """The server says that a fault makes no sense now: there is no leader, the node is down already."""


class StartError(Exception):
    """There is no server to break; the message says why, to a person."""


class Target(Protocol):
    """A server."""

    @property
    def addresses(self) -> Sequence[Address]:
        """Host and port of each client door; a restart may change them."""
        ...

    @property
    def has_door(self) -> bool:
        """Whether there is a control door."""
        ...

    @property
    def own(self) -> "Own | None":
        """Its processes, if they are ours to kill."""
        ...

    async def ask_door(
        self, name: str, *, timeout_s: float = DOOR_TIMEOUT_S, **arguments: object
    ) -> dict[str, Any]:
        """Give a command to the control door and return the members of its reply.

        Raises:
            NoDoorError: nobody opens.
            RefusedError: it makes no sense now.

        """
        ...

    async def wait_up(self) -> None:
        """Wait until a process with doors is neither dead nor frozen by us."""
        ...


class Own(Protocol):
    """Processes of our own, all together."""

    @property
    def has_ones(self) -> bool:
        """Whether single ones can be hurt."""
        ...

    @property
    def ones(self) -> Sequence["One"]:
        """Those that can be hurt by themselves and run just now."""
        ...

    async def start(self) -> None:
        """Start what does not run, on the same data; return when it is ready.

        Raises:
            StartError: it does not get ready.

        """
        ...

    async def kill(self) -> None:
        """Kill with SIGKILL, and wait until all are gone."""
        ...

    def freeze(self) -> None:
        """Stop with SIGSTOP."""
        ...

    def thaw(self) -> None:
        """Let go on what was frozen by `freeze`; all else is left as it is."""
        ...

    async def revive(self) -> None:
        """Let all run, whatever was done to them.

        Raises:
            StartError: one does not get ready.

        """
        ...

    async def stop(self) -> Sequence[str]:
        """End all in order; return what went wrong with that."""
        ...


class One(Protocol):
    """A process that can be hurt by itself."""

    @property
    def name(self) -> str:
        """What it is called, for people."""
        ...

    @property
    def nodes(self) -> Sequence[int]:
        """Those that it runs."""
        ...

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        ...

    async def start(self) -> None:
        """Return when it runs again: it is started, unless somebody else does that.

        Raises:
            StartError: it does not get ready.

        """
        ...

    def freeze(self) -> None:
        """Stop it with SIGSTOP."""
        ...

    def thaw(self) -> None:
        """Let it go on if it is frozen."""
        ...


async def ask(door: Door, name: str, arguments: Mapping[str, object], timeout_s: float) -> dict[str, Any]:
    """See `Target.ask_door`."""
    send = partial(command, door, name, arguments, timeout_s=timeout_s)
    reply: dict[str, Any] = await trio.to_thread.run_sync(send, abandon_on_cancel=True)
    if reply.get("status") != "ok":
        raise RefusedError(str(reply.get("message")))
    return reply


@attrs.frozen
class RunningServer:
    """A server that somebody else runs, of this project or any other that speaks its protocol."""

    address: Address
    door: Door | None = None

    own = None

    @property
    def addresses(self) -> Sequence[Address]:
        """Where its door is."""
        return (self.address,)

    @property
    def has_door(self) -> bool:
        """Whether there is a control door."""
        return self.door is not None

    async def ask_door(
        self, name: str, *, timeout_s: float = DOOR_TIMEOUT_S, **arguments: object
    ) -> dict[str, Any]:
        """Give a command to the control door; see `Target`."""
        if self.door is None:
            raise NoDoorError("this server has no control door that we know of")
        return await ask(self.door, name, arguments, timeout_s)

    async def wait_up(self) -> None:
        """Return at once: whatever it is, we have not done it."""
        await trio.lowlevel.checkpoint()
