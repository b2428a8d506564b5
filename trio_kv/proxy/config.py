"""The limits of the client door, each with its unit and with what happens at it."""

import attrs
from attrs import validators

from trio_kv.proxy.limits import Limits


@attrs.frozen(kw_only=True)
class ProxyConfig:
    """How the client door behaves.

    Raises:
        ValueError: a number is out of its range.

    """

    host: str = "127.0.0.1"
    port: int = attrs.field(default=3001, validator=[validators.ge(0), validators.le(65535)])
    """TCP port; 0 picks a free one."""
    idle_timeout_s: float = attrs.field(default=10.0, validator=validators.ge(0))
    """A connection that completed no line and was sent no reply for so long is closed; 0 means never."""
    line_bytes_max: int = attrs.field(default=1 << 20, validator=validators.ge(1))
    """A longer line is answered `too_large`, and the rest of it is skipped."""
    pending_bytes_max: int = attrs.field(default=64 << 20, validator=validators.ge(1))
    """Half lines of all connections together; beyond it the oldest gets `overloaded` and is closed."""
    unsent_bytes_max: int = attrs.field(default=256 << 20, validator=validators.ge(1))
    """Replies that clients don't take, of all connections together; beyond it the client that has been slow for the
    longest time is dropped."""
    connections_max: int = attrs.field(default=10_000, validator=validators.ge(1))
    """One more is told `overloaded` and closed. The limit of file descriptors may lower it."""
    limits: Limits = attrs.field(factory=Limits)
    """A request with a longer key or value is answered `too_large`."""
    watches_max: int = attrs.field(default=1024, validator=validators.ge(1))
    """Watches of one connection; one more is told `overloaded`."""
    run_requests_max: int = attrs.field(default=1024, validator=validators.ge(1))
    """A longer run is cut; its next part starts when the first is answered."""
    handshake_timeout_s: float = attrs.field(default=10.0, validator=validators.gt(0))
    """A connection whose TLS handshake is not done by then is closed."""
    send_stall_s: float = attrs.field(default=30.0, validator=validators.gt(0))
    """A client that takes nothing for so long while it is owed replies is dropped."""
    stop_grace_s: float = attrs.field(default=2.0, validator=validators.ge(0))
    """A stopping door works on for at most so long; what is left then is answered without its result."""
    farewell_s: float = attrs.field(default=0.5, validator=validators.gt(0))
    """How long the last words to a client may take, until it closes its side or the door closes."""
