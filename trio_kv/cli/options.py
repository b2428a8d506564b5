"""What `serve` can be told, each option once: its flag, its variable, its default, its limits, its help."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from trio_kv.cli.errors import UsageError
from trio_kv.cli.parsing import DATA_DIR_DEFAULT, SECONDS_MAX, Host, ListenPort, Node, flag, option
from trio_kv.kv.sessions import TIMEOUT_MAX_S, TIMEOUT_MIN_S
from trio_kv.raft.config import RaftConfig
from trio_kv.wire.frames import SECTOR_BYTES
from trio_kv.wire.operations import LINE_BYTES_LIMIT

ROUND_MS_MAX = 3_600_000
"""An hour: the longest time between two heartbeats, or before an election."""
RoundMs = Annotated[int, Parameter(validator=Number(gte=1, lte=ROUND_MS_MAX))]
PENDING_BYTES_MAX = 1 << 40
LogLevel = Literal["debug", "info", "warning", "error"]


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

    host: Annotated[Host, option("Address to listen on; any but loopback needs --insecure.", "HOST")] = (
        "127.0.0.1"
    )
    port: Annotated[ListenPort, option("Port for clients; 0 picks a free one.", "PORT")] = 3001
    control_port: Annotated[
        ListenPort, option("Port of the control door; 0 picks a free one.", "CONTROL_PORT")
    ] = 3002
    nodes: Annotated[
        Node | None,
        option(
            "Nodes of the cluster, 1 to 9, fixed when the data directory is first used. [default: 5]", "NODES"
        ),
    ] = None
    data_dir: Annotated[Path, option("Where the nodes keep their logs.", "DATA_DIR")] = DATA_DIR_DEFAULT
    is_ephemeral: Annotated[
        bool, flag("Keep nothing: the data goes with the process.", "EPHEMERAL", "--ephemeral")
    ] = False
    has_no_fsync: Annotated[
        bool,
        flag(
            "Don't wait for the disk: faster, and a power failure may lose acknowledged writes.",
            *("NO_FSYNC", "--no-fsync"),
        ),
    ] = False
    idle_timeout_s: Annotated[
        float,
        option(
            "Seconds of silence after which a connection is closed; 0 never.",
            *("IDLE_TIMEOUT", "--idle-timeout"),
            validator=Number(gte=0, lte=SECONDS_MAX),
        ),
    ] = 10.0
    session_timeout_s: Annotated[
        float,
        option(
            "Seconds after which an unused session is forgotten, 0.1 to 31536000.",
            *("SESSION_TIMEOUT", "--session-timeout"),
            validator=Number(gte=TIMEOUT_MIN_S, lte=TIMEOUT_MAX_S),
        ),
    ] = 1000.0
    segment_bytes: Annotated[
        int,
        option(
            "Size of a new log segment: a multiple of 512.",
            "SEGMENT_BYTES",
            validator=(Number(gte=1 << 16, lte=1 << 30), _whole_sectors),
        ),
    ] = 8 << 20
    line_bytes_max: Annotated[
        int,
        option(
            "Longest line a client may send.",
            "LINE_BYTES_MAX",
            validator=Number(gte=1 << 10, lte=LINE_BYTES_LIMIT),
        ),
    ] = 1 << 20
    pending_bytes_max: Annotated[
        int,
        option(
            "Most bytes of unfinished lines, over all connections.",
            "PENDING_BYTES_MAX",
            validator=Number(gte=1 << 10, lte=PENDING_BYTES_MAX),
        ),
    ] = 64 << 20
    election_timeout_ms: Annotated[
        RoundMs,
        option(
            "A node that hears no leader for this long, or up to twice as long, stands for election.",
            "ELECTION_TIMEOUT_MS",
        ),
    ] = 200
    heartbeat_ms: Annotated[RoundMs, option("How often a leader tells that it leads.", "HEARTBEAT_MS")] = 60
    log_level: Annotated[
        LogLevel | None,
        option(
            "The least important events to show. [default: warning; with --verbose or --log-json info]",
            "LOG_LEVEL",
        ),
    ] = None
    is_verbose: Annotated[
        bool, flag("Show what the nodes do, and not only what is wrong.", "VERBOSE", "--verbose", "-v")
    ] = False
    is_log_json: Annotated[
        bool,
        flag("Log JSON lines; `server.started` says that the store is ready.", "LOG_JSON", "--log-json"),
    ] = False
    trace: Annotated[Path | None, option("File for every event of all levels, as JSON lines.", "TRACE")] = (
        None
    )
    is_insecure: Annotated[
        bool,
        flag(
            "Allow a --host that others can reach, though nothing is encrypted or asked for a token.",
            *("INSECURE", "--insecure"),
        ),
    ] = False

    @property
    def level(self) -> LogLevel:
        """The least important events to show: to a person what is wrong, to a program all that it may want."""
        return self.log_level or ("info" if self.is_verbose or self.is_log_json else "warning")

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
        if self.line_bytes_max > self.pending_bytes_max:
            raise UsageError(
                f"--line-bytes-max {self.line_bytes_max} is over --pending-bytes-max {self.pending_bytes_max}: no line"
                " of that length could ever arrive"
            )
        if self.port == self.control_port and self.port != 0:
            raise UsageError(f"--port and --control-port are both {self.port}: give each a port of its own")


def show_address(host: str, port: int) -> str:
    """Return an address as it is written: [::1]:3001."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches `host`; a name other than localhost is not trusted."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
