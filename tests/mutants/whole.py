"""The glue: the supervisor, the gateway and the door, in the world that has them.

The core world has none of them; these are mistakes that only the whole world can make.
"""

from collections.abc import Sequence
from typing import Any

import attrs

from tests.mutants.registry import Patch, mutant
from trio_kv.cluster.inbox import Stored
from trio_kv.cluster.node import Node
from trio_kv.cluster.supervisor import Supervisor
from trio_kv.gateway.raft import RaftStore
from trio_kv.gateway.store import Answer, View
from trio_kv.kv.operations import AnyQuery, AnyWrite, Get
from trio_kv.kv.operations.operation import Query, WriteOperation
from trio_kv.kv.reply import Reply
from trio_kv.proxy import connection as connection_module
from trio_kv.proxy.connection import Connection
from trio_kv.proxy.framing import Line, LineBuffer
from trio_kv.raft.ready import HardState, Write
from trio_kv.replica.requests import Propose, Read, Refused, Unknown
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import encode_reply


def gateway_tests(name: str) -> tuple[str, ...]:
    """Return a test of the gateway before fakes."""
    return (f"tests/unit/test_gateway.py::{name}",)


@mutant("C10 a node that can't tell any more is taken for one that did not append", world="whole")
def _(patch: Patch) -> None:
    real = RaftStore._take_unhappy

    def take_unhappy(self: RaftStore, now: float, answer: Any) -> None:
        if isinstance(answer, Unknown) and answer.number in self._writes:
            answer = Refused(answer.number, answer.node, None)
        real(self, now, answer)

    patch.setattr(RaftStore, "_take_unhappy", take_unhappy)


@mutant("C10 a node that dies says that what it had taken never happened", world="whole")
def _(patch: Patch) -> None:
    def answer_all(self: Node) -> None:
        self._turns.give_back(self._status.node)
        for source, answer in self.replica.stop():
            source.deliver(Refused(answer.number, self._status.node, None))
        for item in [*self._batch, *self.inbox.drain()]:
            if isinstance(item, Propose | Read):
                item.source.deliver(Refused(item.number, self._status.node, None))

    patch.setattr(Node, "_answer_all", answer_all)


@mutant("proxy: replies are put to other requests of their run", world="whole")
def _(patch: Patch) -> None:
    real = Connection._put_run

    async def put_run(self: Connection, run: Sequence[Any], answer: Answer) -> None:
        await real(self, run, attrs.evolve(answer, replies=list(answer.replies)[::-1]))

    patch.setattr(Connection, "_put_run", put_run)


@mutant("gateway: an answer goes to the oldest read that waits", world="whole")
def _(patch: Patch) -> None:
    real = RaftStore._ask

    def ask(self: RaftStore, now: float, read: Any, kept: int = 0) -> None:
        oldest = next(iter(self._reads.values()))
        same = len(oldest.queries) == len(read.queries)
        number, read.number = read.number, oldest.number if same else read.number
        real(self, now, read, kept)
        read.number = number

    patch.setattr(RaftStore, "_ask", ask)


@mutant("D3 a node takes a write for durable when it gave it to the disk", world="whole")
def _(patch: Patch) -> None:
    real = Node.__init__

    def init(self: Node, **parts: Any) -> None:
        real(self, **parts)
        disk, submit = parts["disk"], parts["disk"].submit

        def submit_and_say_so(write: Write) -> None:
            submit(write)
            self.inbox.post(Stored(write.ticket))

        patch.setattr(disk, "submit", submit_and_say_so, raising=False)

    patch.setattr(Node, "__init__", init)


@mutant("D1 a restarted node forgets its term and vote", world="whole")
def _(patch: Patch) -> None:
    real: Any = Supervisor._run_node

    async def run_node(self: Supervisor, *parts: Any) -> None:
        *others, loaded = parts
        recovered = attrs.evolve(loaded.recovered, hard_state=HardState())
        await real(self, *others, attrs.evolve(loaded, recovered=recovered))

    patch.setattr(Supervisor, "_run_node", run_node)


