"""The watches of one connection: begun and ended by requests, and the lines that come of them between replies.

A watch is open once its `ok` was given to the outbox, so that no line comes before that; and it is ended before the
`ok` of its `unwatch` is. Lines are drawn from the store when the outbox has room, a piece of each watch in turn: what
a slow client does not take is not even made.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import attrs
from msgspec import UNSET

from trio_kv.gateway.drawn import Drawn, Selector
from trio_kv.gateway.store import Answer, OnAnswer, Store, Watch
from trio_kv.kv.reply import Reply
from trio_kv.wire.operations import Request
from trio_kv.wire.watches import Unwatch, encode_bodies, encode_lines, encode_lost, encode_progress


@attrs.define(eq=False)
class _Named:
    """A watch under the id that its client gave it."""

    id: bytes
    watch: Watch | None = None
    """None as long as it has not begun."""
    is_open: bool = False
    """Whether its client was told that it has begun."""


class Watches:
    """The watches of one connection.

    Args:
        store: what is watched.
        watches_max: how many there may be.
        on_more: is called when there are lines to be had.

    """

    def __init__(self, store: Store, watches_max: int, on_more: Callable[[], object]) -> None:
        """Have none; see the class."""
        self._store = store
        self._watches_max = watches_max
        self._on_more = on_more
        self._by_id: dict[bytes, _Named] = {}
        self._begun: list[_Named] = []
        """Those that are to be opened."""
        self._stirred: dict[_Named, None] = {}
        """Those that have something to tell, perhaps; the next one first."""

    def __len__(self) -> int:
        return len(self._by_id)

    def start(self, request: Request, done: OnAnswer) -> Answer | object:
        """Begin a watch, or end one; return the answer, or the store's call if `done` is called later."""
        operation, id = request.operation, bytes(request.id)
        if isinstance(operation, Unwatch):
            if id not in self._by_id:
                return _refuse("bad_request", "no watch of this connection has this id")
            self._end(self._by_id[id])
            return Answer([Reply("ok")])
        if id in self._by_id:
            return _refuse("bad_request", "a watch of this connection has this id already")
        if len(self._by_id) >= self._watches_max:
            return _refuse(
                "overloaded", f"a connection has at most {self._watches_max} watches; end one first"
            )
        named = self._by_id[id] = _Named(id)
        call = self._begin(named, request, done)
        if isinstance(call, Answer):
            del self._by_id[id]
        return call

    def _begin(self, named: _Named, request: Request, done: OnAnswer) -> Answer | object:
        operation: Any = request.operation
        is_prefix = operation.prefix is not UNSET
        selector = Selector(operation.prefix if is_prefix else operation.key, is_prefix)

        def begun(answer: Answer) -> None:
            assert not isinstance(call, Answer)
            named.watch = call.watch
            if named.watch is None:
                del self._by_id[named.id]
            else:
                self._begun.append(named)
            done(answer)

        call = self._store.start_watch(
            selector,
            first=None if operation.first is UNSET else operation.first,
            progress_s=float("inf") if operation.progress is UNSET else operation.progress,
            timeout_s=request.timeout,
            on_more=partial(self._stir, named),
            done=begun,
        )
        return call

    @property
    def is_opening(self) -> bool:
        """Whether there are watches to `open`."""
        return bool(self._begun)

    def open(self) -> None:
        """Let the lines come of the watches that have begun: their client was told so."""
        for named in self._begun:
            # It may have ended in the same breath.
            if self._by_id.get(named.id) is named:
                named.is_open = True
                self._stirred[named] = None
        self._begun.clear()

    def close(self) -> None:
        """End all."""
        for named in list(self._by_id.values()):
            self._end(named)

    def next_lines(self) -> bytes | None:
        """Return what comes next of all watches, at most a piece; None if there is nothing now."""
        stirred = self._stirred
        while stirred:
            named = next(iter(stirred))
            del stirred[named]
            assert named.watch is not None
            drawn = named.watch.draw()
            if drawn is None:
                continue
            if drawn.is_lost:
                del self._by_id[named.id]
                return encode_lost(named.id, drawn.after + 1)
            stirred[named] = None
            return _lines_of(named.id, drawn)
        return None

    def _stir(self, named: _Named) -> None:
        if named.is_open:
            self._stirred[named] = None
            self._on_more()

    def _end(self, named: _Named) -> None:
        del self._by_id[named.id]
        self._stirred.pop(named, None)
        if named.watch is not None:
            named.watch.end()


def _lines_of(id: bytes, drawn: Drawn) -> bytes:
    """Return the lines of what was drawn. Watches that share it share their work, too."""
    if not drawn.revisions:
        return encode_progress(id, drawn.upto)
    lines = drawn.lines.get(id)
    if lines is None:
        if drawn.bodies is None:
            drawn.bodies = encode_bodies(drawn.revisions)
        lines = drawn.lines[id] = encode_lines(id, drawn.bodies)
    return lines


def _refuse(code: str, message: str) -> Answer:
    return Answer([Reply(code, message=message)])
