"""The paths by which a server is watched from outside: `/metrics`, `/livez`, `/readyz`."""

import importlib
from functools import partial
from typing import Any

import trio

from trio_kv.control import health
from trio_kv.control.http import Request, Route, Routes
from trio_kv.control.response import Response
from trio_kv.control.views import Server


class Metrics:
    """Answers with the metrics of a server. What it takes to write them down is loaded when that is asked for first."""

    def __init__(self, server: Server) -> None:
        """Load nothing yet."""
        self._server = server
        self._module: Any = None
        self._registry: Any = None

    async def answer(self, request: Request) -> Response:
        """Return what a scraper gets."""
        if self._module is None:
            load = partial(importlib.import_module, "trio_kv.control.metrics")
            self._module = await trio.to_thread.run_sync(load)
            self._registry = self._module.make_registry(self._server)
        await self._server.refresh()
        response: Response = await self._module.encode(self._registry, request.header("accept"))
        return response


def routes(server: Server) -> Routes:
    """Return the paths by which a server is watched."""
    return {
        "/metrics": Route(Metrics(server).answer),
        "/livez": Route(partial(health.answer, health.LIVE, server)),
        "/readyz": Route(partial(health.answer, health.READY, server)),
    }
