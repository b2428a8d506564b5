"""What `serve` can be told, each option once: its flag, its variable, its default, its limits, its help."""

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

import attrs
from cyclopts import Parameter
from cyclopts.validators import Number

from trio_kv.cli.errors import UsageError
from trio_kv.cli.parsing import DATA_DIR_DEFAULT, SECONDS_MAX, Host, ListenPort, Node, flag, option
from trio_kv.cli.processors import Pin, own_processors
from trio_kv.kv.operations.operation import KEY_BYTES_MAX
from trio_kv.kv.operations.scan import PAGE_ITEMS_MAX
from trio_kv.kv.sessions import TIMEOUT_MAX_S, TIMEOUT_MIN_S
from trio_kv.raft.config import RaftConfig
from trio_kv.wire.frames import SECTOR_BYTES
from trio_kv.wire.operations import LINE_BYTES_LIMIT
from trio_kv.wire.operations import LINE_BYTES_LIMIT as VALUE_BYTES_LIMIT

ROUND_MS_MAX = 3_600_000
"""An hour: the longest time between two heartbeats, or before an election."""
RoundMs = Annotated[int, Parameter(validator=Number(gte=1, lte=ROUND_MS_MAX))]
PENDING_BYTES_MAX = 1 << 40
CONNECTIONS_LIMIT = 1_000_000
"""More than a system has descriptors for."""
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

    config: Annotated[
        Path | None,
        option("TOML file with options, as port = 4001; see the command config.", "CONFIG"),
    ] = None
    host: Annotated[
        Host,
        option(
            "Address to listen on; any but loopback needs TLS, and tokens or client certificates.", "HOST"
        ),
    ] = "127.0.0.1"
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
    processes: Annotated[
        int,
        option(
            "Processes to spread the nodes over; the first one alone has the doors.",
            "PROCESSES",
            validator=Number(gte=1, lte=9),
        ),
    ] = 1
    pin: Annotated[
        Pin,
        option(
            "Keep each process to a processor of its own; auto: if there are several processes, and processors enough.",
            "PIN",
        ),
    ] = "auto"
    cluster: Annotated[
        Path | None,
        option("File that says which hosts have the nodes; this one runs --node alone.", "CLUSTER"),
    ] = None
    node: Annotated[
        int | None,
        option("Which node of --cluster this host has.", "NODE", validator=Number(gte=1, lte=9)),
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
    is_opened: Annotated[bool, flag("Open the dashboard in a browser.", "OPEN", "--open")] = False
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
    token_file: Annotated[
        Path | None,
        option(
            "Who may ask: a NAME TOKEN, or NAME TOKEN read, on each line; mode 0600. SIGHUP reads it anew.",
            "TOKEN_FILE",
        ),
    ] = None
    tls_cert: Annotated[
        Path | None,
        option("Certificate of the server in PEM, for TLS on both doors. SIGHUP reads it anew.", "TLS_CERT"),
    ] = None
    tls_key: Annotated[Path | None, option("The key of --tls-cert.", "TLS_KEY")] = None
    tls_client_ca: Annotated[
        Path | None,
        option("Take clients alone that show a certificate of this CA.", "TLS_CLIENT_CA"),
    ] = None
    control_host: Annotated[Host, option("Address of the control door.", "CONTROL_HOST")] = "127.0.0.1"
    connections_max: Annotated[
        int,
        option("Most clients at a time.", "CONNECTIONS_MAX", validator=Number(gte=1, lte=CONNECTIONS_LIMIT)),
    ] = 10_000
    page_items_max: Annotated[
        int,
        option(
            "Most keys on a page of a scan.",
            "PAGE_ITEMS_MAX",
            validator=Number(gte=1, lte=PAGE_ITEMS_MAX),
        ),
    ] = PAGE_ITEMS_MAX
    watches_max: Annotated[
        int,
        option("Most watches of one client.", "WATCHES_MAX", validator=Number(gte=1, lte=CONNECTIONS_LIMIT)),
    ] = 1024
    key_bytes_max: Annotated[
        int,
        option("Longest key a client may use.", "KEY_BYTES_MAX", validator=Number(gte=1, lte=KEY_BYTES_MAX)),
    ] = KEY_BYTES_MAX
    value_bytes_max: Annotated[
        int | None,
        option(
            "Longest value a client may send, as JSON. [default: as long as a line]",
            "VALUE_BYTES_MAX",
            validator=Number(gte=1, lte=VALUE_BYTES_LIMIT),
        ),
    ] = None
    is_insecure: Annotated[
        bool,
        flag(
            "Allow a --host that others can reach without TLS and tokens or client certificates.",
            *("INSECURE", "--insecure"),
        ),
    ] = False

    @property
    def level(self) -> LogLevel:
        """The least important events to show: to a person what is wrong, to a program all that it may want."""
        return self.log_level or ("info" if self.is_verbose or self.is_log_json else "warning")

    @property
    def is_synced(self) -> bool:
        """Whether writes are synced before they are acknowledged."""
        return not (self.is_ephemeral or self.has_no_fsync)

    @property
    def has_access_files(self) -> bool:
        """Whether there are tokens or certificates, which can be read anew."""
        return self.token_file is not None or self.tls_cert is not None

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

    def _check_access(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UsageError("--tls-cert and --tls-key go together: give both, or neither")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise UsageError("--tls-client-ca asks for certificates over TLS: add --tls-cert and --tls-key")
        if self.is_insecure:
            return
        has_tls = self.tls_cert is not None
        is_asked = self.token_file is not None or self.tls_client_ca is not None
        if not is_loopback(self.host) and not (has_tls and is_asked):
            missing = [] if has_tls else ["TLS (--tls-cert, --tls-key)"]
            missing += [] if is_asked else ["tokens or client certificates (--token-file, --tls-client-ca)"]
            raise UsageError(
                f"--host {self.host} can be reached by others, and lacks {' and '.join(missing)}: give them,"
                " or listen on 127.0.0.1, or add --insecure"
            )
        if not is_loopback(self.control_host) and not has_tls:
            raise UsageError(
                f"--control-host {self.control_host} can be reached by others, and without TLS its token can be read"
                " on the way: give --tls-cert and --tls-key, or leave it at 127.0.0.1, or add --insecure"
            )

    def _check_pin(self) -> None:
        if self.pin != "yes":
            return
        processors = len(own_processors())
        if not processors:
            raise UsageError("--pin yes: this system keeps no process to a processor; leave it out")
        if processors < self.processes:
            raise UsageError(
                f"--pin yes needs a processor for each of the {self.processes} processes, and there are {processors}:"
                " give fewer --processes, or leave it out"
            )

    def check(self) -> None:
        """Refuse what is unsafe or can't work together.

        Raises:
            UsageError: says what, and what would do.

        """
        self.raft_config()
        self._check_access()
        if (self.cluster is None) != (self.node is None):
            raise UsageError(
                "--cluster and --node go together: the file, and which of its nodes this host has"
            )
        if self.cluster is not None and (self.nodes is not None or self.processes > 1 or self.is_ephemeral):
            raise UsageError(
                "--cluster says all of the nodes: leave out --nodes, --processes and --ephemeral"
            )
        self._check_pin()
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
