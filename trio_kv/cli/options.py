"""What `serve` can be told, each option once: its flag, its variable, its default, its limits, its help."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

import attrs
from cyclopts import Parameter
from cyclopts.types import NonNegativeFloat, Port, PositiveFloat, PositiveInt
from cyclopts.validators import Number

from trio_kv.raft.config import RaftConfig
from trio_kv.wire.frames import SECTOR_BYTES

LogLevel = Literal["debug", "info", "warning", "error"]


class UsageError(ValueError):
    """The command line asks for something that can't be; the message is for a person."""


def _whole_sectors(type_: object, size_bytes: int) -> None:
    """Refuse a segment that ends inside a sector (a validator of cyclopts)."""
    del type_
    if size_bytes % SECTOR_BYTES:
        below = size_bytes - size_bytes % SECTOR_BYTES
        raise ValueError(
            f"must be a multiple of {SECTOR_BYTES}, as {below} and {below + SECTOR_BYTES} are; not {size_bytes}"
        )


@attrs.frozen(kw_only=True)
class ServeOptions:
    """How to run the store."""

    host: Annotated[
        str,
        Parameter(env_var="TRIO_KV_HOST", help="Address to listen on; any but loopback needs --insecure."),
    ] = "127.0.0.1"
    port: Annotated[Port, Parameter(env_var="TRIO_KV_PORT", help="Port for clients; 0 picks a free one.")] = (
        3001
    )
    control_port: Annotated[
        Port,
        Parameter(env_var="TRIO_KV_CONTROL_PORT", help="Port of the control door; 0 picks a free one."),
    ] = 3002
    nodes: Annotated[
        int | None,
        Parameter(
            env_var="TRIO_KV_NODES",
            validator=Number(gte=1, lte=9),
            help="Nodes of the cluster, 1 to 9, fixed when the data directory is first used. [default: 5]",
        ),
    ] = None
    data_dir: Annotated[
        Path, Parameter(env_var="TRIO_KV_DATA_DIR", help="Where the nodes keep their logs.")
    ] = Path("trio_kv-data")
    is_ephemeral: Annotated[
        bool,
        Parameter(
            name="--ephemeral",
            negative=(),
            show_default=False,
            env_var="TRIO_KV_EPHEMERAL",
            help="Keep nothing: the data goes with the process.",
        ),
    ] = False
    has_no_fsync: Annotated[
        bool,
        Parameter(
            name="--no-fsync",
            negative=(),
            show_default=False,
            env_var="TRIO_KV_NO_FSYNC",
            help="Don't wait for the disk: faster, and a power failure may lose acknowledged writes.",
        ),
    ] = False
    idle_timeout_s: Annotated[
        NonNegativeFloat,
        Parameter(
            name="--idle-timeout",
            env_var="TRIO_KV_IDLE_TIMEOUT",
            help="Seconds of silence after which a connection is closed; 0 never.",
        ),
    ] = 10.0
    session_timeout_s: Annotated[
        PositiveFloat,
        Parameter(
            name="--session-timeout",
            env_var="TRIO_KV_SESSION_TIMEOUT",
            help="Seconds after which an unused session is forgotten.",
        ),
    ] = 1000.0
    segment_bytes: Annotated[
        int,
        Parameter(
            env_var="TRIO_KV_SEGMENT_BYTES",
            validator=(Number(gte=1 << 16, lte=1 << 30), _whole_sectors),
            help="Size of a new log segment: a multiple of 512.",
        ),
    ] = 8 << 20
    line_bytes_max: Annotated[
        int,
        Parameter(
            env_var="TRIO_KV_LINE_BYTES_MAX",
            validator=Number(gte=1 << 10, lte=1 << 30),
            help="Longest line a client may send.",
        ),
    ] = 1 << 20
    pending_bytes_max: Annotated[
        int,
        Parameter(
            env_var="TRIO_KV_PENDING_BYTES_MAX",
            validator=Number(gte=1 << 10),
            help="Most bytes of unfinished lines, over all connections.",
        ),
    ] = 64 << 20
    election_timeout_ms: Annotated[
        PositiveInt,
        Parameter(
            env_var="TRIO_KV_ELECTION_TIMEOUT_MS",
            help="A node that hears no leader for this long, or up to twice as long, stands for election.",
        ),
    ] = 200
    heartbeat_ms: Annotated[
        PositiveInt, Parameter(env_var="TRIO_KV_HEARTBEAT_MS", help="How often a leader tells that it leads.")
    ] = 60
    log_level: Annotated[
        LogLevel, Parameter(env_var="TRIO_KV_LOG_LEVEL", help="The least important events to show.")
    ] = "info"
    is_log_json: Annotated[
        bool,
        Parameter(
            name="--log-json",
            negative=(),
            show_default=False,
            env_var="TRIO_KV_LOG_JSON",
            help="Log JSON lines; `server.started` says that the store is ready.",
        ),
    ] = False
    trace: Annotated[
        Path | None,
        Parameter(env_var="TRIO_KV_TRACE", help="File for every event of all levels, as JSON lines."),
    ] = None
    is_insecure: Annotated[
        bool,
        Parameter(
            name="--insecure",
            negative=(),
            show_default=False,
            env_var="TRIO_KV_INSECURE",
            help="Allow a --host that others can reach, though nothing is encrypted or asked for a token.",
        ),
    ] = False

    def raft_config(self) -> RaftConfig:
        """Return the times as the core wants them.

        Raises:
            UsageError: they don't fit together.

        """
        if self.heartbeat_ms * 2 > self.election_timeout_ms:
            raise UsageError(
                f"--heartbeat-ms {self.heartbeat_ms} must be at most half of"
                f" --election-timeout-ms {self.election_timeout_ms}"
            )
        minimum_s = self.election_timeout_ms / 1000
        return RaftConfig(
            election_timeout_min_s=minimum_s,
            election_timeout_max_s=2 * minimum_s,
            heartbeat_interval_s=self.heartbeat_ms / 1000,
        )

    def check(self) -> None:
        """Refuse what is unsafe or can't work together.

        Raises:
            UsageError: says what, and what would do.

        """
        self.raft_config()
        if not self.is_insecure and not is_loopback(self.host):
            raise UsageError(
                f"--host {self.host} can be reached by others, and nothing is encrypted or asked for a token:"
                " listen on 127.0.0.1, or add --insecure"
            )
        if self.port == self.control_port and self.port != 0:
            raise UsageError(f"--port and --control-port are both {self.port}")


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches `host`; a name other than localhost is not trusted."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
