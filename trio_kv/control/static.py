"""The dashboard's page: files of the package, as they are, under their own names.

They are read once, when the door opens. A page that may command the cluster must run nothing but what comes from here:
that is what the headers say.
"""

import hashlib
from collections.abc import Mapping
from importlib import resources
from typing import Final

from trio_kv.control.http import Request, Route
from trio_kv.control.response import Response

INDEX: Final = "index.html"
TYPES: Final[Mapping[str, str]] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
    "png": "image/png",
    "woff2": "font/woff2",
}
"""What may lie there, by the ends of names. Browsers are told not to guess."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    # Kept, and asked for anew each time: after an upgrade no page goes on with old scripts.
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}


def page_routes() -> dict[str, Route]:
    """Return what the door serves of the page. Reads files: not for the event loop.

    Nothing of it tells anything about the store, and nobody needs a token for it.
    """
    routes: dict[str, Route] = {}
    for file in sorted(
        resources.files("trio_kv.control").joinpath("page").iterdir(), key=lambda file: file.name
    ):
        kind = file.name.rpartition(".")[2]
        if kind in TYPES:
            path = "/" if file.name == INDEX else f"/{file.name}"
            routes[path] = Route(_File(file.read_bytes(), TYPES[kind]).answer, needs_token=False)
    return routes


class _File:
    """One file, in memory."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self._tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        self._whole = Response(200, body, content_type, {**HEADERS, "ETag": self._tag})
        self._unchanged = Response(304, b"", content_type, {**HEADERS, "ETag": self._tag})

    async def answer(self, request: Request) -> Response:
        """Return the file, or that it is as the browser has it."""
        known = {tag.strip().removeprefix("W/") for tag in request.header("if-none-match").split(",")}
        return self._unchanged if self._tag in known else self._whole
