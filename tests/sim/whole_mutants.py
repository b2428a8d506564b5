"""Bugs of the glue, put into the real code on purpose: the whole world must find each within a few seeds.

The core world has no supervisor, gateway or door; these are the mistakes that only a world with them can make. Each
is the smallest form of one (ids are those of the scenario list: C clients, R reads, D durable state).
"""

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec
import pytest

from trio_kv.cluster.inbox import Stored
from trio_kv.cluster.node import Node
from trio_kv.cluster.supervisor import Supervisor
from trio_kv.gateway.raft import RaftStore
from trio_kv.gateway.store import Answer, View
from trio_kv.kv.reply import Reply
from trio_kv.proxy import connection as connection_module
from trio_kv.proxy.connection import Connection
from trio_kv.proxy.framing import Line, LineBuffer
from trio_kv.raft.ready import HardState, Write
from trio_kv.replica.requests import Propose, Read, Refused, Unknown
from trio_kv.wire.operations import CasRequest, DeleteRequest, GetRequest, Request, SetRequest
from trio_kv.wire.replies import encode_reply

Patch = pytest.MonkeyPatch
MUTANTS: dict[str, Callable[[Patch], None]] = {}


def mutant(name: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def register(put_in: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTANTS[name] = put_in
        return put_in

    return register


@mutant("C the gateway repeats a write under a new seq")
def _(patch: Patch) -> None:
    real = RaftStore._hand_over

    def hand_over(self: RaftStore, write: Any) -> bool:
        if write.unresolved and write.session is not None:
            commands = [
                msgspec.structs.replace(command, seq=self._seq + offset)
                for offset, command in enumerate(write.commands, 1)
            ]
            self._seq += len(commands)
            write.commands = commands
        return real(self, write)

    patch.setattr(RaftStore, "_hand_over", hand_over)


@mutant("C what was handed over is called unavailable when its time is up")
def _(patch: Patch) -> None:
    real = RaftStore._end_late_write

    def end_late_write(self: RaftStore, write: Any) -> None:
        write.unresolved = 0
        real(self, write)

    patch.setattr(RaftStore, "_end_late_write", end_late_write)


@mutant("C a node that can't tell any more is taken for one that did not append")
def _(patch: Patch) -> None:
    real = RaftStore._take_unhappy

    def take_unhappy(self: RaftStore, now: float, answer: Any) -> None:
        if isinstance(answer, Unknown) and answer.number in self._writes:
            answer = Refused(answer.number, answer.node, None)
        real(self, now, answer)

    patch.setattr(RaftStore, "_take_unhappy", take_unhappy)


@mutant("C a node that dies says that what it had taken never happened")
def _(patch: Patch) -> None:
    def answer_all(self: Node) -> None:
        self._turn.give_back(self._status.node)
        for source, answer in self.replica.stop():
            source.deliver(Refused(answer.number, self._status.node, None))
        for item in [*self._batch, *self.inbox.drain()]:
            if isinstance(item, Propose | Read):
                item.source.deliver(Refused(item.number, self._status.node, None))

    patch.setattr(Node, "_answer_all", answer_all)


@mutant("C replies are crossed between the requests of a run")
def _(patch: Patch) -> None:
    real = Connection._put_run

    async def put_run(self: Connection, run: Sequence[Any], answer: Answer) -> None:
        await real(self, run, attrs.evolve(answer, replies=list(answer.replies)[::-1]))

    patch.setattr(Connection, "_put_run", put_run)


@mutant("C an answer goes to the oldest read that waits")
def _(patch: Patch) -> None:
    real = RaftStore._ask

    def ask(self: RaftStore, now: float, read: Any, kept: int = 0) -> None:
        oldest = next(iter(self._reads.values()))
        same = len(oldest.keys) == len(read.keys)
        number, read.number = read.number, oldest.number if same else read.number
        real(self, now, read, kept)
        read.number = number

    patch.setattr(RaftStore, "_ask", ask)


@mutant("D3 a node takes a write for durable when it gave it to the disk")
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


@mutant("D1 a restarted node forgets its term and vote")
def _(patch: Patch) -> None:
    real: Any = Supervisor._run_node

    async def run_node(self: Supervisor, *parts: Any) -> None:
        *others, loaded = parts
        recovered = attrs.evolve(loaded.recovered, hard_state=HardState())
        await real(self, *others, attrs.evolve(loaded, recovered=recovered))

    patch.setattr(Supervisor, "_run_node", run_node)


@mutant("R an error is told as a missing key")
def _(patch: Patch) -> None:
    def crossed(request: Request, reply: Reply, node: int = 0, term: int = 0) -> bytes:
        if isinstance(request, GetRequest) and reply.code == "unavailable":
            reply = Reply("missing")
        return encode_reply(request, reply, node, term)

    patch.setattr(connection_module, "encode_reply", crossed)


@mutant("R all reads are stale ones")
def _(patch: Patch) -> None:
    real = RaftStore.read

    async def read(
        self: RaftStore, keys: Sequence[str], *, timeout_s: float, is_stale: bool, view: View
    ) -> Answer:
        return await real(self, keys, timeout_s=timeout_s, is_stale=True, view=view)

    patch.setattr(RaftStore, "read", read)


@mutant("R a connection forgets what its stale reads have seen")
def _(patch: Patch) -> None:
    real = RaftStore.read

    async def read(
        self: RaftStore, keys: Sequence[str], *, timeout_s: float, is_stale: bool, view: View
    ) -> Answer:
        return await real(self, keys, timeout_s=timeout_s, is_stale=is_stale, view=View())

    patch.setattr(RaftStore, "read", read)


@mutant("C the reads of a chunk are answered before its writes took effect")
def _(patch: Patch) -> None:
    async def answer_all(self: Connection) -> None:
        items = list(self._items)
        early: dict[int, Answer] = {}
        for get in [item for item in items if isinstance(item, GetRequest)]:
            early[id(get)] = await self._store.read(
                (get.key,), timeout_s=get.timeout, is_stale=get.is_stale, view=self._view
            )
        for item in items:
            if isinstance(item, GetRequest):
                await self._put_run((item,), early[id(item)])
            elif isinstance(item, SetRequest | DeleteRequest | CasRequest):
                self._handed = self._done + 1
                written = await self._store.write((item,), timeout_s=item.timeout)
                await self._put_run((item,), written)
            else:
                self._put(self._answer_here(item))
        await self._flush()

    patch.setattr(Connection, "_answer_all", answer_all)


@mutant("C a stopping door says of what it handed over that it had no effect")
def _(patch: Patch) -> None:
    real = Connection._give_up

    def give_up(self: Connection, index: int) -> bytes:
        self._handed = 0
        return real(self, index)

    patch.setattr(Connection, "_give_up", give_up)


@mutant("C a line that comes in two pieces loses the first")
def _(patch: Patch) -> None:
    real = LineBuffer.feed

    def feed(self: LineBuffer, chunk: bytes) -> list[Line]:
        self._half = bytearray()
        return real(self, chunk)

    patch.setattr(LineBuffer, "feed", feed)


@mutant("C a session that the cluster forgot is used for ever")
def _(patch: Patch) -> None:
    real = RaftStore.write

    async def write(self: RaftStore, operations: Sequence[Any], *, timeout_s: float) -> Answer:
        answer = await real(self, operations, timeout_s=timeout_s)
        if answer.replies[-1].code == "session_expired" and not self._session:
            self._session = operations_session.get(id(self), 0)
        operations_session[id(self)] = self._session or operations_session.get(id(self), 0)
        return answer

    operations_session: dict[int, int] = {}
    patch.setattr(RaftStore, "write", write)


@mutant("C a refused write is handed over again at once")
def _(patch: Patch) -> None:
    real = RaftStore._take_unhappy

    def take_unhappy(self: RaftStore, now: float, answer: Any) -> None:
        real(self, now, answer)
        write = self._writes.get(answer.number)
        if isinstance(answer, Refused) and write is not None:
            self._hand_over(write)

    patch.setattr(RaftStore, "_take_unhappy", take_unhappy)
