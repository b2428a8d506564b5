"""The limits of the control door, each with its unit and with what happens at it."""

from pathlib import Path

import attrs
from attrs import validators


@attrs.frozen(kw_only=True)
class ControlConfig:
    """How the control door behaves.

    Raises:
        ValueError: a number is out of its range.

    """

    host: str = "127.0.0.1"
    """Where it listens. Without TLS the token must not leave the machine: whoever chooses another sees to that."""
    port: int = attrs.field(default=3002, validator=[validators.ge(0), validators.le(65535)])
    """TCP port; 0 picks a free one."""
    data_dir: Path | None = None
    """Where `control.json` is written; None, for a store that keeps nothing, is the run-time directory."""
    connections_max: int = attrs.field(default=32, validator=validators.ge(1))
    """One more gets HTTP status 503."""
    head_bytes_max: int = attrs.field(default=16384, validator=validators.ge(1))
    """A longer request head gets HTTP status 431."""
    message_bytes_max: int = attrs.field(default=65536, validator=validators.ge(1))
    """A longer message closes its connection with code 1009."""
    auth_timeout_s: float = attrs.field(default=5.0, validator=validators.gt(0))
    """A connection that has not shown the token by then is closed."""
    send_timeout_s: float = attrs.field(default=10.0, validator=validators.gt(0))
    """A client that does not take a message in this time is dropped."""
    command_timeout_s: float = attrs.field(default=10.0, validator=validators.gt(0))
    """A command that takes longer is answered `timeout`; it may still take effect."""
    slow_command_timeout_s: float = attrs.field(default=90.0, validator=validators.gt(0))
    """The same for a command that works through much data."""
    events_max: int = attrs.field(default=1024, validator=validators.ge(1))
    """Events that wait for one client; further ones are dropped, counted, and told as `trace.lost`."""