@mutant("R2 an error is told as a missing key", world="whole")
def _(patch: Patch) -> None:
    def crossed(request: Request, reply: Reply, node: int = 0, term: int = 0) -> bytes:
        if isinstance(request.operation, Get) and reply.code == "unavailable":
            reply = Reply("missing")
        return encode_reply(request, reply, node, term)

    patch.setattr(connection_module, "encode_reply", crossed)


@mutant("gateway: all reads are stale ones", world="whole")
def _(patch: Patch) -> None:
    real = RaftStore.read

    async def read(
        self: RaftStore, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View
    ) -> Answer:
        return await real(self, queries, timeout_s=timeout_s, is_stale=True, view=view)

    patch.setattr(RaftStore, "read", read)


@mutant("gateway: a connection forgets what its stale reads have seen", world="whole")
def _(patch: Patch) -> None:
    real = RaftStore.read

    async def read(
        self: RaftStore, queries: Sequence[AnyQuery], *, timeout_s: float, is_stale: bool, view: View
    ) -> Answer:
        return await real(self, queries, timeout_s=timeout_s, is_stale=is_stale, view=View())

    patch.setattr(RaftStore, "read", read)


@mutant("gateway: a write says nothing of what its connection has seen by it", world="whole")
def _(patch: Patch) -> None:
    real = RaftStore.write

    async def write(self: RaftStore, operations: Sequence[AnyWrite], *, timeout_s: float) -> Answer:
        return attrs.evolve(await real(self, operations, timeout_s=timeout_s), applied=0)

    patch.setattr(RaftStore, "write", write)


@mutant("proxy: the reads of a chunk are answered before its writes took effect", world="whole")
def _(patch: Patch) -> None:
    async def answer_all(self: Connection) -> None:
        items = list(self._items)
        early: dict[int, Answer] = {}
        for item in items:
            if isinstance(item, Request) and isinstance(item.operation, Query):
                early[id(item)] = await self._store.read(
                    (item.operation,), timeout_s=item.timeout, is_stale=item.is_stale, view=self._view
                )
        for item in items:
            if isinstance(item, Request) and isinstance(item.operation, Query):
                await self._put_run((item,), early[id(item)])
            elif isinstance(item, Request) and isinstance(item.operation, WriteOperation):
                self._handed = self._done + 1
                written = await self._store.write((item.operation,), timeout_s=item.timeout)
                await self._put_run((item,), written)
            else:
                self._outbox.put(self._answer_here(item))
                self._done += 1
        await self._outbox.flush()

    patch.setattr(Connection, "_answer_all", answer_all)


@mutant("C10 a stopping door says of what it handed over that it had no effect", world="whole")
def _(patch: Patch) -> None:
    real = Connection._give_up

    def give_up(self: Connection, index: int) -> bytes:
        self._handed = 0
        return real(self, index)

    patch.setattr(Connection, "_give_up", give_up)


@mutant("proxy: a line that comes in two pieces loses the first", world="whole")
def _(patch: Patch) -> None:
    real = LineBuffer.feed

    def feed(self: LineBuffer, chunk: bytes) -> list[Line]:
        self._half = bytearray()
        return real(self, chunk)

    patch.setattr(LineBuffer, "feed", feed)


@mutant(
    "gateway: a session that the cluster forgot is used for ever",
    world="whole",
    tests=gateway_tests("test_a_forgotten_session_is_given_up"),
)
def _(patch: Patch) -> None:
    def set_attribute(self: RaftStore, name: str, value: object) -> None:
        if name != "_session" or value or not hasattr(self, name):
            object.__setattr__(self, name, value)

    patch.setattr(RaftStore, "__setattr__", set_attribute)
    # A session that nothing confirms is replaced by itself, after a while.
    patch.setattr(RaftStore, "_needs_session", lambda self: not self._session)


@mutant(
    "gateway: a refused write is handed over again at once",
    tests=gateway_tests("test_a_leader_that_refuses_is_asked_again_later"),
)
def _(patch: Patch) -> None:
    real = RaftStore._take_unhappy

    def take_unhappy(self: RaftStore, now: float, answer: Any) -> None:
        real(self, now, answer)
        write = self._writes.get(answer.number)
        if isinstance(answer, Refused) and write is not None:
            self._hand_over(write)

    patch.setattr(RaftStore, "_take_unhappy", take_unhappy)
