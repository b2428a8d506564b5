"""A cluster in a thread of its own, with a real port: for tests that wait, and for services in other processes."""

import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any, ParamSpec, TypeVar, overload

import trio

from trio_kv.client.client import Client
from trio_kv.testing.cluster import Cluster, open_cluster

P = ParamSpec("P")
T = TypeVar("T")


class Server:
    """A cluster that runs in a thread of its own. `open_server` makes one."""

    host = "127.0.0.1"

    def __init__(self, cluster: Cluster, token: trio.lowlevel.TrioToken) -> None:
        """Stand for a cluster that runs."""
        assert cluster.port is not None
        self.port: int = cluster.port
        """Of the client door."""
        self.cluster = cluster
        """What is to be done with it: see `call`."""
        self.client = Client(self.host, self.port)
        """A client that connects when it is used."""
        self._token = token

    @overload
    def call(self, work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    def call(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...
    def call(self, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a method of the cluster in its thread; wait for it, and return what it returns.

        As `server.call(server.cluster.crash, 2)`, or `server.call(server.cluster.wait_leader)`.

        Raises:
            trio.RunFinishedError: the cluster has ended.

        """
        return trio.from_thread.run(partial(_call, work, args, kwargs), trio_token=self._token)


async def _call(work: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    result = work(*args, **kwargs)
    return await result if isinstance(result, Awaitable) else result


@contextlib.contextmanager
def open_server(nodes: int = 3, *, port: int = 0, **options: Any) -> Iterator[Server]:
    """Run a cluster in a thread for as long as the context lasts. It begins when a node leads.

    Args:
        nodes: how many, 1 to 9.
        port: of the client door on 127.0.0.1; 0: a free one, see `Server.port`.
        options: those of `open_cluster`.

    Raises:
        what `open_cluster` raises.

    """
    begun: Future[tuple[trio.lowlevel.TrioToken, trio.CancelScope]] = Future()
    opened: Future[Server] = Future()
    ended: Future[None] = Future()
    is_given_up = threading.Event()

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            begun.set_result((token, scope))
            if is_given_up.is_set():
                return
            async with open_cluster(nodes, port=port, **options) as cluster:
                opened.set_result(Server(cluster, token))
                await trio.sleep_forever()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:  # noqa: ASYNC103, BLE001 - raised in the thread that waits for it
            if opened.done():
                ended.set_exception(error)
                return  # noqa: ASYNC104 - as above
            opened.set_exception(error)
        ended.set_result(None)

    # A daemon: should it hang, the process can end all the same.
    thread = threading.Thread(target=run, name="trio_kv-cluster", daemon=True)
    try:
        # A time-out of the test may interrupt any of this.
        thread.start()
        server = opened.result()
        with server.client:
            yield server
    finally:
        is_given_up.set()
        if begun.done():
            token, scope = begun.result()
            with contextlib.suppress(trio.RunFinishedError):
                trio.from_thread.run_sync(scope.cancel, trio_token=token)
        if thread.is_alive():
            thread.join()
        if ended.done():
            ended.result()
