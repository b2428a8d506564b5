"""The glue: the supervisor, the gateway and the door, in the world that has them.

The core world has none of them; these are mistakes that only the whole world can make.
"""

from collections.abc import Sequence
from typing import Any

import attrs
import msgspec

from tests.mutants.registry import Patch, mutant
from trio_kv.cluster.node import Node
from trio_kv.cluster.supervisor import Supervisor
from trio_kv.gateway.own_session import OwnSession
from trio_kv.gateway.raft import RaftStore
from trio_kv.gateway.reads import Reads
from trio_kv.gateway.store import Answer, OnAnswer, Store, View
from trio_kv.kv.operations import Get
from trio_kv.kv.operations.operation import Query
from trio_kv.kv.reply import Reply
from trio_kv.proxy import session as session_module
from trio_kv.proxy.connection import Connection
from trio_kv.proxy.framing import Line, LineBuffer
from trio_kv.proxy.session import Session
from trio_kv.proxy.states import Step
from trio_kv.raft.ready import HardState, Write
from trio_kv.replica.jobs import Job, Stored
from trio_kv.wire.node_port import Propose, Read, Refused, Unknown
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import encode_reply


def gateway_tests(name: str) -> tuple[str, ...]:
    """Return a test of the gateway before fakes."""
    return (f"tests/unit/test_gateway.py::{name}",)


@mutant("C10 a node that can't tell any more is taken for one that did not append", world="whole")
def _(patch: Patch) -> None:
    real = RaftStore._on_no_result

    def on_no_result(self: RaftStore, now: float, answer: Any) -> None:
        if isinstance(answer, Unknown) and answer.number in self._writes.pending:
            answer = Refused(answer.number, answer.node, None)
        real(self, now, answer)

    patch.setattr(RaftStore, "_on_no_result", on_no_result)


@mutant("C10 a node that dies says that what it had taken never happened", world="whole")
def _(patch: Patch) -> None:
    def answer_all(self: Node) -> None:
        node = self._status.node
        asked = [(reply_to, answer.number) for reply_to, answer in self.driver.stop()]
        items = [*self._batch, *self.inbox.drain()]
        asked += [(item.reply_to, item.number) for item in items if isinstance(item, Propose | Read)]
        self._deliver([(reply_to, Refused(number, node, None)) for reply_to, number in asked])

    patch.setattr(Node, "_answer_all", answer_all)


@mutant("proxy: replies are put to other requests of their run", world="whole")
def _(patch: Patch) -> None:
    real = Session.take_answer

    def take_answer(self: Session, answer: Answer) -> Step | None:
        return real(self, msgspec.structs.replace(answer, replies=list(answer.replies)[::-1]))

    patch.setattr(Session, "take_answer", take_answer)


@mutant("gateway: an answer goes to the oldest read that waits", world="whole")
def _(patch: Patch) -> None:
    real = Reads._ask

    def ask(self: Reads, now: float, read: Any, kept: int = 0) -> None:
        oldest = next(iter(self.pending.values()))
        same = len(oldest.queries) == len(read.queries)
        number, read.number = read.number, oldest.number if same else read.number
        real(self, now, read, kept)
        read.number = number

    patch.setattr(Reads, "_ask", ask)


@mutant("D3 a node takes a write for durable when it gave it to the disk", world="whole")
def _(patch: Patch) -> None:
    real = Node.__init__

    def init(self: Node, **parts: Any) -> None:
        real(self, **parts)
        disk, submit = parts["disk"], parts["disk"].submit

        def submit_and_say_so(item: Write | Job) -> None:
            submit(item)
            if isinstance(item, Write):
                self.inbox.post(Stored(item.ticket))

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

    patch.setattr(session_module, "encode_reply", crossed)


@mutant("gateway: all reads are stale ones", world="whole")
def _(patch: Patch) -> None:
    real = RaftStore.start_read

    def start_read(self: RaftStore, *queries: Any, is_stale: bool, **others: Any) -> Answer | object:
        del is_stale
        return real(self, *queries, is_stale=True, **others)

    patch.setattr(RaftStore, "start_read", start_read)


@mutant("gateway: a connection forgets what its stale reads have seen", world="whole")
def _(patch: Patch) -> None:
    real = RaftStore.start_read

    def start_read(self: RaftStore, *queries: Any, view: View, **others: Any) -> Answer | object:
        del view
        return real(self, *queries, view=View(), **others)

    patch.setattr(RaftStore, "start_read", start_read)


@mutant("gateway: a write says nothing of what its connection has seen by it", world="whole")
def _(patch: Patch) -> None:
    real = RaftStore.start_write

    def start_write(self: RaftStore, *operations: Any, done: OnAnswer, **others: Any) -> Answer | object:
        return real(
            self, *operations, done=lambda answer: done(msgspec.structs.replace(answer, applied=0)), **others
        )

    patch.setattr(RaftStore, "start_write", start_write)


@mutant("proxy: the reads of a chunk are answered before its writes took effect", world="whole")
def _(patch: Patch) -> None:
    real = Connection.__init__

    def init(self: Connection, *streams: Any, store: Store, **others: Any) -> None:
        def start_write(run: Sequence[Any], *, timeout_s: float, done: OnAnswer) -> Answer | object:
            writes = [each for each in run if not isinstance(each, Query)]
            queries: list[Any] = [each for each in run if isinstance(each, Query)]

            def read(early: Answer) -> None:
                def wrote(late: Answer) -> None:
                    kinds = iter(early.replies), iter(late.replies)
                    replies = [next(kinds[not isinstance(each, Query)]) for each in run]
                    done(msgspec.structs.replace(late, replies=replies))

                store.start_write(writes, timeout_s=timeout_s, done=wrote)

            if not queries:
                return store.start_write(run, timeout_s=timeout_s, done=done)
            view = self._view
            return store.start_read(queries, timeout_s=timeout_s, is_stale=False, view=view, done=read)

        class Shim:
            def __getattr__(self, name: str) -> Any:
                return start_write if name == "start_write" else getattr(store, name)

        shim: Any = Shim()
        real(self, *streams, store=shim, **others)

    patch.setattr(Connection, "__init__", init)


@mutant("C10 a stopping door says of what it handed over that it had no effect", world="whole")
def _(patch: Patch) -> None:
    real = Session.close

    def close(self: Session) -> Step | None:
        self._handed = 0
        return real(self)

    patch.setattr(Session, "close", close)


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
    patch.setattr(OwnSession, "heard", lambda self, reply, used_at: None)
    # A session that nothing confirms is replaced by itself, after a while.
    patch.setattr(OwnSession, "is_old", lambda self, now: not self.id)


@mutant(
    "gateway: a refused write is handed over again at once",
    tests=gateway_tests("test_a_leader_that_refuses_is_asked_again_later"),
)
def _(patch: Patch) -> None:
    real = RaftStore._on_no_result

    def on_no_result(self: RaftStore, now: float, answer: Any) -> None:
        real(self, now, answer)
        write = self._writes.pending.get(answer.number)
        if isinstance(answer, Refused) and write is not None:
            self._writes._hand_over(now, write)

    patch.setattr(RaftStore, "_on_no_result", on_no_result)
