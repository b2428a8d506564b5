"""Bugs of what is seen from outside: who may look, and whether what he sees is true."""

import h11

from tests.mutants.registry import Patch, mutant
from trio_kv.control import health, http, server
from trio_kv.control.head import is_for_websocket
from trio_kv.control.http import Request
from trio_kv.control.response import Response
from trio_kv.control.server import ControlDoor
from trio_kv.meter.histogram import Histogram
from trio_kv.raft.node import Raft
from trio_kv.replica.commit_times import CommitTimes


def door(name: str) -> tuple[str, ...]:
    """Return a test of plain HTTP at the control door."""
    return (f"tests/integration/test_control_http.py::{name}",)


def counted(name: str) -> tuple[str, ...]:
    """Return a test of what is counted."""
    return (f"tests/unit/test_metrics.py::{name}",)


@mutant(
    "seen: Host and Origin are looked at on the WebSocket alone",
    tests=door("test_host_and_origin_are_looked_at_on_each_path"),
)
def _(patch: Patch) -> None:
    real = ControlDoor._judge

    def judge(self: ControlDoor, request: h11.Request) -> Response | None:
        return real(self, request) if is_for_websocket(request) else None

    patch.setattr(ControlDoor, "_judge", judge)


@mutant("seen: any token opens", tests=door("test_elsewhere_it_takes_a_token"))
def _(patch: Patch) -> None:
    real = http._check_token

    async def check_token(request: Request, opens: object) -> Response | None:
        del opens
        return await real(request, lambda _: True)

    patch.setattr(http, "_check_token", check_token)


@mutant(
    "seen: a body that nobody reads cuts its response off",
    tests=door("test_a_body_that_nobody_wants_harms_no_response"),
)
def _(patch: Patch) -> None:
    patch.setattr(server, "LINGER_S", 0.0)


@mutant(
    "seen: what is unknown is taken for well",
    tests=("tests/unit/test_health.py::test_what_is_wrong_is_said",),
)
def _(patch: Patch) -> None:
    patch.setattr(health, "_unknown", health._ok)


@mutant("seen: a run counts as one request", tests=counted("test_requests_are_counted_by_their_operation"))
def _(patch: Patch) -> None:
    real = Histogram.note

    def note(self: Histogram, value: float, count: int = 1) -> None:
        del count
        real(self, value)

    patch.setattr(Histogram, "note", note)


@mutant(
    "seen: entries that another leader committed are timed",
    tests=counted("test_what_a_later_term_commits_is_not_timed"),
)
def _(patch: Patch) -> None:
    real = CommitTimes.note

    def note(self: CommitTimes, now: float, raft: Raft) -> None:
        self._term = self._term and raft.term
        real(self, now, raft)

    patch.setattr(CommitTimes, "note", note)
