"""A session without input or output: what it says does not depend on how the bytes came, and its states are a table."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_kv.gateway.store import Answer
from trio_kv.kv.operations import Get
from trio_kv.kv.operations.operation import Query, WriteOperation
from trio_kv.kv.reply import Reply
from trio_kv.proxy.access import Doorkeeper
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.limits import Limits
from trio_kv.proxy.session import Session
from trio_kv.proxy.states import NEXT_STATES, PAUSE, READ, WRITE, IllegalStateError, State, Step
from trio_kv.wire.replies import CLOSE_OK, CLOSE_SHUTDOWN

LINES = [
    b'{"key":"a","value":1}',
    b'{"key":"a","value":2}\r',
    b'{"key":"b","value":"x","timeout":1}',
    b'{"key":"a"}',
    b'{"key":"b"}',
    b'{"key":"a","consistency":"stale"}',
    b'{"op":"delete","key":"a","id":7}',
    b'{"op":"ping"}',
    b'{"op":"status"}',
    b"nonsense",
    b"",
    b" \t",
    b"x" * 70,
    b"{" + b"y" * 70,
]
SET, GET = LINES[0] + b"\n", LINES[3] + b"\n"


def session(**limits: int) -> Session:
    limits = {"line_bytes_max": 64, "run_requests_max": 3} | limits
    return Session(ProxyConfig(**limits), lambda: {"leader": 1})  # type: ignore[arg-type]


class Driver:
    """Carries the steps of a session out, before a store that is a dictionary."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.values: dict[str, int] = {}
        self.said = b""
        self.runs: list[int] = []
        """How long each run was."""
        self.asked: list[tuple[str, str]] = []
        """Each request that the store got, in order."""

    def receive(self, chunk: bytes) -> None:
        self.carry_out(self.session.receive(chunk))

    def carry_out(self, step: Step | None) -> None:
        while step is not None:
            if isinstance(step, bytes):
                self.said += step
            elif step is not PAUSE:
                self.runs.append(len(self.session.operations))
                step = self.session.take_answer(Answer(self._answer(step), 1, 1))
                continue
            step = self.session.next_step()

    def _answer(self, step: Step) -> list[Reply]:
        run = self.session.operations
        if step is READ:
            assert all(isinstance(query, Query) for query in run)
            self.asked += [("get", query.key) for query in run]
            counts = [self.values.get(query.key, 0) for query in run]
            return [Reply("ok", msgspec.Raw(b"%d" % count), count) for count in counts]
        assert any(isinstance(each, WriteOperation) for each in run)
        assert not self.session.is_stale
        return [self._carry_out(operation) for operation in run]

    def _carry_out(self, operation: Any) -> Reply:
        if isinstance(operation, Get):
            self.asked.append(("get", operation.key))
            count = self.values.get(operation.key, 0)
            return Reply("ok", msgspec.Raw(b"%d" % count), count)
        self.asked.append(("write", operation.key))
        self.values[operation.key] = self.values.get(operation.key, 0) + 1
        return Reply("ok", msgspec.Raw(b"0"), 1)


@given(lines=st.lists(st.sampled_from(LINES), max_size=12), cuts=st.lists(st.integers(0, 400)))
def test_pieces_never_show(lines: list[bytes], cuts: list[int]) -> None:
    """However the bytes are cut into chunks, the store is asked the same, in order, and replies are equal."""
    data = b"\n".join(lines)
    ends = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    whole, cut = Driver(session()), Driver(session())
    if data:
        whole.receive(data)
    whole.receive(b"")
    for start, end in itertools.pairwise(ends):
        if start < end:
            cut.receive(data[start:end])
    cut.receive(b"")
    assert cut.said == whole.said
    assert cut.asked == whole.asked
    assert cut.said.count(b"\n") == len([line for line in lines if line.strip()])
    assert cut.session.request_count == whole.session.request_count == cut.said.count(b"\n")


@given(lines=st.lists(st.sampled_from(LINES[:7]), min_size=1, max_size=12))
def test_runs_are_alike_and_bounded(lines: list[bytes]) -> None:
    """A run has requests of one time-out, stale reads stay among themselves, and it is cut at its limit."""
    driver = Driver(session())
    driver.receive(b"".join(line + b"\n" for line in lines))
    assert all(1 <= length <= 3 for length in driver.runs)
    assert len(driver.asked) == len(lines)


def test_reads_and_writes_are_one_run() -> None:
    """However often a pipeline switches between them: it costs one hop, and that to who takes writes."""
    it = session(run_requests_max=8)
    assert it.receive((GET + SET) * 3 + GET) is WRITE
    assert len(it.operations) == 7


def test_stale_reads_are_runs_of_their_own() -> None:
    """Whoever answers them knows nothing of writes; and a write is no other for being called stale."""
    driver = Driver(session(run_requests_max=8))
    stale = LINES[5] + b"\n"
    driver.receive(SET + stale + stale + GET + b'{"key":"a","value":1,"consistency":"stale"}\n' + GET)
    assert driver.runs == [1, 2, 3]


