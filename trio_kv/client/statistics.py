"""What a client tells of itself."""

import attrs


@attrs.frozen(kw_only=True)
class ClientStatistics:
    """What a client has done so far, and what it is doing. Both clients tell the same."""

    address: str | None
    """Of the server that it is connected to; None if it is not."""
    calls_waiting: int
    """Requests that have not gone out: there is no connection, or too much is under way."""
    calls_in_flight: int
    """Requests that have gone out and have no reply."""
    connections: int
    """Connections that there have been; all but the first are reconnections."""
    requests: int
    """Requests that have gone out, repetitions among them."""
    replies: int
    """Replies that have come."""
    replies_dropped: int
    """Replies that nobody awaited any more, because their calls were cancelled."""
    repetitions: int
    """How often a request was sent again."""
    watches: int
    """Watches that are open."""
