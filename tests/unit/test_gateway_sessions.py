"""Clients' own sessions at the gateway: under which session a write goes out, and what its client is told."""

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import Any

import attrs
import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.unit.test_gateway_scenarios import Call, Nodes
from trio_kv.cluster.registry import Handle, Registry
from trio_kv.gateway.raft import RaftStore
from trio_kv.kv.commands import ClientWrite, Command, OpenSession, RenewSession, Write
from trio_kv.kv.operations import Delete, Get, Incr, Set
from trio_kv.kv.reply import Reply
from trio_kv.kv.session import OTHER_REQUEST
from trio_kv.proxy.runs import cut_run, take_plain
from trio_kv.proxy.states import READ, WRITE
from trio_kv.wire.client_sessions import Numbered, OpenOrRenew, make_id
from trio_kv.wire.node_port import Propose, Read, Unknown
from trio_kv.wire.node_status import State
from trio_kv.wire.operations import Request

SECRET = "00c0ffee00c0ffee"
CLIENT = make_id(5, SECRET)


@attrs.define
class Leader(Nodes):
    """Opens sessions of gateways at once; what clients ask waits for the test."""

    def take(self, node: int, request: Propose | Read) -> bool:
        if isinstance(request, Propose):
            first = request.commands[0]
            if isinstance(first, OpenSession) and first.secret:
                self.asked.append((node, request))
                return True
        return super().take(node, request)

    @property
    def commands(self) -> list[Command]:
        """Return all commands that nodes were given."""
        proposals = [request for _, request in self.asked if isinstance(request, Propose)]
        return [command for each in proposals for command in each.commands]


@pytest.fixture
async def nodes(nursery: trio.Nursery) -> Leader:
    registry = Registry([1, 2, 3])
    store = RaftStore(registry, Random(1), secrets=Random(2))
    nodes = Leader(registry, store, nursery)
    for status in registry.nodes.values():
        status.state = State.UP
        registry.attach(Handle(status, partial(nodes.take, status.node), lambda: None))
    nodes.lead(1, 1)
    await nursery.start(store.run)
    return nodes


def begin(nodes: Leader, nursery: trio.Nursery, operations: Sequence[Any], timeout_s: float = 5.0) -> Call:
    """Begin a run."""
    return Call(nursery, lambda: nodes.store.write(operations, timeout_s=timeout_s))


def numbered(seq: int, session: str = CLIENT, done: int | msgspec.UnsetType = msgspec.UNSET) -> Numbered:
    """Return a write of a client's session."""
    return Numbered(Incr("k"), session, seq, done)


async def test_C1_a_clients_write_is_repeated_under_the_clients_number(
    autojump_clock: MockClock, nodes: Leader, nursery: trio.Nursery
) -> None:
    """No answer, an unknown outcome, another leader: all attempts are one command of the client's session."""
    call = begin(nodes, nursery, [numbered(3, done=2)])
    await trio.sleep(1.5)
    nodes.lead(2, 2)
    await wait_all_tasks_blocked()
    node, request = nodes.asked[-1]
    nodes.store.deliver(Unknown(request.number, node))
    await wait_all_tasks_blocked()
    assert [node for node, _ in nodes.asked] == [1, 1, 2, 2]
    (command,) = set(nodes.commands)
    assert isinstance(command, ClientWrite)
    assert (command.session, command.secret, command.seq, command.done) == (5, SECRET, 3, 2)
    assert nodes.openings == 0
    nodes.done(1, Reply("ok", msgspec.Raw(b"4"), 9))
    await wait_all_tasks_blocked()
    assert call.code == "ok"


async def test_a_run_of_several_sessions_keeps_its_order(
    autojump_clock: MockClock, nodes: Leader, nursery: trio.Nursery
) -> None:
    """Writes of clients' sessions and of none go together; each hears its own reply, and reads keep their places."""
    other = make_id(6, SECRET)
    run = [numbered(1), Set("k", msgspec.Raw(b"1")), numbered(1, other), Delete("k"), Get("k")]
    call = begin(nodes, nursery, run)
    await wait_all_tasks_blocked()
    assert [(type(each), each.session, each.seq) for each in nodes.commands if isinstance(each, Write)] == [
        (ClientWrite, 5, 1),
        (Write, 7, 1),
        (ClientWrite, 6, 1),
        (Write, 7, 2),
    ]
    codes = ["ok", "conflict", "session_expired", "missing", "missing"]
    nodes.done(0, *[Reply(code) for code in codes])
    await wait_all_tasks_blocked()
    assert call.codes == codes
    # What a client's session heard says nothing of the gateway's.
    begin(nodes, nursery, [Set("k", msgspec.Raw(b"1"))])
    await wait_all_tasks_blocked()
    assert nodes.openings == 1


