"""The gateway before nodes that are fakes: what it asks them, how often, and under which session."""

from collections.abc import Callable
from random import Random

import msgspec
import pytest
import trio
import trio.testing

from trio_kv.cluster.inbox import Inbox
from trio_kv.cluster.registry import Registry, State
from trio_kv.gateway.raft import HEDGE_S, RaftStore
from trio_kv.kv.commands import OpenSession
from trio_kv.kv.reply import Reply
from trio_kv.replica.requests import Answer, Done, Propose, Refused
from trio_kv.wire.operations import SetRequest

SET = SetRequest("k", msgspec.Raw(b"1"))


class Leader:
    """A node that leads, and answers each proposal as told."""

    def __init__(self, answer: Callable[[Propose], Answer]) -> None:
        self.registry = Registry([1])
        self.proposals: list[Propose] = []
        status = self.registry.nodes[1]
        status.inbox, status.role, status.term, status.state = Inbox(), "leader", 1, State.UP
        self.takes_s = 0.0
        self._answer = answer

    async def run(self) -> None:
        inbox = self.registry.nodes[1].inbox
        assert inbox is not None
        while True:
            for propose in await inbox.receive():
                self.proposals.append(propose)
                await trio.sleep(self.takes_s)
                propose.source.deliver(self._answer(propose))


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


def done(propose: Propose, replies: list[Reply]) -> Done:
    return Done(propose.number, 1, 1, 1, replies)


def is_opening(propose: Propose) -> bool:
    return isinstance(propose.commands[0], OpenSession)


async def test_a_leader_that_refuses_is_asked_again_later(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """A leader that hands over refuses for a while: it is asked once a sweep, and not as fast as it can refuse."""
    leader = Leader(lambda propose: Refused(propose.number, 1, None))
    leader.takes_s = 0.001  # Or else virtual time would never pass while it is asked without end.
    store = RaftStore(leader.registry, Random(1))
    nursery.start_soon(leader.run)
    await nursery.start(store.run)
    answer = await store.write([SET], timeout_s=1.0)
    assert answer.replies[0].code == "unavailable"
    assert 2 <= len(leader.proposals) <= 1.0 / HEDGE_S + 1
    nursery.cancel_scope.cancel()


async def test_a_forgotten_session_is_given_up(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """When the cluster says that it has forgotten the session, the next write opens another one and succeeds."""
    opened: list[int] = []

    def answer(propose: Propose) -> Answer:
        if is_opening(propose):
            opened.append(10 * (len(opened) + 1))
            return done(propose, [Reply("ok", None, opened[-1])])
        sessions = [getattr(command, "session", 0) for command in propose.commands]
        code = "session_expired" if sessions[0] == 10 else "ok"
        return done(propose, [Reply(code, None, 99)] * len(propose.commands))

    leader = Leader(answer)
    store = RaftStore(leader.registry, Random(1))
    nursery.start_soon(leader.run)
    await nursery.start(store.run)
    codes = [(await store.write([SET, SET], timeout_s=1.0)).replies[0].code for _ in range(3)]
    assert codes == ["session_expired", "ok", "ok"]
    assert opened == [10, 20]
    nursery.cancel_scope.cancel()


async def test_writes_that_wait_for_a_session_are_not_too_many(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    """However many seqs the last session gave out, those who come while the next one is opened are served."""

    def answer(propose: Propose) -> Answer:
        return done(propose, [Reply("ok", None, 10)] * len(propose.commands))

    leader = Leader(answer)
    store = RaftStore(leader.registry, Random(1), session_timeout_s=10.0)
    nursery.start_soon(leader.run)
    await nursery.start(store.run)
    for _ in range(70):
        await store.write([SET] * 1000, timeout_s=1.0)
    await trio.sleep(8.0)
    leader.takes_s = 0.1
    codes: list[str] = []

    async def write() -> None:
        codes.append((await store.write([SET], timeout_s=1.0)).replies[0].code)

    async with trio.open_nursery() as writers:
        for _ in range(5):
            writers.start_soon(write)
            await trio.sleep(0.01)
    assert codes == ["ok"] * 5
    nursery.cancel_scope.cancel()
