"""Who may talk to the control door: the rules for a request's head, without any input or output.

The door breaks clusters, and any page in any browser on this machine can send requests to it. A page cannot
choose its `Origin`, and a name that an attacker made point here (DNS rebinding) shows as `Host`: so the host
must be this machine by one of its three names, and an origin, where there is one, must be that of the door
itself. Both are parsed as a whole; a prefix would let `127.0.0.1.example.org` in.
"""

import re

import h11

from trio_kv.control.http import WEBSOCKET, target_of
from trio_kv.control.response import Response, refuse

_host = re.compile(rb"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)


def parse_head(data: bytes) -> h11.Request | Response | None:
    """Return the request whose head these bytes begin with, or None if they end before it does."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=max(len(data), 1))
    connection.receive_data(data)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError as error:
        return refuse(error.error_status_hint, f"not HTTP: {error}")
    if event is h11.NEED_DATA:
        return None
    assert isinstance(event, h11.Request), event
    return event


def check_head(request: h11.Request, *, is_secure: bool = False) -> Response | None:
    """Return why a request must not be served, whatever it asks for, or None if it may be.

    Args:
        request: what was asked for.
        is_secure: whether it came over TLS. The certificate's name keeps other hosts' names away then.

    """
    hosts = [value for name, value in request.headers if name == b"host"]
    if len(hosts) != 1 or not (is_secure or _host.fullmatch(hosts[0])):
        return refuse(403, "this door is for 127.0.0.1, localhost and [::1] only")
    origins = [value for name, value in request.headers if name == b"origin"]
    own = (b"https://" if is_secure else b"http://") + hosts[0].lower()
    if origins and [origin.lower() for origin in origins] != [own]:
        return refuse(403, "this door is not for pages of another origin")
    if not target_of(request):
        return refuse(400, "this door is no proxy: a request names a path, such as /livez")
    return None


def is_for_websocket(request: h11.Request) -> bool:
    """Return whether it asks for the path that is a WebSocket."""
    return target_of(request).partition("?")[0] == WEBSOCKET


def check_upgrade(request: h11.Request) -> Response | None:
    """Return why a request to the WebSocket's path may not open it, or None if it may."""
    upgrades = [value.lower() for name, value in request.headers if name == b"upgrade"]
    if request.method != b"GET" or upgrades != [b"websocket"]:
        return refuse(426, f"{WEBSOCKET} is a WebSocket", Upgrade="websocket")
    return None
