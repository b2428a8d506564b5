"""What a gateway says of a write, beside what became of each attempt: random nodes, leaders, delays and departures.

Each attempt has a fate, which its node may or may not tell, and those that come through are applied by the real state
machine. Whatever the gateway answers has to be true of all attempts together, and be the answer to its own write.
"""

from functools import partial
from random import Random
from typing import Any

import attrs
import msgspec
import pytest
import trio

from tests.doubles import key_of
from trio_kv.cluster.registry import Handle, Registry
from trio_kv.gateway.raft import RaftStore
from trio_kv.kv.commands import Command, Expire, Write
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Set
from trio_kv.kv.reply import Reply
from trio_kv.kv.session import FORGOTTEN_SEQ
from trio_kv.raft.entry import make_entry
from trio_kv.sim.whole.scheduling import run_seeded
from trio_kv.wire.client_sessions import Numbered, OpenOrRenew
from trio_kv.wire.node_port import Answer, Done, Full, Propose, Read, Refused, Unknown
from trio_kv.wire.node_status import State

WRITERS = 6
WRITES_EACH = 25
SESSION_TIMEOUT_S = 8.0
DEFINITE = ("unavailable", "overloaded", "read_only")


@attrs.define
class Call:
    """A write that was asked for, and its attempts."""

    number: tuple[int, int] | None = None
    """(session, seq) of its attempts."""
    attempts: int = 0
    open_attempts: int = 0
    """Those of which no node has said that they will have no effect."""
    revision: int = 0
    """Where it took effect."""
    code: str = ""
    """What its owner heard."""


class Chaos:
    """Three nodes that take, refuse, lose, forget and apply what they are given."""

    def __init__(self, random: Random, nursery: trio.Nursery) -> None:
        self.random = random
        self.nursery = nursery
        self.registry = Registry([1, 2, 3])
        self.store = RaftStore(
            self.registry, random, session_timeout_s=SESSION_TIMEOUT_S, secrets=Random("secrets")
        )
        self.machine = Machine()
        self.ahead_s = 0.0
        """How much cluster time is ahead of the gateway's clock."""
        self.calls: dict[str, Call] = {}
        for status in self.registry.nodes.values():
            status.state = State.UP
            self.registry.attach(Handle(status, partial(self.take, status.node), lambda: None))

    async def elect(self) -> None:
        """Let somebody else lead, or nobody, again and again; now and then all sessions are forgotten."""
        for term in range(1, 1_000_000):
            leader = self.random.choice((1, 2, 3, 1, 2, 3, 0))
            for status in self.registry.nodes.values():
                status.role, status.term = ("leader" if status.node == leader else "follower"), term
            self.registry.changed()
            await trio.sleep(self.random.choice((0.01, 0.1, 1.0)))
            if self.random.random() < 0.02:
                self.ahead_s += SESSION_TIMEOUT_S
                self.apply(Expire())

    def take(self, node: int, propose: Propose | Read) -> bool:
        assert isinstance(propose, Propose)
        if self.random.random() < 0.1:
            return False
        for command in propose.commands:
            if isinstance(command, Write):
                call = self.calls[key_of(command)]
                number = (command.session, command.seq)
                assert call.number in (None, number), f"{call}: repeated as {number}"
                call.number = number
                call.attempts += 1
                call.open_attempts += 1
        self.nursery.start_soon(self._decide, node, propose)
        return True

    async def _decide(self, node: int, propose: Propose) -> None:
        random, number = self.random, propose.number
        # Uneven, so that none tells its fate at the very moment at which its write is given up.
        await trio.sleep(random.choice((0.0, 0.001, 0.03, 0.3, 1.2)) * random.uniform(1.0, 1.5))
        fate = random.random()
        if fate < 0.3:
            for command in propose.commands:
                if isinstance(command, Write):
                    self.calls[key_of(command)].open_attempts -= 1
            answer: Answer = random.choice((Refused(number, node, None), Full(number, node)))
            self.store.deliver(answer)
            return
        if fate < 0.45:
            self.store.deliver(Unknown(number, node))
            await trio.sleep(random.choice((0.0, 0.3, 3.0)))
        if fate < 0.9:
            replies = [self.apply(command) for command in propose.commands]
            self.store.deliver(Done(number, node, 1, self.machine.applied, replies))

    def apply(self, command: Command) -> Reply:
        """Commit a command."""
        index, time_us = self.machine.applied + 1, int((trio.current_time() + self.ahead_s) * 1e6)
        (reply,) = self.machine.apply([make_entry(index, 1, time_us, command)])
        if isinstance(command, Write) and reply.code == "ok" and reply.revision == index:
            call = self.calls[key_of(command)]
            assert not call.revision, f"{call}: applied again at {index}"
            assert call.code not in DEFINITE, f"{call}: applied at {index}"
            call.revision = index
        return reply


