"""Who may talk to the control door: the rules for a request's head, without any input or output.

The door breaks clusters, and any page in any browser on this machine can send requests to it. A page cannot
choose its `Origin`, and a name that an attacker made point here (DNS rebinding) shows as `Host`: so the host
must be this machine by one of its three names, and an origin, where there is one, must be that of the door
itself. Both are parsed as a whole; a prefix would let `127.0.0.1.example.org` in.
"""

import re

import attrs
import h11

_host = re.compile(rb"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


@attrs.frozen
class Refusal:
    """Why a request is not served."""

    status: int
    """Of HTTP."""
    reason: str
    """For a person."""


def parse_head(data: bytes) -> h11.Request | Refusal | None:
    """Return the request whose head these bytes begin with, or None if they end before it does."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=max(len(data), 1))
    connection.receive_data(data)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        return Refusal(error.error_status_hint, f"not HTTP: {error}")
    if event is h11.NEED_DATA:
        return None
    assert isinstance(event, h11.Request), event
    return event


def check_head(request: h11.Request, *, is_secure: bool = False) -> Refusal | None:
    """Return why a request must not be served, or None if it may open a WebSocket.

    Args:
        request: what was asked for.
        is_secure: whether it came over TLS. The certificate's name keeps other hosts' names away then.

    """
    hosts = [value for name, value in request.headers if name == b"host"]
    if len(hosts) != 1 or not (is_secure or _host.fullmatch(hosts[0])):
        return Refusal(403, "this door is for 127.0.0.1, localhost and [::1] only")
    origins = [value for name, value in request.headers if name == b"origin"]
    own = (b"https://" if is_secure else b"http://") + hosts[0].lower()
    if origins and [origin.lower() for origin in origins] != [own]:
        return Refusal(403, "this door is not for pages of another origin")
    path = request.target.partition(b"?")[0]
    if path != b"/ws":
        return Refusal(404, "there is only /ws here")
    upgrades = [value.lower() for name, value in request.headers if name == b"upgrade"]
    if request.method != b"GET" or upgrades != [b"websocket"]:
        return Refusal(426, "/ws is a WebSocket")
    return None


def encode_refusal(refusal: Refusal) -> bytes:
    """Return a whole HTTP response."""
    body = f"{refusal.reason}\n".encode()
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Connection", "close"),
    ]
    if refusal.status == 426:
        headers.append(("Upgrade", "websocket"))
    lines = [f"HTTP/1.1 {refusal.status} Refused", *(f"{name}: {value}" for name, value in headers), "", ""]
    return "\r\n".join(lines).encode() + body
