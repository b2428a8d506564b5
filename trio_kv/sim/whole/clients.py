"""Clients of the door: each speaks the protocol over connections of its own, and writes down what it was told.

They know the protocol from its description alone and read replies with a plain JSON reader, so that what the house
gets wrong both ways is not wrong here as well. What is true of one connection is judged at once: replies come in the
order of the requests, each within its time-out; each sees the writes before it and none behind it, and a chain of
requests for a key that nobody else uses sees nothing but itself; stale reads never go back. What is true of all clients
together is for the history.
"""

import contextlib
from random import Random

import trio

from trio_kv.check.violation import Violation
from trio_kv.proxy.stream import ConnectionLostError
from trio_kv.sim.families import FamilyDraw
from trio_kv.sim.numbering import NUMBERED, repeat
from trio_kv.sim.whole.asked import Asked
from trio_kv.sim.whole.heard import Heard
from trio_kv.sim.whole.host import WholeHost
from trio_kv.sim.whole.sockets import Endpoint

PORT = 3001
RETRY_S = 0.05
"""A client that finds no open door, or was told to come back later, waits so long."""
GRACE_S = 3.0
"""What comes later than its time-out and this much is not answered in time."""
_BURST_MAX = 6
FAMILY = 0.4
"""Share of the requests that are about a family of keys."""