def judge(call: Call, reply: Reply) -> None:
    """Compare what is said of a write with what became of its attempts."""
    call.code = reply.code
    if reply.code in DEFINITE:
        assert not call.open_attempts, f"{call}: an attempt may take effect"
    elif reply.code == "timeout":
        assert call.open_attempts, f"{call}: the outcome is known"
    elif reply.code == "ok":
        assert reply.revision == call.revision > 0, f"{call}: {reply} answers another write"
    else:
        assert reply.code == "session_expired", reply
        assert reply is not FORGOTTEN_SEQ, f"{call}: said to be done while it was awaited"


class Numberer:
    """A client with a session of its own."""

    def __init__(self, store: RaftStore) -> None:
        self.session = ""
        self._store = store
        self._seq = 0

    async def number(self, sets: list[Any]) -> list[Any]:
        """Give writes their seqs, in a session that is opened as often as need be."""
        while not self.session:
            answer = await self._store.write([OpenOrRenew()], timeout_s=4.0)
            if answer.replies[0].code == "ok":
                self.session = msgspec.json.decode(answer.replies[0].value or b"")["session"]
                self._seq = 0
        first = self._seq + 1
        self._seq += len(sets)
        return [Numbered(each, self.session, first + place, first) for place, each in enumerate(sets)]


async def run(random: Random) -> list[Call]:
    """Let writers write before nodes in chaos; return all that was asked for, judged."""
    async with trio.open_nursery() as nursery:
        chaos = Chaos(random, nursery)
        await nursery.start(chaos.store.run)
        nursery.start_soon(chaos.elect)

        async def write(writer: int) -> None:
            # Every second one numbers its writes itself.
            client = Numberer(chaos.store) if writer % 2 else None
            for turn in range(WRITES_EACH):
                keys = [f"{writer}.{turn}.{place}" for place in range(random.choice((1, 1, 3)))]
                calls = [chaos.calls.setdefault(key, Call()) for key in keys]
                sets: list[Any] = [Set(key, msgspec.Raw(b"1")) for key in keys]
                if client is not None:
                    sets = await client.number(sets)
                with trio.move_on_after(random.choice((0.02, 0.5, 100.0, 100.0, 100.0))) as departure:
                    answer = await chaos.store.write(sets, timeout_s=random.choice((0.1, 1.0, 4.0)))
                if not departure.cancelled_caught:
                    for call, reply in zip(calls, answer.replies, strict=True):
                        judge(call, reply)
                        if client is not None and reply.code == "session_expired":
                            client.session = ""

        async with trio.open_nursery() as writers:
            for writer in range(WRITERS):
                writers.start_soon(write, writer)
        nursery.cancel_scope.cancel()
    return list(chaos.calls.values())


@pytest.mark.parametrize("seed", range(20))
def test_C10_what_is_said_of_a_write_is_true_of_all_its_attempts(seed: int) -> None:
    """A definite error: none may take effect. `timeout`: one may. A result: that of the one effect that there was."""
    calls = run_seeded(partial(run, Random(seed)), seed, steps_max=100_000)
    assert {"", "ok", "timeout", "read_only"} <= {call.code for call in calls}
    assert max(call.attempts for call in calls) > 3
