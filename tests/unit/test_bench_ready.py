"""Claims about how the load of `trio-kv bench` waits for its sockets, on this system and on one that has only poll."""

import socket
import sys
import time
from collections.abc import Iterator

import pytest

from trio_kv.cli.bench.ready import COARSE_NS, READABLE, WRITABLE, Readiness, open_readiness

MS = 1_000_000


@pytest.fixture(params=[sys.platform, "another"])
def readiness(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Readiness]:
    monkeypatch.setattr(sys, "platform", request.param)
    found = open_readiness()
    yield found
    found.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    first, second = socket.socketpair()
    with first, second:
        yield first, second


@pytest.mark.parametrize("wait_ns", [0, 300_000, 20 * MS, COARSE_NS])
def test_what_is_ready_is_told(
    readiness: Readiness, pair: tuple[socket.socket, socket.socket], wait_ns: int
) -> None:
    """Nothing, then what can be written, then what can be read; and no more once it is forgotten."""
    first, second = pair
    number = first.fileno()
    readiness.watch(number, READABLE)
    assert readiness.wait(wait_ns) == []
    readiness.change(number, WRITABLE)
    assert readiness.wait(wait_ns) == [(number, WRITABLE)]
    second.send(b"x")
    readiness.change(number, READABLE | WRITABLE)
    assert readiness.wait(wait_ns) == [(number, READABLE | WRITABLE)]
    readiness.forget(number)
    assert readiness.wait(wait_ns) == []


def test_a_wait_is_as_long_as_it_was_asked_for(readiness: Readiness) -> None:
    """Never shorter: a load that turned round all the time would take a processor."""
    begin_ns = time.perf_counter_ns()
    assert readiness.wait(5 * MS) == []
    assert time.perf_counter_ns() - begin_ns >= 5 * MS
