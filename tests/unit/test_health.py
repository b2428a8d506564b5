"""Whether a server says of itself what it may: well, not well, or unknown."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.looks import door, look, member, running, server
from trio_kv.control.health import LIVE, READY, answer
from trio_kv.control.http import Request
from trio_kv.control.lag import LoopLag
from trio_kv.control.response import Response
from trio_kv.wire.node_status import State


async def ask(cluster: Any, checks: Any = READY, door: Any = None, **query: list[str]) -> Response:
    return await answer(checks, server(cluster, door), Request(query, {}))


async def lines(cluster: Any, door: Any = None) -> tuple[int, dict[str, str]]:
    """Return the status and what is said of each check."""
    response = await ask(cluster, door=door, verbose=[""])
    told = response.body.decode().splitlines()
    assert told[-1] == ("ok" if response.status == 200 else "not ok")
    return response.status, {line[3:].partition(" ")[0]: line for line in told[:-1]}


async def test_a_server_that_is_well() -> None:
    """Each check is named and ok; without `verbose` there is one word."""
    status, told = await lines(look())
    assert status == 200
    assert list(told) == list(READY)
    assert told["leader"] == "[+]leader ok: node 1 leads term 3"
    assert told["quorum"] == "[+]quorum ok: of 3 nodes, 3 run"
    assert told["disk"] == "[+]disk ok: of 3 nodes, 3 take writes"
    assert (await ask(look())).body == b"ok\n"


CASES: list[tuple[str, Callable[[], Any], int, str]] = [
    (
        "leader",
        lambda: look(running(1, role="follower")),
        503,
        "[-]leader failed: no node leads",
    ),
    (
        "leader",
        lambda: look(member(1, running(1), State.PAUSED)),
        503,
        "[-]leader failed: no node leads; paused: node 1",
    ),
    (
        "leader",
        lambda: look(running(1, has_term_committed=False)),
        503,
        "[?]leader unknown: node 1 leads term 3, and nothing of that term is committed yet",
    ),
    (
        "leader",
        lambda: look(running(1, write_waits_s=2.5)),
        503,
        "[?]leader unknown: node 1 leads term 3, and its disk has not answered for 2.5 s",
    ),
    (
        "leader",
        lambda: look(running(1), running(2, role="leader", term=4, has_term_committed=True)),
        200,
        "[+]leader ok: node 2 leads term 4",
    ),
    (
        "quorum",
        lambda: look(running(1), member(2, None, State.DAMAGED)),
        200,
        "[+]quorum ok: of 3 nodes, 2 run (node 2 is damaged)",
    ),
    (
        "quorum",
        lambda: look(running(1), member(2, None, State.DAMAGED), member(3, None, State.CRASHED)),
        503,
        "[-]quorum failed: of 3 nodes, 1 runs (node 2 is damaged; node 3 is crashed)",
    ),
    (
        "quorum",
        lambda: look(
            running(1), member(2, None, State.STOPPED, is_loading=True), running(3, is_rebuilding=True)
        ),
        503,
        "[?]quorum unknown: of 3 nodes, 1 runs (node 2 is being started; node 3 is being rebuilt)",
    ),
    (
        "disk",
        lambda: look(running(1), running(2, is_disk_full=True)),
        200,
        "[+]disk ok: of 3 nodes, 2 take writes (node 2 has a full disk)",
    ),
    (
        "disk",
        lambda: look(running(1), running(2, is_disk_full=True), running(3, is_disk_full=True)),
        503,
        "[-]disk failed: of 3 nodes, 1 takes writes (node 2 has a full disk; node 3 has a full disk)",
    ),
    (
        "disk",
        lambda: look(running(1), running(2, is_disk_full=True), running(3, write_waits_s=3)),
        503,
        (
            "[?]disk unknown: of 3 nodes, 1 takes writes"
            " (node 2 has a full disk; node 3 has been waiting for its disk for 3.0 s)"
        ),
    ),
]


@pytest.mark.parametrize(("check", "cluster", "status", "line"), CASES)
async def test_what_is_wrong_is_said(check: str, cluster: Callable[[], Any], status: int, line: str) -> None:
    """A check fails, or does not know, for a reason that is told; a minority that is down harms nobody."""
    got, told = await lines(cluster())
    assert told[check] == line
    assert got == status


async def test_a_door_that_stops_is_not_ready() -> None:
    """A load balancer sends no more clients to a server that says goodbye to those it has."""
    status, told = await lines(look(), door(is_stopping=True))
    assert (status, told["door"]) == (503, "[-]door failed: the server stops, and takes no new clients")


async def test_what_failed_is_told_without_being_asked_for() -> None:
    """A probe's log shows why, though it asked for one word."""
    response = await ask(look(running(1, role="follower")))
    assert response.body == b"[-]leader failed: no node leads\nnot ok\n"


async def test_checks_can_be_left_out() -> None:
    """`exclude` leaves a check out, and says so; a name that is none is told."""
    cluster = look(running(1, role="follower"))
    response = await ask(cluster, exclude=["leader", "leadr"])
    assert response.status == 200
    assert (
        response.body
        == b"[ ]leader excluded\nthere is no check 'leadr': there are door, leader, quorum, disk\nok\n"
    )


async def test_a_process_lives_whatever_its_cluster_does() -> None:
    """A cluster without a leader is no reason to kill a process of it."""
    lost = look(member(1, None, State.CRASHED), member(2, None, State.CRASHED))
    response = await ask(lost, LIVE, verbose=[""])
    assert (response.status, response.body) == (200, b"[+]loop ok: it turns\nok\n")


async def test_how_late_the_loop_is_is_told(autojump_clock: object) -> None:
    """The longest of the last delays stands in the detail."""
    lag = LoopLag()
    lag._latest.extend([0.001, 0.25, 0.002])
    seen = SimpleNamespace(lag=lag)
    assert LIVE["loop"](seen).line("loop") == "[+]loop ok: it turns, lately 250 ms late at most"  # type: ignore[arg-type]
