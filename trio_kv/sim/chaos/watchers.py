"""Watchers beside the load: each keeps a watch over whatever happens to its connection, and notes what it is told.

What they were told of a key or a family stands in a file of its own, in parts that the judge finds again: he holds it
against what clients were told (`check.streams`). Some watchers are slow to read, leave, and begin anew; all begin again
where they stood, so that all that one was told is one stream, but for gaps that the server has told of.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import attrs
import msgspec
import trio

from trio_kv.check.exchange import Members, decode_members, read, read_list
from trio_kv.check.streams import Line, Span, StreamOrder
from trio_kv.check.violation import Violation
from trio_kv.sim.chaos.lines import GONE_ERRORS, LineStream, connect
from trio_kv.sim.chaos.recorder import group_of
from trio_kv.sim.chaos.target import Target

TEXTS = ("", "", "f")
"""What begins the names of the keys that each of them watches, behind what all keys of the run begin with."""
BEGIN_S = 10.0
"""So long the load waits until all have begun."""
RETRY_S = 0.05
CONNECT_S = 5.0
PROGRESS_S = (0.5, 2.0)
SILENCE_S = 10.0
"""Whoever hears nothing for so long goes elsewhere: progress is told more often than that."""
STAYS_S = 20.0
"""About so long a watch goes on before its client ends it, and begins another one."""
SLOW_EVERY_S = 15.0
SLOW_MAX_S = 10.0
"""Slow readers read nothing now and then, for so long at most."""
LINES_KEPT = 64
"""Lines about a key or a family that wait for their way into the file."""


class UnknownWatchError(Exception):
    """The server knows no watches."""


class StreamFile:
    """What watches were told, by key or family.

    Args:
        path: of the file; it is made.
        prefix: what all keys of the run begin with.

    """

    def __init__(self, path: Path, prefix: str) -> None:
        """Hold nothing."""
        self.prefix = prefix
        self.events = 0
        self._file = path.open("wb")
        self._offset = 0
        self._lines: dict[str, list[bytes]] = defaultdict(list)
        self._parts: dict[str, list[tuple[int, int]]] = defaultdict(list)

    def told(self, watch: int, revision: int, events: Sequence[Members]) -> None:
        """Note what a watch was told of a revision."""
        by_group: dict[str, list[tuple[str, str, msgspec.Raw]]] = defaultdict(list)
        for event in events:
            key = read(event, "key")
            by_group[group_of(key)].append(
                (read(event, "event"), key, event.get("value", msgspec.Raw(b"null")))
            )
        for group, changes in by_group.items():
            lines = self._lines[group]
            lines.append(msgspec.json.encode(Line(watch, revision, tuple(changes))) + b"\n")
            if len(lines) >= LINES_KEPT:
                self._write(group)
        self.events += len(events)

    def parts(self, group: str) -> Sequence[tuple[int, int]]:
        """Return where all lines about a key or a family stand in the file: offset and size in bytes."""
        self._write(group)
        return self._parts.get(group, ())

    def close(self) -> None:
        """Write nothing more."""
        self._file.close()

    def _write(self, group: str) -> None:
        data = b"".join(self._lines.pop(group, ()))
        if data:
            self._file.write(data)
            self._file.flush()
            self._parts[group].append((self._offset, len(data)))
            self._offset += len(data)


@attrs.define
class Watchers:
    """All watchers of a run. `run` until cancelled."""

    target: Target
    """Whom they ask."""
    file: StreamFile
    """Takes what they are told."""
    random: Random
    """Seeds what each of them draws."""
    now: Callable[[], float]
    """The clock of the run."""
    on_nonsense: Callable[[str], None]
    """Is told of a line that can't be."""
    resumed: int = 0
    """How often a watch went on where it stood, over another connection."""
    lost: int = 0
    """How often one was lost, as its reader was slow."""
    gaps: int = 0
    """How often a server had forgotten what came next."""
    orders: list[StreamOrder] = attrs.field(factory=list)
    moved: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot)
    """Here waits who wants to know how far they are."""

    async def run(self, *, task_status: trio.TaskStatus[bool] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch. Starts with whether the server has watches, as soon as all have begun."""
        watchers = [
            _Watcher(number, self.file.prefix + text, self, Random(self.random.getrandbits(64)))
            for number, text in enumerate(TEXTS)
        ]
        self.orders = [each.order for each in watchers]
        try:
            async with trio.open_nursery() as nursery:
                for watcher in watchers:
                    nursery.start_soon(watcher.run)
                with trio.move_on_after(BEGIN_S) as scope:
                    for watcher in watchers:
                        await watcher.has_begun.wait()
                if scope.cancelled_caught:
                    self.on_nonsense(f"no watch began within {BEGIN_S:g} s")
                task_status.started(True)
        except* UnknownWatchError:
            self.orders = []
            task_status.started(False)

    async def wait_told(self, revision: int, within_s: float) -> None:
        """Wait until all were told up to a revision; it is a violation if that takes longer."""
        with trio.move_on_after(within_s):
            while any((order.position or 0) < revision for order in self.orders):
                await self.moved.park()
            return
        places = ", ".join(str(order.position) for order in self.orders)
        self.on_nonsense(
            f"{within_s:g} s after all was whole watches stand at {places}, and not at {revision}"
        )

    def told_of(self, group: str) -> tuple[Sequence[tuple[int, int]], Sequence[Span]]:
        """Return where it stands what was told of a key or a family, and of which revisions all was told."""
        spans = [
            span
            for text, order in zip(TEXTS, self.orders, strict=False)
            if group.startswith(self.file.prefix + text)
            for span in order.spans
        ]
        return self.file.parts(group), spans

    def figures(self, groups: int) -> dict[str, int]:
        """Return what was watched.

        Args:
            groups: how many keys and families were judged by a watch that was told all of them.

        """
        return {
            "watches": len(self.orders),
            "events": self.file.events,
            "resumed": self.resumed,
            "lost": self.lost,
            "gaps": self.gaps,
            "keys judged by all that was told": groups,
        }


class _Watcher:
    """One watch, over one connection after the other."""

    def __init__(self, number: int, prefix: str, owner: Watchers, random: Random) -> None:
        self.order = StreamOrder(number)
        self.has_begun = trio.Event()
        self._number = number
        self._prefix = prefix
        self._owner = owner
        self._random = random
        self._is_slow = number == 1
        self._first: int | None = None
        """From where on it asks next; None: for what comes next."""
        self._ids = 0
        self._slow_at = self._draw_at(SLOW_EVERY_S)

    async def run(self) -> None:
        while True:
            stream = await self._connect()
            try:
                while True:
                    await self._watch(stream)
            except (*GONE_ERRORS, trio.TooSlowError):
                self._owner.resumed += self._first is not None
            except Violation as violation:
                self._owner.on_nonsense(str(violation))
                return
            finally:
                stream.close()
            await trio.sleep(RETRY_S)

    async def _connect(self) -> LineStream:
        while True:
            with trio.move_on_after(CONNECT_S):
                try:
                    return await connect(*self._random.choice(self._owner.target.addresses))
                except OSError:
                    pass  # it is down, which is what a run of chaos is made of
            await trio.sleep(RETRY_S)

    async def _watch(self, stream: LineStream) -> None:
        """Begin a watch, and follow it to its end."""
        self._ids += 1
        asked = {
            "op": "watch",
            "prefix": self._prefix,
            "id": self._ids,
            "progress": self._random.choice(PROGRESS_S),
        }
        await stream.send(
            msgspec.json.encode(asked | ({} if self._first is None else {"from": self._first})) + b"\n"
        )
        reply = await self._receive(stream)
        if read(reply, "id") != self._ids:
            raise Violation(f"watch {self._number} was begun as {asked}, and answered with {_words(reply)}")
        if read(reply, "status") != "ok":
            await self._on_refused(reply)
            return
        self.order.begun(read(reply, "revision"), self._first, self._owner.now())
        self._first = (self.order.position or 0) + 1
        self.has_begun.set()
        leaves_at = self._draw_at(STAYS_S)
        while trio.current_time() < leaves_at:
            if self._is_slow and trio.current_time() > self._slow_at:
                await trio.sleep(self._random.uniform(0.0, SLOW_MAX_S))
                self._slow_at = self._draw_at(SLOW_EVERY_S)
            if self._take(await self._receive(stream)):
                return
        await self._unwatch(stream)

    async def _on_refused(self, reply: Members) -> None:
        code = read(reply, "error")
        if code == "compacted":
            self._owner.gaps += 1
            self._first = read(reply, "revision")
            self.order.jumped(self._first, self._owner.now())
        elif code in ("unavailable", "overloaded"):
            await trio.sleep(RETRY_S)
        elif code == "bad_request" and not self.has_begun.is_set():
            raise UnknownWatchError
        else:
            raise Violation(
                f"watch {self._number} asked for {self._first} on, and was answered with {_words(reply)}"
            )

    async def _unwatch(self, stream: LineStream) -> None:
        """End the watch; nothing of it comes behind the reply."""
        await stream.send(b'{"op": "unwatch", "id": %d}\n' % self._ids)
        while "status" not in (line := await self._receive(stream)):
            if self._take(line):
                # It was lost before it was ended: then there is nothing to end.
                line = await self._receive(stream)
                break
        if read(line, "id") != self._ids:
            raise Violation(f"watch {self._number} was ended, and answered with {_words(line)}")

    def _take(self, line: Members) -> bool:
        """Take a line of the watch; return whether it is the last one."""
        order, revision = self.order, read(line, "revision")
        if read(line, "watch") != self._ids or not isinstance(revision, int):
            raise Violation(f"watch {self._number} was told {_words(line)}")
        if read(line, "event") == "lost":
            self._owner.lost += 1
            order.lost(revision)
        else:
            events = read_list(line, "events")
            order.told(revision, is_progress=not events)
            keys = [read(event, "key") for event in events]
            if keys != sorted(set(keys)) or not all(key.startswith(self._prefix) for key in keys):
                raise Violation(f"watch {self._number} of {self._prefix!r} was told {_words(line)}")
            self._owner.file.told(self._number, revision, events)
        self._first = (order.position or 0) + 1
        self._owner.moved.unpark_all()
        return "event" in line

    async def _receive(self, stream: LineStream) -> Members:
        with trio.fail_after(SILENCE_S):
            text = await stream.receive_line()
        if text is None:
            raise trio.BrokenResourceError
        try:
            line = decode_members(text)
        except msgspec.DecodeError as error:
            raise Violation(f"watch {self._number} was told {text!r}, which is no JSON object") from error
        if "close" in line:
            raise trio.BrokenResourceError
        return line

    def _draw_at(self, about_s: float) -> float:
        return trio.current_time() + self._random.expovariate(1 / about_s)


def _words(line: Members) -> str:
    return msgspec.json.encode(line).decode()