async def test_a_definite_error_is_told_only_if_no_other_attempt_can_take_effect(
    autojump_clock: MockClock, nodes: Leader, nursery: trio.Nursery
) -> None:
    """No room for one attempt is room for the next one, perhaps: with two under way it is unknown (scenario C10)."""
    single = begin(nodes, nursery, [numbered(1)])
    await wait_all_tasks_blocked()
    repeated = begin(nodes, nursery, [numbered(2)])
    await wait_all_tasks_blocked()
    nodes.done(0, Reply("overloaded", message="no room"))
    await trio.sleep(1.5)
    nodes.done(-1, Reply("overloaded", message="no room"))
    await wait_all_tasks_blocked()
    assert (single.code, repeated.code) == ("overloaded", "timeout")
    another = begin(nodes, nursery, [numbered(3)])
    await trio.sleep(1.5)
    nodes.done(-1, OTHER_REQUEST)
    await wait_all_tasks_blocked()
    assert another.code == "bad_request"


async def test_an_opening_is_repeated_with_the_same_secret(
    autojump_clock: MockClock, nodes: Leader, nursery: trio.Nursery
) -> None:
    """So it opens one session; another opening has another secret, and the id holds it."""
    first = begin(nodes, nursery, [OpenOrRenew()])
    await wait_all_tasks_blocked()
    second = begin(nodes, nursery, [OpenOrRenew()])
    await trio.sleep(1.5)
    secrets = [command.secret for command in nodes.commands if isinstance(command, OpenSession)]
    assert len(secrets) == 4
    assert len(set(secrets)) == 2
    assert all(len(secret) == 16 for secret in secrets)
    nodes.done(0, Reply("ok", msgspec.Raw(b"1500000"), 31))
    await wait_all_tasks_blocked()
    assert first.answer is not None
    assert second.answer is None
    (reply,) = first.answer.replies
    assert msgspec.json.decode(reply.value or b"") == {"session": f"31-{secrets[0]}", "timeout": 1.5}


async def test_a_renewal_tells_the_same_id(
    autojump_clock: MockClock, nodes: Leader, nursery: trio.Nursery
) -> None:
    """And the time-out that the session has, whatever this server gives new ones."""
    call = begin(nodes, nursery, [OpenOrRenew(CLIENT)])
    await wait_all_tasks_blocked()
    assert nodes.commands == [RenewSession(5, SECRET)]
    nodes.done(0, Reply("ok", msgspec.Raw(b"60000000"), 40))
    await wait_all_tasks_blocked()
    assert call.answer is not None
    (reply,) = call.answer.replies
    assert msgspec.json.decode(reply.value or b"") == {"session": CLIENT, "timeout": 60}


@pytest.mark.parametrize(
    "text", ["", "5", f"05-{SECRET}", f"5-{SECRET.upper()}", f"5-{SECRET}0", f"5-{SECRET}\n"]
)
async def test_what_no_server_gave_out_is_no_session(
    autojump_clock: MockClock, nodes: Leader, nursery: trio.Nursery, text: str
) -> None:
    """It reaches none: no session has the index 0."""
    begin(nodes, nursery, [numbered(1, text)])
    await wait_all_tasks_blocked()
    (command,) = nodes.commands
    assert isinstance(command, ClientWrite)
    assert (command.session, command.secret) == (0, "")


async def test_equal_requests_have_equal_digests(
    autojump_clock: MockClock, nodes: Leader, nursery: trio.Nursery
) -> None:
    """Whoever makes them, and whenever: the number stands in logs."""
    for operation in (
        Incr("k"),
        Incr("k"),
        Incr("k", 2),
        Set("k", msgspec.Raw(b"1")),
        Set("k", msgspec.Raw(b"1 ")),
    ):
        begin(nodes, nursery, [Numbered(operation, CLIENT, 1)])
        await wait_all_tasks_blocked()
    first, again, *others = [each.digest for each in nodes.commands if isinstance(each, ClientWrite)]
    assert first == again == 268_858_388_239_687
    assert len({first, *others}) == 4
    assert max(others) < 1 << 48


def test_no_read_stands_before_a_write_of_a_clients_session() -> None:
    """Where the client has sent it before, the state before it may hold what it did: the run ends with the read."""
    operations: list[Any] = [Get("k"), Set("k", msgspec.Raw(b"1")), numbered(1), Delete("k"), Get("k")]
    requests = [Request(operation) for operation in operations]
    assert cut_run(requests[0], requests) == (WRITE, False, operations[:2])
    assert cut_run(requests[1], requests[1:]) == (WRITE, False, operations[1:])
    assert cut_run(requests[0], [requests[0], Request(OpenOrRenew())]) == (READ, False, operations[:1])
    # The short way for plain lines is no way around that.
    plain = [Request(Set("k", msgspec.Raw(b"1"))), requests[2], requests[4]]
    assert take_plain(plain) == (WRITE, [each.operation for each in plain])
    assert take_plain([*plain, plain[0]]) is not None
    assert take_plain([*plain, plain[1]]) is None
