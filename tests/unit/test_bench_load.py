"""Claims about the load of `trio-kv bench`, in virtual time: when it sends, what a latency is, what it counts."""

import itertools
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from trio_kv.cli.bench import load as load_module
from trio_kv.cli.bench.answers import Answers
from trio_kv.cli.bench.connection import Connection
from trio_kv.cli.bench.figures import Figures
from trio_kv.cli.bench.load import Load
from trio_kv.cli.bench.ready import READABLE, WRITABLE
from trio_kv.cli.bench.workload import Batch
from trio_kv.client.errors import NotConnectedError

MS = 1_000_000
SET = b'{"key": "bench:0000001", "value": "bench:0000001.1.xx"}\n'
OK = SET.replace(b"}", b', "status": "ok"}')
OVERLOADED = b'{"key": null, "value": null, "status": "error", "error": "overloaded", "message": "m"}\n'


class World:
    """A clock, and a server: `answer` says when it answers what is sent at a time, and with what."""

    def __init__(self, answer: Callable[[int], tuple[int, bytes]]) -> None:
        self.now_ns = 1_000_000 * MS
        self.begin_ns = self.now_ns
        self.answer = answer
        self.is_listening = True
        self.sent_ns: list[int] = []
        self.made: dict[int, FakeConnection] = {}
        self.connections: dict[int, FakeConnection] = {}
        """Those that are watched."""
        self.numbers = itertools.count(100)

    def clock(self) -> int:
        return self.now_ns

    def wait(self, wait_ns: int) -> list[tuple[int, int]]:
        """Go on to what happens next."""
        known = self.connections.values()
        happens = [
            each.events[0][0] if each.is_open else self.now_ns
            for each in known
            if each.events or not each.is_open
        ]
        self.now_ns = min([self.now_ns + max(wait_ns, 1), *(max(each, self.now_ns) for each in happens)])
        return [
            (number, READABLE if each.is_open else WRITABLE)
            for number, each in self.connections.items()
            if not each.is_open or (each.events and each.events[0][0] <= self.now_ns)
        ]

    def watch(self, number: int, events: int) -> None:
        assert events == WRITABLE
        self.connections[number] = self.made[number]

    def change(self, number: int, events: int) -> None:
        assert number in self.connections
        assert events == READABLE

    def forget(self, number: int) -> None:
        del self.connections[number]

    def close(self) -> None:
        pass


class FakeConnection(Connection):
    """Of a world."""

    world: World
    __slots__ = ("events", "number")

    def __init__(self, family: int, peer: tuple[str, int]) -> None:
        super().__init__(family, peer)
        self._socket.close()
        self.reset()

    def reset(self) -> None:
        self.number = next(self.world.numbers)
        self.world.made[self.number] = self
        self.events = deque[tuple[int, bytes]]()
        self.recv = self.take
        self.send_some = self.put

    def fileno(self) -> int:
        return self.number

    def start(self) -> None:
        assert self.number in self.world.connections

    def finish_start(self) -> None:
        if not self.world.is_listening:
            raise ConnectionRefusedError(111, "Connection refused")
        self.is_open = True

    def close(self) -> None:
        super().close()
        self._socket.close()
        self.reset()

    def put(self, data: Any, _flags: int = 0) -> int:
        self.world.sent_ns.append(self.world.now_ns - self.world.begin_ns)
        at_ns, text = self.world.answer(self.world.now_ns - self.world.begin_ns)
        self.events.append((at_ns + self.world.begin_ns, text))
        return len(data)

    def take(self, _size: int, _flags: int = 0) -> bytes:
        return self.events.popleft()[1]


def run(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    *,
    seconds: float,
    rate: float = 0.0,
    connections: int = 1,
    load: Load | None = None,
) -> Figures:
    if load is None:
        load = connect(world, monkeypatch, connections)
    world.begin_ns = world.now_ns
    return load.run(itertools.cycle([Batch(SET, 1, 0)]), seconds=seconds, rate=rate)


