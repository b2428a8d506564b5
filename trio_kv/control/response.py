"""What the control door answers in HTTP: one response a connection, which ends with it.

Nothing that the door tells is for other sites' pages, nor to be kept by anybody on the way: that is said with each
response, and a handler that wants it otherwise says so in its own headers.
"""

from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

import attrs
import h11

PLAIN_TEXT = "text/plain; charset=utf-8"


@attrs.frozen
class Response:
    """A whole response."""

    status: int
    """Of HTTP."""
    body: bytes
    content_type: str = PLAIN_TEXT
    headers: Mapping[str, str] = attrs.field(factory=dict)
    """Further ones, and those to stand in the place of the ones that each response has."""


def refuse(status: int, reason: str, **headers: str) -> Response:
    """Return a response that says why a request is not served.

    Args:
        status: of HTTP.
        reason: for a person.
        headers: further ones, `_` in a name for `-`.

    """
    return Response(
        status,
        f"{reason}\n".encode(),
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


def encode_response(response: Response, *, is_head: bool = False) -> bytes:
    """Return the bytes of a response; those of one to a HEAD request have no body, and all that tells of it."""
    headers = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Date": formatdate(usegmt=True),
        "Cache-Control": "no-store",
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        **response.headers,
        "Connection": "Upgrade, close" if "Upgrade" in response.headers else "close",
    }
    # The one who encodes knows of no request: h11 is told of one whose response has no body, or one that has.
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"%b / HTTP/1.1\r\nHost: x\r\n\r\n" % (b"HEAD" if is_head else b"GET"))
    connection.next_event()
    head = h11.Response(
        status_code=response.status,
        headers=list(headers.items()),
        reason=HTTPStatus(response.status).phrase.encode(),
    )
    parts = [connection.send(head)]
    if not is_head:
        parts.append(connection.send(h11.Data(data=response.body)))
    parts.append(connection.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)
