"""Which server a command asks, and how it tells the answer."""

from collections.abc import Callable
from typing import Annotated

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from trio_kv.cli.errors import UsageError
from trio_kv.cli.parsing import Host, ReplyOutput, ServerPort, flag, option, read_host, read_whole
from trio_kv.cli.way import WayOptions
from trio_kv.client.addresses import DEFAULT_PORT, PORT_MAX
from trio_kv.client.client import Client
from trio_kv.wire.operations import TIMEOUT_S_DEFAULT, TIMEOUT_S_MAX


def _check_timeout(_type: object, timeout_s: float) -> None:
    if timeout_s > TIMEOUT_S_MAX:
        raise ValueError(f"over the protocol's limit of {TIMEOUT_S_MAX:g}")


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Target(WayOptions):
    """Which server to ask, and how long to wait."""

    host: Annotated[Host, option("Address of the server.", "HOST")] = "127.0.0.1"
    port: Annotated[ServerPort, option("Its port for clients.", "PORT")] = DEFAULT_PORT
    timeout_s: Annotated[
        float,
        option(
            "Seconds to wait, at most 60.",
            *("TIMEOUT", "--timeout"),
            validator=[Number(gt=0), _check_timeout],
        ),
    ] = TIMEOUT_S_DEFAULT

    def at(self, host: str, port: str) -> "Target":
        """Return the way to another server, by the same means; a token goes to another host by TLS alone.

        Args:
            host: of the server.
            port: of the server; empty for the same one.

        Raises:
            UsageError: there can be no such server.

        """
        try:
            number = read_whole(port) if port else self.port
            other = attrs.evolve(self, host=read_host(host), port=number)
        except ValueError as error:
            raise UsageError(str(error)) from error
        if not 1 <= number <= PORT_MAX:
            raise UsageError(f"port is {number}: a port is 1 to {PORT_MAX}")
        is_open = other.host != self.host and self.ca is None
        return _Stranger(**attrs.asdict(other, recurse=False)) if is_open else other

    def connect(
        self, on_reconnected: Callable[[str], None] | None = None, *, repeats_writes: bool = False
    ) -> Client:
        """Return a client; it connects when it is first used.

        Args:
            on_reconnected: told, in words for a person, when a lost connection is back.
            repeats_writes: whether a write that has no answer is sent again, so that it takes effect once.

        """
        return Client(
            self.host,
            self.port,
            timeout_s=self.timeout_s,
            on_reconnected=on_reconnected,
            repeats_writes=repeats_writes,
            token=self.token(),
            tls=self.tls(),
        )


@attrs.frozen(kw_only=True)
class _Stranger(Target):
    """A server that is shown no token: others could read it on the way, and it may be meant for nobody there."""

    def token(self) -> str | None:
        """Return none."""
        return None


Quiet = Annotated[
    bool,
    flag(
        "Print data alone: no ok, and no word on what is missing or did not hold; the exit code tells.",
        *("QUIET", "--quiet", "-q"),
    ),
]


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Asking(Target):
    """The same, and how to tell the answer."""

    output: ReplyOutput = "text"
    is_quiet: Quiet = False
