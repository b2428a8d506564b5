"""A replicated key-value store on Raft and Trio: run it, watch it, break it, prove it right.

`python -m trio_kv` starts a whole cluster in one process; `trio_kv.Client` speaks to it. The packages are the rooms
of a house: each uses only rooms on lower floors, and `docs/architecture.md` draws the plan.

PYTEST_DONT_REWRITE: nor does it matter whether it was imported before pytest finds our plugin.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_kv.client.client import Client
    from trio_kv.client.errors import (
        BadRequestError,
        CompactedError,
        ConflictError,
        NotConnectedError,
        OutcomeUnknownError,
        OverloadedError,
        ReadOnlyError,
        RefusedError,
        SessionExpiredError,
        StoreError,
        TimedOutError,
        TooLargeError,
        UnauthorizedError,
        UnavailableError,
    )
    from trio_kv.client.following import Event, Revision
    from trio_kv.client.statistics import ClientStatistics
    from trio_kv.client.tls import Tls
    from trio_kv.client.trio_client import TrioClient, open_client

__version__ = "0.1.0"

__all__ = [
    "BadRequestError",
    "Client",
    "ClientStatistics",
    "CompactedError",
    "ConflictError",
    "Event",
    "NotConnectedError",
    "OutcomeUnknownError",
    "OverloadedError",
    "ReadOnlyError",
    "RefusedError",
    "Revision",
    "SessionExpiredError",
    "StoreError",
    "TimedOutError",
    "Tls",
    "TooLargeError",
    "TrioClient",
    "UnauthorizedError",
    "UnavailableError",
    "__version__",
    "open_client",
]


_MODULES = {
    "Client": "client",
    "ClientStatistics": "statistics",
    "Event": "following",
    "Revision": "following",
    "Tls": "tls",
    "TrioClient": "trio_client",
    "open_client": "trio_client",
}


def __getattr__(name: str) -> object:
    """Import what is used, when it is used: to import the package alone costs next to nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"trio_kv.client.{_MODULES.get(name, 'errors')}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
