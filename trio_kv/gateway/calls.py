"""The two ways to use a store: a call that comes back later, for doors that have thousands; and one to wait for."""

from collections.abc import Callable, Sequence
from typing import Any

import trio

from trio_kv.gateway.drawn import Selector
from trio_kv.gateway.store import Answer, Beginning, OnAnswer, View
from trio_kv.kv.operations import AnyQuery
from trio_kv.wire.client_sessions import AnyAsked


class AwaitedCalls:
    """Gives a store the methods to wait for, from those that come back later (see `Store`)."""

    def start_write(
        self, operations: Sequence[AnyAsked], *, timeout_s: float, done: OnAnswer
    ) -> Answer | object:
        """See `Store`."""
        raise NotImplementedError

    def start_read(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View, done: OnAnswer
    ) -> Answer | object:
        """See `Store`."""
        raise NotImplementedError

    def start_watch(
        self,
        selector: Selector,
        *,
        first: int | None,
        progress_s: float,
        timeout_s: float,
        on_more: Callable[[], object],
        done: OnAnswer,
    ) -> Answer | Beginning:
        """See `Store`."""
        raise NotImplementedError

    def cancel(self, call: Any) -> None:
        """See `Store`."""
        raise NotImplementedError

    async def write(self, operations: Sequence[AnyAsked], *, timeout_s: float) -> Answer:
        """Carry out a run with writes in it. See `Store`."""
        return await self._wait(lambda done: self.start_write(operations, timeout_s=timeout_s, done=done))

    async def read(
        self, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View
    ) -> Answer:
        """Let a follower answer queries. See `Store`."""

        def start(done: OnAnswer) -> Answer | object:
            return self.start_read(queries, timeout_s=timeout_s, is_stale=is_stale, view=view, done=done)

        return await self._wait(start)

    async def _wait(self, start: Callable[[OnAnswer], Answer | object]) -> Answer:
        """Start a call, and wait for its answer; a wait that is cancelled cancels the call."""
        task = trio.lowlevel.current_task()
        answers: list[Answer] = []

        def done(answer: Answer) -> None:
            answers.append(answer)
            trio.lowlevel.reschedule(task)

        def abort(_: object) -> trio.lowlevel.Abort:
            self.cancel(call)
            return trio.lowlevel.Abort.SUCCEEDED

        call = start(done)
        if isinstance(call, Answer):
            await trio.lowlevel.checkpoint()
            return call
        await trio.lowlevel.wait_task_rescheduled(abort)
        return answers[0]