def test_nothing_follows_a_run_but_its_answer() -> None:
    """A chunk in flight holds the next one back, and an answer needs a run of its length."""
    it = session()
    assert it.receive(SET) is WRITE
    with pytest.raises(IllegalStateError):
        it.receive(SET)
    with pytest.raises(IllegalStateError):
        it.take_answer(Answer([Reply("ok")] * 2))
    assert it.take_answer(Answer([Reply("ok")])) == b'{"key": "a", "value": 1, "status": "ok"}\n'
    with pytest.raises(IllegalStateError):
        it.take_answer(Answer([Reply("ok")]))
    assert it.next_step() is None


# --- states -------------------------------------------------------------------------------------------------


def bring_to(state: State) -> Session:
    """Return a session in a state."""
    it = session()
    if state is State.GREETING:
        return it
    if state is State.AUTHENTICATING:
        it = Session(ProxyConfig(), dict, Doorkeeper({}, Limits(), lambda: 0.0, print).admit(1, "a:1"))
        Driver(it).receive(b'{"op":"ping"}\n')
        return it
    Driver(it).receive(b'{"op":"ping"}\n')
    if state is State.OPEN:
        return it
    it.stop()
    if state is State.DRAINING:
        return it
    step = it.close()
    if state is State.CLOSED:
        Driver(it).carry_out(step)
        return it
    # It stays in between only while something is owed.
    it = session()
    assert it.receive((b"x" * 70 + b"\n") * 4_000) is PAUSE
    it.stop()
    assert it.close() is PAUSE
    return it


@pytest.mark.parametrize("state", State)
def test_states(state: State) -> None:
    """A session can become what the table says, and nothing else; it hears until it has an end."""
    it = bring_to(state)
    assert it.state is state
    assert it.is_open == (state in (State.GREETING, State.AUTHENTICATING, State.OPEN))
    assert it.is_hearing == (state not in (State.CLOSING, State.CLOSED))
    if not it.is_hearing:
        with pytest.raises(IllegalStateError, match=state.value):
            it.receive(SET)
    if State.CLOSING not in NEXT_STATES[state]:
        with pytest.raises(IllegalStateError, match=state.value):
            it.close()
    it.retire(CLOSE_OK, "idle")
    assert it.reason == (
        "idle" if state in (State.GREETING, State.AUTHENTICATING, State.OPEN) else "shutdown"
    )
    it.lose("the peer is gone")
    assert (it.state, it.reason) == (State.CLOSED, "the peer is gone")


def test_the_first_end_counts() -> None:
    """Who is told to leave as an idle one is not told of a shutdown as well."""
    it = session()
    it.retire(CLOSE_OK, "idle")
    it.stop()
    assert not it.is_hearing
    assert it.close() == CLOSE_OK
    assert it.next_step() is None


def test_what_comes_amid_a_stop_is_answered() -> None:
    """A session that drains hears what has come, and then says its last words."""
    driver = Driver(session())
    driver.session.stop()
    driver.receive(SET + GET)
    driver.carry_out(driver.session.close())
    assert driver.said.splitlines(keepends=True)[2:] == [CLOSE_SHUTDOWN]


@pytest.mark.parametrize("is_stopping", [False, True])
def test_http_is_refused_even_while_the_door_stops(is_stopping: bool) -> None:
    """Nothing of what a web page posts is executed, whatever state its session is in."""
    driver = Driver(session())
    if is_stopping:
        driver.session.stop()
    driver.receive(b"POST / HTTP/1.1\r\n\r\n" + SET)
    assert driver.session.is_refused
    assert not driver.session.is_hearing
    assert driver.asked == []


def test_what_is_owed_at_the_end_gets_no_result() -> None:
    """A write that the store has may still take effect; what it does not have was not begun."""
    it = session()
    assert it.receive(SET + GET + SET + SET + GET + b'{"op":"ping"}\nbad\n') is WRITE
    it.stop()
    driver = Driver(it)
    driver.carry_out(it.close())
    replies = driver.said.splitlines(keepends=True)
    codes = [msgspec.json.decode(reply).get("error") for reply in replies]
    assert codes == [
        "timeout",
        "unavailable",
        "timeout",
        "unavailable",
        "unavailable",
        None,
        "bad_request",
        None,
    ]
    assert replies[-1] == CLOSE_SHUTDOWN
    assert it.state is State.CLOSED


def test_a_dropped_half_line_is_skipped() -> None:
    """What still comes of it is no request."""
    driver = Driver(session())
    driver.receive(SET + SET[:5])
    assert driver.session.half_bytes == 5
    driver.session.drop_half_line()
    assert driver.session.half_bytes == 0
    driver.receive(SET[5:] + GET)
    assert driver.asked == [("write", "a"), ("get", "a")]
