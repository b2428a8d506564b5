"""Simulated clients: each is a gateway of its own, with a session, retries under the same seq, and reads anywhere.

Half of them stand for gateways that pass on what a client of theirs asks under a session of its own.

Everything a client does hangs on events: its timers and the answers that reach it. It knows nothing of the world but
how to send a request and how to be called later.
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from random import Random
from zlib import crc32

import attrs
import msgspec
from msgspec import UNSET

from trio_kv.check.run_order import take_apart
from trio_kv.kv.commands import UNSAID, ClientWrite, Command, OpenSession, Write
from trio_kv.kv.operations import AnyWrite, Cas, Delete, Get, Set
from trio_kv.kv.operations.operation import encode as encode_operation
from trio_kv.sim.asked import Operation
from trio_kv.sim.families import Family, FamilyRequests
from trio_kv.sim.histories import exchanges_of
from trio_kv.sim.plan import Plan
from trio_kv.wire.node_port import Answer, Done, Place, Propose, Read, Refused, ReplyTo

FAMILY = 0.35
"""Share of what is asked of the family."""


@attrs.frozen
class Port:
    """What a client can do."""

    now: Callable[[], float]
    after: Callable[..., None]
    """(delay_s, callback, *arguments)."""
    send: Callable[[int, Propose | Read], None]
    next_number: Callable[[], int]


class Client:
    """A client with some lanes, one operation under way in each, all in one session."""

    def __init__(self, name: int, plan: Plan, random: Random, port: Port, family: Family) -> None:
        """Prepare; `start` begins."""
        self.name = name
        self.history: list[Operation] = []
        self.is_stopping = False
        self._reply_to = ReplyTo(name, 1)
        self._plan = plan
        self._random = random
        self._places = Random(f"{plan.seed}/{name}/places")
        """Of its own: what is read between writes changes nothing else of a run."""
        self._port = port
        self._family = family
        self._family_requests = FamilyRequests(random, Random(f"{plan.seed}/{name}/ttls"), family, f"c{name}")
        self._sessions = Random(f"{plan.seed}/{name}/sessions")
        """Of its own, too."""
        self._has_secrets = self._sessions.random() < 0.5
        self._secret = ""
        """That of the session, if it is one that a client opened."""
        self._session = 0
        self._opening: Operation | None = None
        self._seq = 0
        self._awaited: set[int] = set()
        self._values = 0
        self._read: dict[str, msgspec.Raw] = {}
        """What was last seen of each key: what a cas expects."""
        self._under_way: dict[int, Operation] = {}
        self._leader = random.randint(1, plan.nodes)

    def start(self) -> None:
        """Let each lane begin an operation soon."""
        for lane in range(1, self._plan.lanes + 1):
            self._pause(lane)

    def stop(self) -> None:
        """Begin nothing new."""
        self.is_stopping = True

    @property
    def is_idle(self) -> bool:
        """Whether no operation is under way."""
        return all(operation.ended_at_s is not None for operation in self.history[-self._plan.lanes * 4 :])

    def take(self, answer: Answer) -> None:
        """Hear an answer. One to an attempt that was given up already counts as well: it is true all the same."""
        operation = self._under_way.pop(answer.number, None)
        if operation is None or operation.ended_at_s is not None:
            return
        if isinstance(answer, Done):
            self._done(operation, answer)
        elif answer.number == operation.numbers[-1]:
            hint = answer.hint if isinstance(answer, Refused) else None
            self._leader = hint if hint is not None else self._random.randint(1, self._plan.nodes)
            self._port.after(
                self._random.uniform(0.005, 0.05), self._retry, operation, operation.attempts, self._leader
            )

    def probe(self, node: int, key: str, kind: str) -> Operation:
        """Begin an operation of the liveness phase, first asked of this node.

        Args:
            node: the first to be asked.
            key: what to read or write.
            kind: open, get or set; set only after an open has ended.

        """
        now = self._port.now()
        if kind == "get":
            operation = Operation(kind, (key,), now, queries=(Get(key),))
        elif kind == "open":
            operation = self._opening = Operation(kind, (), now, templates=(self._draw_opening(60_000_000),))
        else:
            seq, self._seq = self._seq, self._seq + 1
            self._awaited.add(seq)
            command = self._command(kind, key, seq)
            operation = Operation(kind, (key,), now, self._session, (seq,), (command,))
        self._begin(operation, node)
        return operation

    def _pause(self, lane: int) -> None:
        self._port.after(self._random.expovariate(1 / self._plan.pause_between_s), self._next, lane)

    def _next(self, lane: int) -> None:
        if self.is_stopping:
            return
        random, plan = self._random, self._plan
        if random.random() < FAMILY and (self._session or random.random() < plan.read_share):
            self._ask_family(lane)
        elif random.random() < plan.read_share:
            count = random.choice((1, 1, 2))
            keys = tuple(f"k{random.randrange(plan.keys)}" for _ in range(count))
            node = random.choice((0, *range(1, plan.nodes + 1)))
            queries = tuple(Get(key) for key in keys)
            self._begin(Operation("get", keys, self._port.now(), lane=lane, queries=queries), node)
        elif self._session:
            self._begin(self._draw_write(lane), 0)
        elif self._opening is None:
            commands = (self._draw_opening(plan.session_timeout_us),)
            self._opening = Operation("open", (), self._port.now(), templates=commands, lane=lane)
            self._begin(self._opening, 0)
        else:
            self._pause(lane)

    def _ask_family(self, lane: int) -> None:
        """Ask something of the family: one to three things at once."""
        random, now = self._random, self._port.now()
        count = random.choice((1, 1, 3))
        if not self._session or random.random() < self._plan.read_share:
            node = random.choice((0, *range(1, self._plan.nodes + 1)))
            queries = tuple(self._family_requests.query() for _ in range(count))
            self._begin(Operation("ask", (), now, lane=lane, queries=queries), node)
            return
        seqs = self._take_seqs(count)
        commands = tuple(self._family_write(seq) for seq in seqs)
        places: tuple[Place, ...] = ()
        if random.random() < 0.3:
            places = ((random.randrange(count + 1), [self._family_requests.query()]),)
        self._begin(Operation("write", (), now, self._session, seqs, commands, places, lane=lane), 0)

    def _family_write(self, seq: int) -> Command:
        return self._numbered(seq, self._family_requests.write())

    def _numbered(self, seq: int, operation: AnyWrite) -> Command:
        done = min(self._awaited)
        if not self._secret:
            return Write(self._session, seq, done, operation)
        digest = crc32(encode_operation(operation))
        # Whoever tells no `done` awaits the last thousand.
        done = UNSAID if self._sessions.random() < 0.2 else done
        return ClientWrite(self._session, seq, done, operation, self._secret, digest)

    def _draw_opening(self, timeout_us: int) -> OpenSession:
        self._secret = f"{self._sessions.getrandbits(64):016x}" if self._has_secrets else ""
        return OpenSession(timeout_us, self._secret)

    def _take_seqs(self, count: int) -> tuple[int, ...]:
        seqs = tuple(range(self._seq, self._seq + count))
        self._seq += count
        self._awaited.update(seqs)
        return seqs

    def _draw_write(self, lane: int) -> Operation:
        random = self._random
        kind = random.choice(("set", "set", "delete", "cas"))
        count = random.choice((1, 1, 3))
        keys = tuple(f"k{random.randrange(self._plan.keys)}" for _ in range(count))
        seqs = self._take_seqs(count)
        commands = tuple(self._command(kind, key, seq) for key, seq in zip(keys, seqs, strict=True))
        places = self._draw_places(keys) if self._places.random() < 0.5 else ()
        return Operation(kind, keys, self._port.now(), self._session, seqs, commands, places, lane=lane)

    def _draw_places(self, keys: Sequence[str]) -> tuple[Place, ...]:
        """Draw reads between writes of these keys: mostly of the same keys."""
        random = self._places
        others = (*keys, *keys, f"k{random.randrange(self._plan.keys)}")
        places = [place for place in range(len(keys) + 1) if random.random() < 0.6]
        return tuple(
            (place, [Get(random.choice(others)) for _ in range(random.choice((1, 1, 2)))]) for place in places
        )

    def _command(self, kind: str, key: str, seq: int) -> Command:
        return self._numbered(seq, self._write(kind, key))

    def _write(self, kind: str, key: str) -> AnyWrite:
        if kind == "delete":
            return Delete(key)
        self._values += 1
        # Now and then a value of several sectors: only such a write can be torn.
        fill = "x" * self._random.choice((0, 0, 700, 2500))
        value = msgspec.Raw(f'"c{self.name}-{self._values}{fill}"'.encode())
        if kind == "set":
            return Set(key, value, self._random.choice((UNSET, UNSET, UNSET, 0)))
        return Cas(key, value, self._read.get(key, UNSET))

    def _begin(self, operation: Operation, node: int) -> None:
        self.history.append(operation)
        operation.node = node
        self._attempt(operation)

    def _attempt(self, operation: Operation) -> None:
        number = self._port.next_number()
        operation.attempts += 1
        operation.numbers.append(number)
        self._under_way[number] = operation
        node = operation.asked = operation.node or self._leader
        request: Propose | Read
        if operation.queries:
            request = Read(self._reply_to, number, operation.queries)
        else:
            request = Propose(self._reply_to, number, self._commands(operation), 0, operation.places)
        self._port.send(node, request)
        # More patient each time: clients that only ask faster keep a slow cluster slow.
        patience = min(operation.attempts, 3)
        timeout_s = self._plan.client_timeout_s * patience * self._random.uniform(0.7, 1.3)
        self._port.after(timeout_s, self._retry, operation, operation.attempts)

    def _commands(self, operation: Operation) -> Sequence[Command]:
        """Return the commands with what is awaited now: `done` may have moved on since the first attempt."""
        # New objects each time: by them the judges tell the attempts apart.
        if operation.session != self._session or not operation.seqs:
            return [msgspec.structs.replace(command) for command in operation.templates]
        done = min(self._awaited)
        if operation.attempts > 1 and self._random.random() < self._plan.forged_retries:
            # A client that forgot what it asked: the first command of this (session, seq) that is applied counts.
            forged = [
                self._command(operation.kind, key, seq) if key else self._family_write(seq)
                for key, seq in zip_longest(operation.keys, operation.seqs)
            ]
            operation.forged += forged
            return forged
        return [msgspec.structs.replace(command, done=done) for command in operation.templates]

    def _retry(self, operation: Operation, attempts: int, hint: int = 0) -> None:
        """Ask again, elsewhere, unless an answer came or another retry was made meanwhile."""
        if operation.ended_at_s is not None or operation.attempts != attempts:
            return
        random, nodes = self._random, self._plan.nodes
        # After some tries all nodes take turns: by luck alone one could ask dead nodes for long.
        other = random.randint(1, nodes) if operation.attempts <= 2 else operation.asked % nodes + 1
        if operation.queries:
            operation.node = other
        else:
            operation.node = hint
            if not hint and (random.random() < 0.4 or operation.attempts > 2):
                self._leader = other
        self._attempt(operation)

    def _done(self, operation: Operation, answer: Done) -> None:
        operation.ended_at_s = self._port.now()
        operation.replies, operation.answered_by = answer.replies, answer.node
        if operation.places:
            commands = len(operation.templates)
            operation.replies, operation.reads = take_apart(commands, operation.places, answer.replies)
        operation.outcome = ",".join(f"{reply.code}:{reply.revision}" for reply in answer.replies)
        if operation.kind == "open":
            if operation is self._opening:
                self._opening = None
                self._session, self._seq = answer.replies[0].revision, 0
                self._awaited = set()
        elif operation.seqs and operation.session == self._session:
            self._leader = answer.node
            self._awaited.difference_update(operation.seqs)
            if any(reply.code == "session_expired" for reply in operation.replies):
                self._session = 0
        self._learn(operation)
        for number in operation.numbers:
            self._under_way.pop(number, None)
        if not self.is_stopping:
            self._pause(operation.lane)

    def _learn(self, operation: Operation) -> None:
        """Note what answers tell of keys: later requests go by that."""
        if operation.kind == "get":
            for key, reply in zip(operation.keys, operation.replies, strict=True):
                if reply.value is not None:
                    self._read[key] = reply.value
        elif operation.is_of_family:
            for exchange in exchanges_of(self.name, operation):
                self._family.learn(exchange)
