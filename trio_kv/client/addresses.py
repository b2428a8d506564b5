"""Where servers are, and how long they may take: what both clients are given, looked at in one place."""

from collections.abc import Sequence
from typing import Final

from trio_kv.wire.operations import TIMEOUT_S_MAX

DEFAULT_PORT: Final = 3001
PORT_MAX: Final = 65_535

REPLY_GRACE_S: Final = 1.0
"""How much longer than the request's time-out we wait: the server, whose clock it is, should speak first."""

Address = tuple[str, int]
"""A host and a port."""


def check_addresses(host: str, port: int, fallbacks: Sequence[Address]) -> tuple[Address, ...]:
    """Return the addresses of a client, the first one first.

    Raises:
        ValueError: a port can't be.

    """
    addresses = ((host, port), *[(other, number) for other, number in fallbacks])
    for _, number in addresses:
        if not 0 < number <= PORT_MAX:
            raise ValueError(f"port is {number}: a port is 1 to {PORT_MAX}")
    return addresses


def check_timeout(timeout_s: float) -> float:
    """Return a time-out that can be.

    Raises:
        ValueError: this one can't.

    """
    if not 0 < timeout_s <= TIMEOUT_S_MAX:
        raise ValueError(
            f"timeout_s is {timeout_s}: a time-out is more than 0 and at most {TIMEOUT_S_MAX:g} seconds"
        )
    return timeout_s


def format_address(address: Address) -> str:
    """Return an address for people."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
