"""A gateway in another process than its nodes: between the two is nothing but bytes, and they may get lost.

The house has no such link yet. The one here is made of two memory channels, to show that the port needs no more: the
gateway is the real one, as it is, and so is the cluster.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import attrs
import msgspec
import pytest
import trio
import trio.testing
from msgspec import UNSET

from tests.doubles import key_of
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.registry import Registry
from trio_kv.gateway.local import LocalCluster, open_cluster
from trio_kv.gateway.raft import RaftStore
from trio_kv.gateway.store import View
from trio_kv.kv.commands import Command, Write
from trio_kv.kv.operations import Cas, Get, Set
from trio_kv.kv.reply import Reply
from trio_kv.raft.config import RaftConfig
from trio_kv.replica.port import Directory, NodeHandle
from trio_kv.wire.node_port import (
    Answer,
    Propose,
    Refused,
    ReplyTo,
    Request,
    decode_answer,
    decode_request,
    encode_answer,
    encode_request,
)
from trio_kv.wire.node_status import NodeStatus

CONFIG = ClusterConfig(
    raft=RaftConfig(election_timeout_min_s=0.3, election_timeout_max_s=0.6, heartbeat_interval_s=0.05),
    restart_delay_min_s=0.2,
)
PROCESS = 7
QUEUE_MAX = 1000
WAIT_S = 30.0


@attrs.define
class RemoteHandle:
    """A node of another process."""

    status: NodeStatus
    send: Callable[[int, bytes], None]
    is_near: bool = False

    def submit(self, request: Request) -> bool:
        """Put the request's bytes on the link, if it has room."""
        try:
            self.send(self.status.node, encode_request(request))
        except trio.WouldBlock:
            return False
        return True


ASKERS_MAX = 10
"""Of one gateway: each has a nonce of its own."""


class RemoteDirectory:
    """The gateway's end of the link: what it was last told of the nodes, and who waits for answers.

    Args:
        nonce: of this start of the process.
        send: puts bytes for a node on the link.

    """

    def __init__(self, nonce: int, send: Callable[[int, bytes], None]) -> None:
        self.dropped = 0
        self._nonce = nonce
        self._send = send
        self._askers: dict[ReplyTo, Callable[[Answer], None]] = {}
        self._handles: list[RemoteHandle] = []
        self._listeners: list[Callable[[], None]] = []

    def take_answer(self, data: bytes) -> None:
        reply_to, answer = decode_answer(data)
        deliver = self._askers.get(reply_to)
        if deliver is None:
            self.dropped += 1
        else:
            deliver(answer)

    def take_view(self, data: bytes) -> None:
        statuses = msgspec.msgpack.decode(data, type=list[NodeStatus])
        self._handles = [RemoteHandle(status, self._send) for status in statuses if status.role is not None]
        for listener in self._listeners:
            listener()

    def leader(self) -> NodeHandle | None:
        leaders = [handle for handle in self._handles if handle.status.role == "leader"]
        return max(leaders, key=lambda handle: handle.status.term, default=None)

    def readable(self) -> Sequence[NodeHandle]:
        return sorted(self._handles, key=lambda handle: handle.status.role == "leader")

    @property
    def is_majority_gone(self) -> bool:
        return False

    def status(self) -> dict[str, object]:
        return {"nodes": [handle.status.as_reply() for handle in self._handles]}

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def join(self, deliver: Callable[[Answer], None]) -> ReplyTo:
        reply_to = ReplyTo(PROCESS, ASKERS_MAX * self._nonce + len(self._askers))
        self._askers[reply_to] = deliver
        return reply_to

    def leave(self, reply_to: ReplyTo) -> None:
        del self._askers[reply_to]


