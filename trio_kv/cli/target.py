"""Which server a command asks, and how it tells the answer."""

from collections.abc import Callable
from typing import Annotated

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from trio_kv.cli.parsing import Host, ReplyOutput, ServerPort, flag, option
from trio_kv.cli.way import WayOptions
from trio_kv.client.addresses import DEFAULT_PORT
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
