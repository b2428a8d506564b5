"""The client that repeats its writes: one effect each, whatever is lost on the way."""

from typing import Any

import msgspec
import pytest

from trio_kv.client import numbering
from trio_kv.client.errors import NotConnectedError, OutcomeUnknownError
from trio_kv.client.numbering import Numbering
from trio_kv.wire.client_sessions import Numbered, OpenOrRenew
from trio_kv.wire.operations import Request, Set
from trio_kv.wire.replies import ReplyLine, parse_reply

OPENED = '{"session":"7-00c0ffee00c0ffee","timeout":1000,"status":"ok"}'
DONE = '{"key":"k","value":1,"status":"ok"}'


def error(code: str) -> str:
    """Return an error line."""
    return f'{{"key":"k","value":null,"status":"error","error":"{code}","message":"..."}}'


class Store:
    """Says what it is told to say, and keeps what it is asked."""

    def __init__(self, *script: str | Exception) -> None:
        self.script = list(script)
        self.asked: list[Any] = []

    def exchange(self, request: Request) -> ReplyLine:
        """Answer, or break."""
        self.asked.append(request.operation)
        said = self.script.pop(0)
        if isinstance(said, Exception):
            raise said
        return parse_reply(said.encode())


class Clock:
    """Goes on by itself only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now_s

    def sleep(self, for_s: float) -> None:
        """Let time go by."""
        self.now_s += for_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return the clock that clients go by."""
    clock = Clock()
    monkeypatch.setattr(numbering, "time", clock)
    return clock


WRITE = Request(Set("k", msgspec.Raw(b"1")))


def test_C1_a_write_without_an_answer_is_sent_again_under_its_seq(clock: Clock) -> None:
    """Over a new connection, after a time-out, and while no leader is there; then it has its answer (scenario C1)."""
    lost = OutcomeUnknownError("the connection broke")
    store = Store(OPENED, lost, NotConnectedError("no server"), error("timeout"), error("unavailable"), DONE)
    assert Numbering(store.exchange, 5.0).ask(WRITE).code == "ok"
    opening, *writes = store.asked
    assert isinstance(opening, OpenOrRenew)
    assert {(each.session, each.seq, each.done) for each in writes} == {("7-00c0ffee00c0ffee", 1, 1)}
    assert len(writes) == 5
    assert clock.now_s > 100.0


def test_each_write_has_a_seq_of_its_own(clock: Clock) -> None:
    """And says that all before it have their answers; a refusal is one."""
    del clock
    store = Store(OPENED, DONE, error("conflict"), DONE)
    client = Numbering(store.exchange, 5.0)
    assert [client.ask(WRITE).code for _ in range(3)] == ["ok", "conflict", "ok"]
    assert [(each.seq, each.done) for each in store.asked[1:]] == [(1, 1), (2, 2), (3, 3)]


def test_what_may_have_taken_effect_is_not_said_to_have_failed(clock: Clock) -> None:
    """A definite error speaks of its attempt alone; a store that can't be reached says nothing of earlier ones.

    Another server may have other limits, as `--value-bytes-max`.
    """
    del clock
    refusals: list[str | Exception] = [
        error(code) for code in ("unavailable", "overloaded", "too_large", "bad_request")
    ]
    for last in (*refusals, NotConnectedError("no server")):
        store = Store(OPENED, error("timeout"), *[last] * 20)
        with pytest.raises(OutcomeUnknownError, match="the write was sent, then: "):
            Numbering(store.exchange, 5.0).ask(WRITE)


@pytest.mark.parametrize("last", [error("unavailable"), NotConnectedError("no server")])
def test_what_never_went_out_is_refused(clock: Clock, last: str | Exception) -> None:
    """No attempt was taken: nothing happened, and that is said."""
    del clock
    client = Numbering(Store(OPENED, *[last] * 20).exchange, 5.0)
    if isinstance(last, str):
        assert client.ask(WRITE).code == "unavailable"
    else:
        with pytest.raises(NotConnectedError):
            client.ask(WRITE)


def test_a_session_that_may_be_forgotten_is_not_used(clock: Clock) -> None:
    """After half of its time-out without a write there is another one, for what is sent under a lost one is unknown."""
    store = Store(OPENED, DONE, DONE, OPENED, DONE, error("session_expired"), OPENED, DONE)
    client = Numbering(store.exchange, 5.0)
    client.ask(WRITE)
    clock.now_s += 499.0
    client.ask(WRITE)
    clock.now_s += 501.0
    client.ask(WRITE)
    assert client.ask(WRITE).code == "session_expired"
    assert client.ask(WRITE).code == "ok"
    kinds = [type(each) for each in store.asked]
    assert kinds == [OpenOrRenew, Numbered, Numbered, OpenOrRenew, Numbered, Numbered, OpenOrRenew, Numbered]


def test_a_forked_process_opens_a_session_of_its_own(clock: Clock) -> None:
    """Else parent and child would give the same seqs to different writes."""
    del clock
    store = Store(OPENED, DONE, OPENED, DONE)
    client = Numbering(store.exchange, 5.0)
    client.ask(WRITE)
    client.forget()
    client.ask(WRITE)
    assert isinstance(store.asked[2], OpenOrRenew)
    assert store.asked[3].seq == 1