class Link:
    """Carries bytes both ways, unless a test lets it lose some or hold them back.

    Args:
        registry: the nodes' end.
        queue_max: so many requests wait on the link; a further one does not fit.

    """

    def __init__(self, registry: Registry, queue_max: int) -> None:
        self.loses_request: Callable[[Request], bool] = lambda _: False
        self.loses_answer: Callable[[Answer], bool] = lambda _: False
        self.requests: list[Request] = []
        """Those that arrived."""
        self.held: list[bytes] | None = None
        """Answers that are held back, if a test wants that."""
        self._registry = registry
        self._to_nodes, self._at_nodes = trio.open_memory_channel[tuple[int, bytes]](queue_max)
        self._to_gateway, self._at_gateway = trio.open_memory_channel[bytes](QUEUE_MAX)
        self.restart_gateway(nonce=1)

    async def run(self) -> None:
        """Carry what is sent until cancelled."""
        unlisten = self._registry.listen(self._show_nodes)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._run_nodes_end)
                nursery.start_soon(self._run_gateways_end)
        finally:
            unlisten()

    def restart_gateway(self, nonce: int) -> None:
        """Let the gateway's process be another one of the same number."""
        self.directory = RemoteDirectory(nonce, lambda node, data: self._to_nodes.send_nowait((node, data)))
        self._show_nodes()

    def release(self) -> None:
        """Let the answers go on that were held back."""
        held, self.held = self.held or [], None
        for data in held:
            self._to_gateway.send_nowait(data)

    def _show_nodes(self) -> None:
        self.directory.take_view(msgspec.msgpack.encode(list(self._registry.nodes.values())))

    async def _run_nodes_end(self) -> None:
        async for node, data in self._at_nodes:
            request = decode_request(data)
            if self.loses_request(request):
                continue
            self.requests.append(request)
            deliver = partial(self._send_answer, request.reply_to)
            self._registry.route(request.reply_to, deliver)
            handle = self._registry.handle(node)
            if handle is None or not handle.submit(request):
                deliver(Refused(request.number, node, None))

    def _send_answer(self, reply_to: ReplyTo, answer: Answer) -> None:
        data = encode_answer(reply_to, answer)
        if self.held is not None:
            self.held.append(data)
        elif not self.loses_answer(answer):
            # A link that is full loses it.
            with contextlib.suppress(trio.WouldBlock):
                self._to_gateway.send_nowait(data)

    async def _run_gateways_end(self) -> None:
        async for data in self._at_gateway:
            self.directory.take_answer(data)

    @property
    def proposed(self) -> set[int]:
        """The numbers of the proposals that arrived."""
        return {request.number for request in self.requests if isinstance(request, Propose)}

    def commands(self) -> list[Command]:
        """Return the commands that arrived, of all attempts."""
        proposals = [request for request in self.requests if isinstance(request, Propose)]
        return [command for propose in proposals for command in propose.commands]


@contextlib.asynccontextmanager
async def linked(
    path: Path, nursery: trio.Nursery, queue_max: int = QUEUE_MAX
) -> AsyncIterator[tuple[RaftStore, Link, LocalCluster]]:
    """Run three nodes, and a gateway at the other end of a link."""
    with trio.fail_after(WAIT_S):
        async with open_cluster(path, nodes=3, config=CONFIG, is_synced=False) as local:
            await local.cluster.wait_leader()
            link = Link(local.cluster.registry, queue_max)
            nursery.start_soon(link.run)
            store = RaftStore(link.directory, Random(1))
            await nursery.start(store.run)
            yield store, link, local
            nursery.cancel_scope.cancel()


async def put(store: RaftStore, key: str, value: bytes, if_revision: int | None = None) -> Reply:
    operation = Set(key, msgspec.Raw(value), UNSET if if_revision is None else if_revision)
    (reply,) = (await store.write([operation], timeout_s=10.0)).replies
    return reply


async def get(
    store: RaftStore, key: str, *, is_stale: bool = False, view: View | None = None
) -> bytes | None:
    view = View() if view is None else view
    (reply,) = (await store.read([Get(key)], timeout_s=10.0, is_stale=is_stale, view=view)).replies
    assert reply.code in ("ok", "missing"), reply
    return None if reply.value is None else bytes(reply.value)


async def test_a_gateway_serves_nodes_of_another_process(tmp_path: Path, nursery: trio.Nursery) -> None:
    """Writes, reads, stale reads and status, with values as they were spelled."""
    async with linked(tmp_path, nursery) as (store, link, _):
        assert (await put(store, "k", b'{"b": 1.50,\t"a": []}')).code == "ok"
        view = View()
        assert await get(store, "k", view=view) == b'{"b": 1.50,\t"a": []}'
        assert await get(store, "k", is_stale=True, view=view) == b'{"b": 1.50,\t"a": []}'
        assert await get(store, "nothing") is None
        assert len(store.status()["nodes"]) == 3  # type: ignore[arg-type]
        assert {request.reply_to for request in link.requests} == {ReplyTo(PROCESS, ASKERS_MAX)}


