"""The door of the whole world: the real one, closed and opened again over the same store; and strangers at it."""

from collections.abc import Sequence

import trio

from trio_kv.check.violation import Violation
from trio_kv.gateway.store import Store
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.server import Proxy
from trio_kv.proxy.stream import ConnectionLostError
from trio_kv.sim.coverage import Coverage
from trio_kv.sim.whole.clients import PORT
from trio_kv.sim.whole.host import WholeHost
from trio_kv.trace.trace import Trace

LINE_BYTES_MAX = 8192
STOP_GRACE_S = 0.3
STRANGER_S = 5.0
"""A stranger is answered within this time."""


class Door:
    """One door after the other. `run` keeps one open, but for the time of a restart."""

    def __init__(self, host: WholeHost, store: Store, trace: Trace, *, idle_timeout_s: float) -> None:
        """Open none yet.

        Args:
            host: the world.
            store: what answers.
            trace: where events go.
            idle_timeout_s: silence after which a connection is closed.

        """
        self._host = host
        self._store = store
        self._trace = trace
        self._config = ProxyConfig(
            port=PORT,
            idle_timeout_s=idle_timeout_s,
            line_bytes_max=LINE_BYTES_MAX,
            stop_grace_s=STOP_GRACE_S,
            farewell_s=0.2,
            run_requests_max=3,
        )
        self._proxy: Proxy | None = None
        self._scope = trio.CancelScope()
        self._may_open = trio.Event()
        self._may_open.set()
        self._nursery: trio.Nursery | None = None
        self._times_cut = 0

    async def run(self) -> None:
        """Open a door, and another one whenever one was closed."""
        async with trio.open_nursery() as self._nursery:
            while True:
                await self._may_open.wait()
                self._proxy = Proxy(self._store, self._config, self._trace, self._host.network.listen)
                with trio.CancelScope() as self._scope:
                    await self._proxy.serve()
                self._proxy = None

    def restart(self, for_s: float, *, is_graceful: bool) -> None:
        """Close the door, and let another one open so long after."""
        if self._proxy is None or not self._may_open.is_set():
            return
        assert self._nursery is not None
        self._host.coverage.reach("door restarted")
        self._may_open = trio.Event()
        self._host.after(for_s, self._may_open.set)
        if is_graceful:
            self._nursery.start_soon(self._proxy.stop)
        else:
            self._times_cut += 1
            self._scope.cancel()

    async def meet_stranger(self, lines: Sequence[bytes]) -> None:
        """Send what is no request, and see each line answered by an error until the door has enough.

        Raises:
            Violation: it was answered by something else, or not in time.

        """
        times_cut = self._times_cut
        try:
            end = self._host.network.connect(PORT)
        except ConnectionRefusedError:
            return
        data, received = b"".join(line + b"\n" for line in lines), b""
        chunk: bytes | None = None
        with trio.move_on_after(STRANGER_S) as scope:
            try:
                while data:
                    data = data[end.send_nowait(data) :]
                    if data:
                        # Whoever sends and never reads must not stop the door: so it reads, too.
                        await end.wait(lambda: end.is_writable or end.is_readable)
                        chunk = end.receive_nowait()
                        if chunk == b"":
                            return  # It had enough.
                        received += chunk or b""
                await end.send_eof()
                while chunk != b"":
                    await end.wait_readable()
                    chunk = end.receive_nowait()
                    received += chunk or b""
            except ConnectionLostError:
                return  # The door was restarted, or had enough.
            finally:
                end.close()
        if scope.cancelled_caught:
            raise Violation(f"a stranger's {lines} were not answered within {STRANGER_S} s")
        judge_stranger(lines, received, self._host.coverage, is_cut=self._times_cut != times_cut)


def judge_stranger(lines: Sequence[bytes], received: bytes, coverage: Coverage, *, is_cut: bool) -> None:
    """Judge all that a stranger got.

    A door that is cut down may close before it has read, or within a reply: that looks like an end, and not like an
    error. So it may owe replies; what it did send must be right all the same.

    Args:
        lines: what it sent.
        received: what it got until the end of input.
        coverage: counts strangers that were answered.
        is_cut: whether a door was cut down meanwhile.

    Raises:
        Violation: it was answered by something else than an error, or by too few or too many.

    """
    replies = received.splitlines()
    if is_cut and not received.endswith(b"\n"):
        del replies[-1:]
    if any(reply.startswith(b'{"close"') for reply in replies):
        return
    if any(b'"status": "error"' not in reply for reply in replies):
        raise Violation(f"a stranger sent {lines} and got {replies}")
    told = [line for line in lines if line.strip()]
    # Behind a line of HTTP nothing more is answered.
    due = 1 if told and told[0].startswith(b"GET ") else len(told)
    if len(replies) > due or (len(replies) < due and not is_cut):
        raise Violation(f"a stranger sent {lines}, {due} of them to be answered, and got {replies}")
    if len(replies) == due:
        coverage.reach("stranger answered")
