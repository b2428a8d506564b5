"""What `bench` may be asked for."""

from typing import Annotated

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from trio_kv.cli.bench.workload import Distribution, Workload
from trio_kv.cli.errors import UsageError
from trio_kv.cli.output import Output
from trio_kv.cli.parsing import (
    SECONDS_MAX,
    Host,
    NaturalNumber,
    Node,
    OutputOption,
    Seconds,
    ServerPort,
    flag,
    option,
)
from trio_kv.cli.way import WayOptions
from trio_kv.client.addresses import DEFAULT_PORT

CONNECTIONS_MAX = 65_536
"""More than a machine has ports for."""
PIPELINE_MAX = 4096
KEYS_MAX = 10_000_000
VALUE_BYTES_MAX = 64 << 20
RATE_MAX = 10_000_000


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class BenchOptions(WayOptions):
    """Which load, and on what."""

    host: Annotated[Host | None, option("Address of the server. [default: 127.0.0.1]", "HOST")] = None
    port: Annotated[ServerPort | None, option(f"Its port for clients. [default: {DEFAULT_PORT}]", "PORT")] = (
        None
    )
    nodes: Annotated[
        Node | None,
        option("Start a server of so many nodes for it, in a temporary directory (TMPDIR names its disk)."),
    ] = None
    connections: Annotated[
        int, option("Connections at a time.", validator=Number(gt=0, lte=CONNECTIONS_MAX))
    ] = 64
    pipeline: Annotated[
        int,
        option("Requests that are sent together on a connection.", validator=Number(gt=0, lte=PIPELINE_MAX)),
    ] = 1
    rate: Annotated[
        float,
        option(
            "Requests a second, due whether the server answers or not; 0: each connection sends when it is answered.",
            validator=Number(gte=0, lte=RATE_MAX),
        ),
    ] = 0.0
    mix: Annotated[
        float, option("Share of SETs, in per cent; the others are GETs.", validator=Number(gte=0, lte=100))
    ] = 50.0
    is_stale: Annotated[bool, flag("GETs are content with what one follower knows.", "", "--stale")] = False
    keys: Annotated[int, option("How many keys.", validator=Number(gt=0, lte=KEYS_MAX))] = 10_000
    distribution: Annotated[
        Distribution, option("All keys alike, or a few of them often: zipf, with the exponent 0.99.")
    ] = "uniform"
    value_bytes: Annotated[int, option("Size of a value.", validator=Number(gt=0, lte=VALUE_BYTES_MAX))] = 100
    has_fill: Annotated[
        bool, flag("Write each key once before. With --nodes that is done anyway.", "", "--fill")
    ] = False
    warm_up_s: Annotated[
        float,
        option(
            "Seconds of load before anything counts.",
            *("", "--warm-up"),
            validator=Number(gte=0, lte=SECONDS_MAX),
        ),
    ] = 1.0
    duration_s: Annotated[Seconds, option("Seconds of load that count.", "", "--duration")] = 5.0
    seed: Annotated[NaturalNumber, option("Draws the requests.")] = 1
    has_histogram: Annotated[bool, flag("Also show how the latencies are spread.", "", "--histogram")] = False
    output: OutputOption = "text"
    is_json: Annotated[bool, flag("The same as --output json: one object.", "", "--json")] = False

    @property
    def form(self) -> Output:
        """How to print what it came to."""
        return "json" if self.is_json else self.output

    @property
    def is_filled(self) -> bool:
        """Whether each key is written before."""
        return self.has_fill or self.nodes is not None

    def check(self) -> None:
        """Refuse what can't work together.

        Raises:
            UsageError: says what, and what would do.

        """
        if self.nodes is not None and (self.host is not None or self.port is not None):
            raise UsageError("--nodes starts a server, --host and --port name one that runs: use one of them")
        if self.nodes is not None and self.ca is not None:
            raise UsageError(
                "--nodes starts a server without TLS: leave --ca out, or name a server with --port"
            )

    def workload(self) -> Workload:
        """Return what is asked of the server."""
        return Workload(
            mix=self.mix,
            is_stale=self.is_stale,
            pipeline=self.pipeline,
            keys=self.keys,
            distribution=self.distribution,
            value_bytes=self.value_bytes,
            seed=self.seed,
        )