async def test_C1_a_lost_answer_is_asked_for_again(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the same seq: a write that must not find its key hears that it made it, whichever attempt is answered."""
    monkeypatch.setattr("trio_kv.gateway.writes.RETRY_S", 0.1)
    async with linked(tmp_path, nursery) as (store, link, _):
        assert (await put(store, "other", b"0")).code == "ok"
        losses = iter([True, True])
        link.loses_answer = lambda _: next(losses, False)
        reply = await put(store, "k", b"1", if_revision=0)
        attempts = [each for each in link.commands() if isinstance(each, Write) and key_of(each) == "k"]
        assert len(attempts) >= 3
        assert len({(each.session, each.seq) for each in attempts}) == 1
        assert reply.code == "ok"
        assert await get(store, "k") == b"1"


async def test_C1_a_link_that_loses_much_costs_no_effect_and_repeats_none(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counters go up over a link that loses every third message, while the leader dies: each step counts once.

    A read before a step in its run sees the number before it, or has lost its place to an attempt whose answer was
    lost; one behind it sees the step.
    """
    monkeypatch.setattr("trio_kv.gateway.writes.RETRY_S", 0.05)
    random = Random(3)
    async with linked(tmp_path, nursery) as (store, link, local):
        link.loses_request = lambda request: isinstance(request, Propose) and random.random() < 0.3
        link.loses_answer = lambda answer: answer.number in link.proposed and random.random() < 0.3

        is_under_way = trio.Event()
        lost: list[int] = []

        async def count(key: str) -> None:
            for number in range(30):
                if number == 10:
                    is_under_way.set()
                expected = msgspec.Raw(b"%d" % number) if number else UNSET
                step = Cas(key, msgspec.Raw(b"%d" % (number + 1)), expected)
                answer = await store.write([Get(key), step, Get(key)], timeout_s=20.0)
                before, reply, behind = answer.replies
                assert reply.code == "ok", reply
                assert behind.value == step.value, behind
                if before.code == "unavailable":
                    lost.append(number)
                else:
                    assert (before.value or UNSET) == expected, before
                assert await get(store, key) == b"%d" % (number + 1)

        async with trio.open_nursery() as counters:
            for client in range(4):
                counters.start_soon(count, f"counter {client}")
            await is_under_way.wait()
            local.cluster.faults.crash(await local.cluster.wait_leader())
        assert 0 < len(lost) < 120


async def test_R2_a_read_whose_answer_is_lost_is_given_to_another_node(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    """A node whose answers never arrive costs 20 ms now and then, and no error."""
    async with linked(tmp_path, nursery) as (store, link, local):
        assert (await put(store, "k", b"1")).code == "ok"
        mute = await local.cluster.wait_leader() % 3 + 1
        link.loses_answer = lambda answer: answer.node == mute
        for _ in range(50):
            assert await get(store, "k") == b"1"


async def test_a_link_that_is_full_hands_nothing_over(tmp_path: Path, nursery: trio.Nursery) -> None:
    """What does not fit was not handed over: the write fails at once and for certain, and no node ever hears of it."""
    async with linked(tmp_path, nursery, queue_max=1) as (store, link, _):
        assert (await put(store, "k", b"1")).code == "ok"
        answers: list[Reply] = []

        async def write(number: int) -> None:
            answers.append(await put(store, f"k{number}", b"2"))

        async with trio.open_nursery() as writers:
            for number in range(5):
                writers.start_soon(write, number)
        assert sorted(reply.code for reply in answers).count("overloaded") >= 1
        arrived = {key_of(command) for command in link.commands() if isinstance(command, Write)}
        assert len(arrived) == 1 + [reply.code for reply in answers].count("ok")


async def test_an_answer_to_a_former_start_is_dropped(
    tmp_path: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's process starts again and counts its requests from one, as before: old answers are not its own."""
    monkeypatch.setattr("trio_kv.gateway.writes.OPENING_RETRY_S", 0.1)
    async with linked(tmp_path, nursery) as (store, link, _):
        link.held = []
        for _ in range(2):
            with trio.move_on_after(0.2):
                await store.read([Get("k")], timeout_s=10.0, is_stale=False, view=View())
        assert link.held
        old = {(decode_answer(data)[1].number) for data in link.held}
        link.restart_gateway(nonce=2)
        second = RaftStore(link.directory, Random(2))
        await nursery.start(second.run)
        # Nothing of the second one arrives before the old answers do.
        link.loses_request = lambda _: True
        answers: list[Reply] = []

        async def write() -> None:
            answers.append(await put(second, "k", b"1"))

        nursery.start_soon(write)
        await trio.testing.wait_all_tasks_blocked()
        assert set(second._writes.pending) & old
        link.release()
        while link.directory.dropped < len(old):  # noqa: ASYNC110 - the link's tasks tell nobody
            await trio.sleep(0.001)
        assert not answers
        link.loses_request = lambda _: False
        while not answers:  # noqa: ASYNC110 - see above
            await trio.sleep(0.001)
        assert answers[0].code == "ok"


def test_the_ends_fit_the_port() -> None:
    """Both kinds of directories and handles are what the gateway asks for: mypy reads this."""
    registry: Directory = Registry([1])
    remote: Directory = RemoteDirectory(1, lambda _node, _data: None)
    handle: NodeHandle = RemoteHandle(NodeStatus(1), lambda _node, _data: None)
    assert registry.leader() is remote.leader() is None
    assert handle.submit(Propose(ReplyTo(1, 1), 1, []))
