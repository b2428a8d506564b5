"""Plain HTTP at the control door: a table of paths, each with its handler.

Who a request comes from has been looked at before (`head`). Here it is looked at what it asks for: GET and HEAD are all
there is. A handler is given what it may want to know of the request, and returns a `Response`; it neither reads nor
writes. From this machine no path needs a token. From elsewhere those do that tell something about the store.
"""

from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv6Address, ip_address
from urllib.parse import parse_qs

import attrs
import h11
import trio

from trio_kv.control.response import Response, refuse

METHODS = "GET, HEAD"
WEBSOCKET = "/ws"
WRONG_TOKEN_S = 1.0
"""A wrong token waits so long for its answer: with the connections that a door has at most, nobody guesses one."""


@attrs.frozen
class Request:
    """What a handler may know of a request."""

    query: Mapping[str, list[str]]
    """What stands behind the path's `?`. A name without a value has the value ""."""
    headers: Mapping[str, str]
    """By their names in small letters; of several with one name, all, with commas between."""

    def header(self, name: str) -> str:
        """Return a header, or "" if it is not there."""
        return self.headers.get(name, "")


Handler = Callable[[Request], Awaitable[Response]]


@attrs.frozen
class Route:
    """What is behind a path."""

    handler: Handler
    needs_token: bool = True
    """Whether who comes from elsewhere than this machine has to show a token."""


Routes = Mapping[str, Route]
"""What the door serves, by path."""


async def answer(
    request: h11.Request, routes: Routes, *, is_trusted: bool, opens: Callable[[str], bool], timeout_s: float
) -> Response:
    """Return what a request gets.

    Args:
        request: its head.
        routes: what there is.
        is_trusted: whether no token is asked for.
        opens: whether a token opens the door. It compares in constant time.
        timeout_s: how long a handler may take.

    Raises:
        Exception: the handler failed.

    """
    path, _, query = target_of(request).partition("?")
    route = routes.get(path)
    if route is None:
        return refuse(404, f"there is no {path} here; there are {', '.join(sorted([*routes, WEBSOCKET]))}")
    if request.method not in {b"GET", b"HEAD"}:
        return refuse(405, f"{path} can be asked for by {METHODS}", Allow=METHODS)
    asked = Request(parse_qs(query, keep_blank_values=True), _headers(request))
    if route.needs_token and not is_trusted and (refusal := await _check_token(asked, opens)):
        return refusal
    with trio.move_on_after(timeout_s):
        return await route.handler(asked)
    return refuse(503, f"{path} takes longer than {timeout_s:g} s, and was given up", Retry_After="5")


def target_of(request: h11.Request) -> str:
    """Return the path that a request names, and what stands behind its `?`; "" if it names something else.

    It may name the host once more, as proxies are asked (RFC 9112 §3.2.2); no other host than in its header.
    """
    target = request.target.decode("ascii")
    host = next((value.decode("latin-1") for name, value in request.headers if name == b"host"), "")
    for scheme in ("http://", "https://"):
        if target.lower().startswith(f"{scheme}{host.lower()}/"):
            target = target[len(scheme) + len(host) :]
    return target if target.startswith("/") else ""


def is_local(address: str) -> bool:
    """Return whether a peer's address is one of this machine's loopback."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return ip.is_loopback


def _headers(request: h11.Request) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in request.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


async def _check_token(request: Request, opens: Callable[[str], bool]) -> Response | None:
    scheme, _, token = request.header("authorization").partition(" ")
    token = token.strip()
    if scheme.lower() == "bearer" and token:
        if opens(token):
            return None
        await trio.sleep(WRONG_TOKEN_S)
    reason = "from elsewhere than this machine it takes a token: Authorization: Bearer TOKEN"
    return refuse(401, reason, WWW_Authenticate='Bearer realm="trio_kv"')
