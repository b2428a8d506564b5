"""A whole cluster inside a test, and fixtures for pytest (`trio_kv.testing.plugin`). See docs/testing-your-service.md.

To import this alone costs next to nothing: what is used is imported when it is used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trio_kv.testing.background import Server, open_server
    from trio_kv.testing.cluster import Cluster, open_cluster

__all__ = ["Cluster", "Server", "open_cluster", "open_server"]

_MODULES = {
    "Cluster": "cluster",
    "open_cluster": "cluster",
    "Server": "background",
    "open_server": "background",
}


def __getattr__(name: str) -> object:
    """Import what is used, when it is used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"trio_kv.testing.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
