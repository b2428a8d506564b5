"""What there is to be seen of a server, wherever it stands: the port that metrics and health look through."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import attrs

from trio_kv.cluster.statistics import ClusterStatistics
from trio_kv.control.lag import LoopLag
from trio_kv.meter.histogram import Histogram
from trio_kv.trace.trace import Trace


class RequestCounts(Protocol):
    """What a client door has counted."""

    @property
    def durations(self) -> Mapping[str, Histogram]:
        """Of requests that were answered, in seconds, by operation."""
        ...

    @property
    def errors(self) -> Mapping[str, int]:
        """Answers that were no success, by their code."""
        ...


class ClientDoor(Protocol):
    """A client door, as it is seen here."""

    @property
    def meter(self) -> RequestCounts:
        """What it has counted."""
        ...

    @property
    def connection_count(self) -> int:
        """How many connections are open."""
        ...

    @property
    def client_count(self) -> int:
        """How many clients came."""
        ...

    @property
    def watch_count(self) -> int:
        """How many watches are open."""
        ...

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no new clients any more."""
        ...


@attrs.frozen
class Server:
    """A server, as one looks at it from outside. Each look is a new one."""

    version: str
    door: ClientDoor
    look_at_cluster: Callable[[], ClusterStatistics]
    refresh: Callable[[], Awaitable[None]]
    """Looks anew at nodes of other processes, if there are any."""
    lag: LoopLag
    trace: Trace