class Client:
    """One client. `run` it; `stop` lets it end what it has begun and leave.

    Args:
        number: its number; those of its requests in the history follow from it.
        random: draws what it does.
        host: the world.

    """

    def __init__(self, number: int, random: Random, host: WholeHost) -> None:
        """Have done nothing; see the class."""
        self.number = number
        self.is_stopping = False
        self.reads_again_at = 0.0
        """It is slow to read until then."""
        self._random = random
        self._host = host
        self._end: Endpoint | None = None
        self._received = b""
        self._heard = Heard(number, host)
        self._family = FamilyDraw(random, Random(f"{host.plan.seed}/{number}/ttls"), self._next_text)
        self._bursts = Random(f"{host.plan.seed}/{number}/bursts")
        """Of its own: how alike the requests of a burst are changes nothing else of a run."""
        self._sessions = Random(f"{host.plan.seed}/{number}/sessions")
        """Of its own, too."""
        self._values = 0
        self._ids = 0
        self._under_way: list[Asked] = []
        self._left = trio.Event()

    async def run(self) -> None:
        """Ask one burst after the other, over one connection after the other."""
        plan, random = self._host.plan, self._random
        try:
            while True:
                await trio.sleep(random.expovariate(1 / plan.pause_between_s))
                if self.is_stopping:
                    break
                if self._end is None and not self._connect():
                    await trio.sleep(RETRY_S)
                    continue
                try:
                    await self._maybe_open_session()
                    await self._ask(self._draw_burst())
                except ConnectionLostError:
                    self._lose()
        finally:
            self._leave()
            self._heard.end()
            self._left.set()

    def stop(self) -> None:
        """Begin nothing new."""
        self.is_stopping = True

    async def wait_left(self) -> None:
        """Wait until it is done."""
        await self._left.wait()

    def disconnect(self, *, is_half_line: bool) -> None:
        """Drop the connection in the midst of whatever is under way, perhaps behind half a line."""
        end = self._end
        if end is None:
            return
        if self._under_way:
            self._host.coverage.reach("client left before its answer")
        if is_half_line:
            self._host.coverage.reach("connection ended behind half a line")
            with contextlib.suppress(ConnectionLostError):
                end.send_nowait(b'{"op": "set", "key": "k0", "val')
        end.close()
        end.wake()

    def read_nothing(self, for_s: float) -> None:
        """Take no replies for a while."""
        self.reads_again_at = trio.current_time() + for_s
        if self._under_way:
            self._host.coverage.reach("reader was slow")

    async def probe(self, op: str) -> bool:
        """Ask one thing of the healed cluster; return whether it worked."""
        if self._end is None and not self._connect():
            await trio.sleep(RETRY_S)
            return False
        asked = Asked(op, "k0", timeout_s=1.0, id=self._next_id())
        if op == "set":
            asked.value = self._next_value()
        try:
            await self._ask([asked])
        except ConnectionLostError:
            self._lose()
        return asked.outcome in ("ok", "missing")

    # What to ask

    def _draw_burst(self) -> list[Asked]:
        """Return what to ask at once: what is owed an answer first, and some of that twice."""
        burst = [*self._heard.numbering.owed[:_BURST_MAX], *self._draw_new()]
        return [*burst, *repeat(burst, self._sessions)]

    def _draw_new(self) -> list[Asked]:
        random, plan = self._random, self._host.plan
        if plan.lanes == 1 or random.random() < 0.3:
            return [self._draw(f"k{random.randrange(plan.keys)}")]
        count = random.randint(2, _BURST_MAX)
        if random.random() < 0.3:
            burst = [self._draw(self._heard.own_key) for _ in range(count)]
        else:
            burst = [self._draw(f"k{random.randrange(plan.keys)}") for _ in range(count)]
        if self._bursts.random() < 0.8:
            # With one time-out reads and writes can be one run.
            for asked in burst:
                asked.timeout_s = burst[0].timeout_s
        return burst

    def _draw(self, key: str) -> Asked:
        random, plan = self._random, self._host.plan
        if key != self._heard.own_key and random.random() < FAMILY:
            return self._draw_of_family()
        op = "get" if random.random() < plan.read_share else random.choice(("set", "set", "delete", "cas"))
        asked = Asked(op, key, timeout_s=random.choice((0.2, 1.0, 3.0)))
        if random.random() < 0.5:
            asked.id = self._next_id()
        if op == "get":
            asked.is_stale = random.random() < 0.2
        elif op != "delete":
            asked.value = self._next_value()
            if op == "cas":
                asked.expected = self._heard.known.get(key)
        return asked

    def _draw_of_family(self) -> Asked:
        random = self._random
        members = self._family.request(self._host.family)
        asked = Asked(members["op"], members=members, timeout_s=random.choice((0.2, 1.0, 3.0)))
        numbering = self._heard.numbering
        if asked.is_write and numbering.session is not None and self._sessions.random() < NUMBERED:
            asked.numbered, place = numbering.place()
            asked.members = {**members, **place}
        if random.random() < 0.5:
            asked.id = self._next_id()
        asked.is_stale = not asked.is_write and random.random() < 0.2
        return asked

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    def _next_text(self) -> str:
        self._values += 1
        return f"c{self.number}-{self._values}"

    def _next_value(self) -> bytes:
        self._values += 1
        # Now and then a value of several sectors: only such a write can be torn.
        fill = "x" * self._random.choice((0, 0, 0, 700, 2500))
        return f'"c{self.number}-{self._values}{fill}"'.encode()

    # Asking

    def _connect(self) -> bool:
        try:
            self._end = self._host.network.connect(PORT)
        except ConnectionRefusedError:
            return False
        self._received = b""
        self._heard.begin()
        return True

    async def _maybe_open_session(self) -> None:
        """Open a session, if there is none and one is wanted.

        Raises:
            ConnectionLostError: the connection ended before.
            Violation: the reply is wrong in itself, or does not come.

        """
        if self._heard.numbering.session is not None or self._sessions.random() < 0.5:
            return
        line = b'{"op": "session", "timeout": 1.0}\n'
        self._host.line(self.number, ">", line)
        with trio.move_on_after(1.0 + GRACE_S) as patience:
            await self._send(line)
            reply = self._heard.read(await self._receive_line(patience))
            if "close" in reply:
                raise ConnectionLostError("the door said good-bye")
            self._heard.told_of_session(reply)
            return
        raise Violation(f"c{self.number}: no answer within {1.0 + GRACE_S} s to {line!r}")

    def _leave(self) -> None:
        if self._end is not None:
            self._end.close()
            self._end = None

    def _lose(self) -> None:
        """Note that what was not answered never will be."""
        self._leave()
        for asked in self._under_way:
            if not asked.outcome:
                self._heard.lost(asked)
        self._under_way = []
        self._heard.renew_own()

    async def _ask(self, burst: list[Asked]) -> None:
        """Send all lines of a burst, and take the replies.

        Raises:
            ConnectionLostError: the connection ended before.
            Violation: a reply is wrong in itself, or does not come.

        """
        random, host = self._random, self._host
        lines = [asked.encode(random) for asked in burst]
        for lane, (asked, line) in enumerate(zip(burst, lines, strict=True)):
            host.line(self.number, ">", line)
            if asked not in burst[:lane] and (asked.numbered is None or not asked.numbered.attempts):
                asked.lane, asked.call_s = lane, host.stamp()
            self._heard.asked(asked)
        self._under_way = list(burst)
        if len(burst) > 1:
            host.coverage.reach("requests pipelined")
        due_s = sum(asked.timeout_s for asked in burst) + GRACE_S
        patience_s = due_s if random.random() < 0.95 else random.uniform(0.0, 1.0)
        with trio.move_on_after(patience_s) as patience:
            await self._send(b"".join(lines))
            for asked in burst:
                await self._take_reply(asked, patience)
        if patience.cancelled_caught:
            if patience_s == due_s:
                raise Violation(f"c{self.number}: no answer within {due_s} s to {self._under_way[0]}")
            host.coverage.reach("client lost its patience")
            raise ConnectionLostError("the client left")
        self._under_way = []
        self._heard.end_chain(burst)

    async def _send(self, data: bytes) -> None:
        random = self._random
        if random.random() < 0.1:
            cut = random.randrange(len(data))
            await self._send_all(data[:cut])
            await trio.sleep(random.uniform(0.0, 0.05))
            data = data[cut:]
        await self._send_all(data)

    async def _send_all(self, data: bytes) -> None:
        end = self._end
        assert end is not None
        while data:
            data = data[end.send_nowait(data) :]
            if data:
                # Who sends and never reads waits for a door that waits for him.
                await end.wait(lambda: end.is_writable or end.is_readable)
                self._receive(end)

    async def _take_reply(self, asked: Asked, patience: trio.CancelScope) -> None:
        line = await self._receive_line(patience)
        returned_s = self._host.stamp()
        reply = self._heard.read(line)
        if "close" in reply:
            self._host.coverage.reach("door said good-bye")
            raise ConnectionLostError("the door said good-bye")
        self._heard.told(asked, line, reply, returned_s)
        self._under_way.remove(asked)

    async def _receive_line(self, patience: trio.CancelScope) -> bytes:
        end = self._end
        assert end is not None
        while b"\n" not in self._received:
            while trio.current_time() < self.reads_again_at:
                # Its own slowness is nobody's fault.
                patience.deadline += self.reads_again_at - trio.current_time()
                await trio.sleep_until(self.reads_again_at)
            await end.wait_readable()
            self._receive(end)
        line, _, self._received = self._received.partition(b"\n")
        self._host.line(self.number, "<", line)
        return line

    def _receive(self, end: Endpoint) -> None:
        chunk = end.receive_nowait()
        if chunk == b"":
            raise ConnectionLostError("the door closed it")
        self._received += chunk or b""