def connect(world: World, monkeypatch: pytest.MonkeyPatch, connections: int = 1) -> Load:
    monkeypatch.setattr(FakeConnection, "world", world, raising=False)
    monkeypatch.setattr(load_module, "Connection", FakeConnection)
    monkeypatch.setattr(load_module, "open_readiness", lambda: world)
    load = Load(socket.AF_INET, ("127.0.0.1", 1), connections, Answers(), world.clock)
    load.connect()
    return load


def stalls(begin_ns: int, end_ns: int) -> Callable[[int], tuple[int, bytes]]:
    """Answer within 1 ms, but nothing at all for a while."""
    return lambda sent_ns: (end_ns if begin_ns <= sent_ns + MS < end_ns else sent_ns + MS, OK)


def test_a_closed_loop_sends_when_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One batch is under way on a connection, and the latency is from sending to the answer."""
    world = World(lambda sent_ns: (sent_ns + 2 * MS, OK))
    figures = run(world, monkeypatch, seconds=1)
    assert world.sent_ns[:4] == [0, 2 * MS, 4 * MS, 6 * MS]
    assert figures.sets.done == 500
    assert figures.sets.latencies.percentile_ms(50) == pytest.approx(2, rel=0.004)


def test_an_open_loop_sends_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 10 ms at 100 a second, whatever an answer takes."""
    world = World(lambda sent_ns: (sent_ns + 25 * MS, OK))
    figures = run(world, monkeypatch, seconds=1, rate=100, connections=4)
    assert world.sent_ns == [10 * MS * n for n in range(100)]
    assert figures.sets.latencies.percentile_ms(100) == pytest.approx(25, rel=0.004)
    assert figures.not_sent == 0


def test_a_stall_is_charged_for_all_that_were_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stands still for a second has kept waiting whoever would have come in it, not one request."""
    world = World(stalls(1000 * MS, 2000 * MS))
    figures = run(world, monkeypatch, seconds=4, rate=100)
    latencies = figures.sets.latencies
    slow = sum(count for low, _, count in latencies.spans() if low >= 500)
    assert latencies.count == 400
    assert 48 <= slow <= 56
    assert latencies.percentile_ms(100) == pytest.approx(1000, rel=0.01)
    assert figures.longest_gap_ns == pytest.approx(1000 * MS, rel=0.02)


def test_a_closed_loop_sees_a_stall_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is why there is an open one; the longest gap tells of it all the same."""
    world = World(stalls(1000 * MS, 2000 * MS))
    figures = run(world, monkeypatch, seconds=4)
    assert sum(count for low, _, count in figures.sets.latencies.spans() if low >= 500) == 1
    assert figures.longest_gap_ns == pytest.approx(1000 * MS, rel=0.02)


def test_what_was_due_and_not_sent_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does ten a second is not sent a hundred."""
    world = World(lambda sent_ns: (sent_ns + 100 * MS, OK))
    figures = run(world, monkeypatch, seconds=2, rate=100)
    assert figures.sets.latencies.count == 20
    assert figures.not_sent == pytest.approx(180, abs=1)


def test_what_is_under_way_at_the_end_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slowest answers are not left out; but they don't count as done in time."""
    world = World(lambda sent_ns: (sent_ns + 700 * MS, OK))
    figures = run(world, monkeypatch, seconds=1)
    assert (figures.sets.done, figures.sets.latencies.count) == (1, 2)
    assert figures.seconds == pytest.approx(1, rel=0.01)


def test_what_is_never_answered_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """After 5 s it has no latency, and is no speed."""
    world = World(lambda sent_ns: (sent_ns + 60_000 * MS, OK))
    figures = run(world, monkeypatch, seconds=1, connections=3)
    assert figures.sets.errors == {"no answer": 3}
    assert figures.answered == 0


def test_refusals_are_counted_and_are_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other answer is `overloaded`: half of all count, the others by their code."""
    answers = itertools.cycle([OK, OVERLOADED])
    world = World(lambda sent_ns: (sent_ns + 10 * MS, next(answers)))
    figures = run(world, monkeypatch, seconds=1)
    assert figures.sets.done == pytest.approx(50, abs=1)
    assert figures.sets.errors["overloaded"] == pytest.approx(50, abs=1)
    assert not figures.lost


def test_a_connection_that_is_lost_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tenth answer is the end of the connection: its request is an error, and after a rest the load goes on."""
    count = itertools.count(1)
    world = World(lambda sent_ns: (sent_ns + 10 * MS, OK if next(count) % 10 else b""))
    figures = run(world, monkeypatch, seconds=2)
    assert figures.lost["closed"] == figures.sets.errors["closed"] == pytest.approx(10, abs=1)
    assert figures.sets.done == pytest.approx(90, abs=3)


