"""Frames: all that is to be seen of the cluster at one moment, small, whole, and numbered.

A frame holds no difference to the one before, so whoever missed some is right again with the next. It is taken from
what nodes, links, gateway and client door show of themselves, and from the events since the last one; nothing here
keeps a truth of its own.
"""

from collections.abc import Callable
from typing import Any, Protocol

import attrs

from trio_kv.cluster.cluster import Cluster
from trio_kv.control.marks import Marks
from trio_kv.control.rates import Rates, RateWindow
from trio_kv.control.sampling import MessageSampler
from trio_kv.control.views import ClientDoor
from trio_kv.raft.events import INFO
from trio_kv.trace.text import encode_json
from trio_kv.trace.trace import Record, Trace, format_time

EVENTS_MAX = 100
"""Events of one frame; further ones are counted as left out."""
CLIENTS_MAX = 20
"""Clients that a frame names."""


class Clients(ClientDoor, Protocol):
    """The client door, as far as it is looked at."""

    def clients(self, count_max: int) -> list[dict[str, object]]:
        """Return who is connected, so many at most."""


@attrs.frozen(eq=False)
class Frame:
    """One frame, in JSON."""

    number: int
    time_s: float
    """UTC, in seconds since 1970."""
    text: bytes


class EventTally:
    """A sink of the trace that is emptied with each frame.

    Args:
        on_event: is called with each event.

    """

    level = INFO

    def __init__(self, on_event: Callable[[], object]) -> None:
        """Have none yet; see the class."""
        self.total = 0
        """How many there were in all."""
        self._on_event = on_event
        self._records: list[Record] = []
        self._taken = 0

    @property
    def is_waiting(self) -> bool:
        """Whether there are events that no frame has."""
        return bool(self._records)

    def write(self, record: Record) -> None:
        """Take an event, or count it as left out."""
        self.total += 1
        if len(self._records) < EVENTS_MAX:
            self._records.append(record)
        self._on_event()

    def take(self) -> tuple[list[dict[str, Any]], int]:
        """Return the events since the last time, the first ones of them, and how many are left out."""
        records, self._records = self._records, []
        left_out = self.total - self._taken - len(records)
        self._taken = self.total
        return [record.members() for record in records], left_out


class FrameTaker:
    """Takes frames of one run of a server.

    Args:
        cluster: nodes and links.
        clients: the client door; None: there is none.
        tally: the events.
        trace: whose clocks are told.
        run: what tells this run from all others.

    """

    def __init__(
        self,
        cluster: Cluster,
        clients: Clients | None,
        *,
        tally: EventTally,
        trace: Trace,
        run: str,
    ) -> None:
        """Have taken none yet; see the class."""
        self.sampler = MessageSampler()
        """What is on its way, while somebody looks."""
        self.marks = Marks()
        """What stands out in the frames that were taken."""
        self._cluster = cluster
        self._clients = clients
        self._rates = None if clients is None else RateWindow(clients.meter)
        self._trace = trace
        self._tally = tally
        self._run = run
        self._number = 0

    def take(self, now: float) -> Frame:
        """Take the next frame.

        Args:
            now: Trio's time.

        """
        self._number += 1
        time_s = self._trace.wall_s()
        events, events_left_out = self._tally.take()
        messages, messages_left_out = self.sampler.take(now)
        clients = self._clients
        members = {
            "run": self._run,
            "number": self._number,
            "time": format_time(time_s),
            "mono": round(self._trace.mono_s(), 6),
            **self._cluster.look(),
            "rates": attrs.asdict(Rates() if self._rates is None else self._rates.look(now)),
            "clients": {
                "connections": 0 if clients is None else clients.connection_count,
                "watches": 0 if clients is None else clients.watch_count,
                "list": [] if clients is None else clients.clients(CLIENTS_MAX),
            },
            "messages": messages,
            "messages_left_out": messages_left_out,
            "events": events,
            "events_left_out": events_left_out,
            "events_total": self._tally.total,
        }
        self.marks.take(members)
        return Frame(self._number, time_s, encode_json(members))
