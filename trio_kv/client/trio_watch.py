"""A watch of the client on Trio, as an asynchronous iterator. What it asks and hands out is told in `following`."""

from typing import Self

import trio

from trio_kv.client.dialler import Dialler, LineReader
from trio_kv.client.following import PASSING, RETRY_S, SILENCE_S, Following, Revision
from trio_kv.wire.operations import Watch


class Watcher:
    """What changes, one revision after the other, without an end. `TrioClient.watch` makes one.

    One task at a time iterates over it. To cancel that loses nothing: the next iteration goes on behind the last
    revision that was handed out. What is not taken waits at the server, which keeps the last 65,536 revisions.

    Iterating raises:
        NotConnectedError: no server can be reached any more.
        CompactedError: what comes next is gone; its `reply.revision` is the oldest to begin with.
        RefusedError: the server refuses for another reason.
        trio.BusyResourceError: another task iterates over it.
        trio.ClosedResourceError: it was closed meanwhile.

    """

    def __init__(
        self, dialler: Dialler, operation: Watch, *, timeout_s: float, watchers: "set[Watcher]"
    ) -> None:
        """Begin with the first iteration; see the class.

        Args:
            dialler: opens connections.
            operation: what to watch, and from where on.
            timeout_s: for each connection, until the watch has begun.
            watchers: it is one of them as long as it is open.

        """
        self._dialler = dialler
        self._following = Following(operation)
        self._timeout_s = timeout_s
        self._lines: LineReader | None = None
        self._is_busy = self._is_closed = self._has_progress = False
        self._iteration = trio.CancelScope()
        """Around the one that is under way, which may wait for a connection."""
        self._watchers = watchers
        watchers.add(self)

    def with_progress(self) -> Self:
        """Hand out revisions without events, too: all up to such a one was told. One comes every few seconds."""
        self._has_progress = True
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Revision:
        if self._is_closed:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        if self._is_busy:
            raise trio.BusyResourceError("another task iterates over this watch")
        self._is_busy = True
        try:
            with trio.CancelScope() as self._iteration:
                revision = await self._next()
                if not self._is_closed:
                    return revision
        finally:
            self._is_busy = False
        await self._hang_up()
        raise trio.ClosedResourceError("this watch was closed meanwhile")

    async def aclose(self) -> None:
        """Let the watch end; a second call does nothing."""
        self._is_closed = True
        self._watchers.discard(self)
        self._iteration.cancel()
        await self._hang_up()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def _next(self) -> Revision:
        following = self._following
        while True:
            try:
                with trio.fail_after(SILENCE_S):
                    if self._lines is None:
                        self._lines = await self._connect()
                    line = await self._lines.receive_line()
                revision = following.take(line)
            except (*PASSING, trio.BrokenResourceError, trio.TooSlowError) as error:
                await self._hang_up()
                following.fail(error)
                await trio.sleep(RETRY_S)
                continue
            if not following.is_on:
                await self._hang_up()
            if revision is not None and (revision.events or self._has_progress):
                return revision

    async def _connect(self) -> LineReader:
        """Return a connection over which the watch has begun."""
        dialled = await self._dialler.dial()
        lines = LineReader(dialled.stream)
        is_begun = False
        try:
            await dialled.stream.send_all(self._following.request(self._timeout_s))
            self._following.begin(await lines.receive_line())
            is_begun = True
        finally:
            if not is_begun:
                await trio.aclose_forcefully(dialled.stream)
        return lines

    async def _hang_up(self) -> None:
        lines, self._lines = self._lines, None
        if lines is not None:
            await trio.aclose_forcefully(lines.stream)