def test_the_word_before_a_close_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """`{"close": "shutdown"}` in the place of an answer: the request has none, and nothing more is sent there."""
    count = itertools.count(1)
    world = World(lambda sent_ns: (sent_ns + 10 * MS, OK if next(count) % 10 else b'{"close": "shutdown"}\n'))
    figures = run(world, monkeypatch, seconds=2)
    assert figures.lost["closed"] == figures.sets.errors["closed"] == pytest.approx(10, abs=1)


def test_a_wrong_answer_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes next could belong to any request. It is counted, and no speed."""
    world = World(lambda sent_ns: (sent_ns + 10 * MS, OK + OK))
    load = connect(world, monkeypatch)
    figures = run(world, monkeypatch, seconds=0.5, load=load)
    assert figures.answered == 0
    assert figures.sets.errors["wrong"] == load.answers.wrong == figures.lost["wrong"] > 1


def test_answers_in_pieces_are_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """However they are cut."""
    world = World(lambda sent_ns: (sent_ns + MS, OK))
    load = connect(world, monkeypatch)

    def put(self: FakeConnection, data: Any, _flags: int = 0) -> int:
        for place in range(0, len(OK), 7):
            self.events.append((world.now_ns + (place + 1) * MS, OK[place : place + 7]))
        return len(data)

    for connection in world.connections.values():
        connection.send_some = put.__get__(connection)
    figures = run(world, monkeypatch, seconds=1, load=load)
    assert figures.sets.done > 5
    assert not load.answers.wrong
    assert not figures.lost


def test_nobody_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not after a run without answers."""
    world = World(lambda sent_ns: (sent_ns, OK))
    world.is_listening = False
    with pytest.raises(NotConnectedError, match="0 of 2 connections could be opened: connection refused"):
        connect(world, monkeypatch, 2)


def test_a_server_that_is_gone_for_a_while_is_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused connections are told, and tried again; the gap shows how long it was away."""
    world = World(lambda sent_ns: (sent_ns + 10 * MS, OK))
    load = connect(world, monkeypatch, 2)

    def answer(sent_ns: int) -> tuple[int, bytes]:
        world.is_listening = not 1000 * MS <= world.now_ns - world.begin_ns < 2000 * MS
        return sent_ns + 10 * MS, OK if world.is_listening else b""

    world.answer = answer
    wait = world.wait

    def waiting(wait_ns: int) -> list[tuple[int, int]]:
        world.is_listening = not 1000 * MS <= world.now_ns - world.begin_ns < 2000 * MS
        return wait(wait_ns)

    monkeypatch.setattr(world, "wait", waiting)
    figures = run(world, monkeypatch, seconds=4, load=load)
    assert figures.lost["closed"] == 2
    assert figures.lost["connection refused"] >= 10
    assert figures.sets.done == pytest.approx(600, abs=30)
    assert figures.longest_gap_ns == pytest.approx(1000 * MS, abs=150 * MS)


def test_stop_ends_it_with_the_figures_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: what is under way is not waited for, and no phase begins after it."""
    world = World(lambda sent_ns: (sent_ns + 10 * MS, OK))
    load = connect(world, monkeypatch)

    def answer(sent_ns: int) -> tuple[int, bytes]:
        if sent_ns >= 500 * MS:
            load.stop()
        return sent_ns + 10 * MS, OK

    world.answer = answer
    figures = run(world, monkeypatch, seconds=60, load=load)
    assert figures.sets.done == 50
    assert figures.seconds == pytest.approx(0.5, abs=0.02)
    assert not figures.sets.errors
    assert run(world, monkeypatch, seconds=60, load=load).answered == 0
