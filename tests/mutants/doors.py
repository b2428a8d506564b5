"""The gateway and the proxy: what clients are told, and in which order."""

from collections.abc import Iterable
from typing import Any

import msgspec

from tests.mutants.registry import Patch, mutant
from trio_kv.gateway import raft, reads, runs
from trio_kv.gateway.pending import PendingWrite
from trio_kv.gateway.raft import RaftStore
from trio_kv.gateway.reads import Reads
from trio_kv.gateway.store import Answer
from trio_kv.gateway.writes import Writes
from trio_kv.kv.operations import Get
from trio_kv.kv.reply import Reply
from trio_kv.proxy import runs as proxy_runs
from trio_kv.proxy import session
from trio_kv.proxy.decoding import LineDecoder
from trio_kv.proxy.session import Session
from trio_kv.proxy.states import Step
from trio_kv.wire import requests
from trio_kv.wire.node_port import Refused
from trio_kv.wire.operations import Request

PROGRAM_ORDER = "tests/integration/test_proxy.py::test_runs_are_cut_in_program_order"


def gateway_tests(*names: str) -> tuple[str, ...]:
    """Return tests of the gateway."""
    return tuple(f"tests/unit/test_gateway_scenarios.py::{name}" for name in names)


@mutant(
    "C1 a write is repeated under a new number",
    world="whole",
    tests=gateway_tests("test_C1_a_write_is_repeated_under_its_own_number"),
)
def _(patch: Patch) -> None:
    real = Writes._hand_over

    def hand_over(self: Writes, now: float, write: Any) -> bool:
        if write.unresolved and write.session is not None:
            first = self._session.seq + 1
            write.commands = [msgspec.structs.replace(each, seq=first) for each in write.commands]
            self._session.seq += len(write.commands)
        return real(self, now, write)

    patch.setattr(Writes, "_hand_over", hand_over)


@mutant(
    "C1 runs of two connections get the same numbers",
    tests=gateway_tests("test_C1_two_writes_never_share_a_number"),
)
def _(patch: Patch) -> None:
    real = Writes._begin

    def begin(self: Writes, now: float, write: PendingWrite) -> Answer | None:
        self._session.seq = 0
        return real(self, now, write)

    patch.setattr(Writes, "_begin", begin)


@mutant(
    "C10 a write without an answer in time is said to have failed",
    world="whole",
    tests=gateway_tests("test_C10_a_write_that_was_handed_over_never_fails_definitely"),
)
def _(patch: Patch) -> None:
    real = Writes._end_late

    def end_late(self: Writes, write: Any) -> None:
        write.unresolved = 0
        real(self, write)

    patch.setattr(Writes, "_end_late", end_late)


@mutant(
    "C10 the refusal of one node denies what another one had taken",
    tests=gateway_tests("test_C10_a_refusal_does_not_deny_an_earlier_attempt"),
)
def _(patch: Patch) -> None:
    real = RaftStore._on_no_result

    def on_no_result(self: RaftStore, now: float, answer: Any) -> None:
        real(self, now, answer)
        write = self._writes.pending.get(answer.number)
        if write is not None and isinstance(answer, Refused):
            write.unresolved = 0

    patch.setattr(RaftStore, "_on_no_result", on_no_result)


@mutant(
    "C10 a write that nobody took is said to be unknown",
    tests=gateway_tests("test_C10_a_write_that_nobody_took_fails_definitely"),
)
def _(patch: Patch) -> None:
    real = Writes._end_late

    def end_late(self: Writes, write: Any) -> None:
        write.unresolved = 1
        real(self, write)

    patch.setattr(Writes, "_end_late", end_late)


@mutant(
    "R2 a read that finds nobody is answered like a missing key",
    tests=gateway_tests("test_R2_a_read_that_finds_nobody_is_no_missing_key"),
)
def _(patch: Patch) -> None:
    real = runs.refuse

    def refuse(code: str, message: str, count: int = 1) -> Answer:
        return real("missing" if code == "unavailable" else code, message, count)

    patch.setattr(reads, "refuse", refuse)


@mutant(
    "R2 a read that is lost is not given to another node",
    tests=gateway_tests("test_R2_a_read_that_is_lost_is_given_to_another_node"),
)
def _(patch: Patch) -> None:
    patch.setattr(Reads, "_hedge", lambda self, now, read: None)


@mutant("R a read is answered by what the proxy saw last", tests=(PROGRAM_ORDER,))
def _(patch: Patch) -> None:
    real = Session.take_answer
    seen: dict[str, Reply] = {}

    def take_answer(self: Session, answer: Answer) -> Step | None:
        run: list[Any] = self._items[self._done : self._handed]
        pairs = list(zip(run, answer.replies, strict=True))
        replies = [
            seen.setdefault(each.operation.key, reply) if isinstance(each.operation, Get) else reply
            for each, reply in pairs
        ]
        answer = msgspec.structs.replace(answer, replies=replies)
        return real(self, answer)

    patch.setattr(Session, "take_answer", take_answer)


@mutant(
    "proxy: the replies of a run are crossed",
    tests=("tests/integration/test_proxy.py::test_a_long_run_is_cut",),
)
def _(patch: Patch) -> None:
    real = Session.take_answer

    def take_answer(self: Session, answer: Answer) -> Step | None:
        self._items[self._done : self._handed] = self._items[self._done : self._handed][::-1]
        return real(self, answer)

    patch.setattr(Session, "take_answer", take_answer)


@mutant("proxy: the reads of a chunk overtake its writes", tests=(PROGRAM_ORDER,))
def _(patch: Patch) -> None:
    real = LineDecoder.go_on

    def is_no_read(item: Request | bytes) -> bool:
        return isinstance(item, bytes) or not isinstance(item.operation, Get)

    def go_on(self: LineDecoder, items: list[Any], work: int) -> int:
        work = real(self, items, work)
        items.sort(key=is_no_read)
        return work

    patch.setattr(LineDecoder, "go_on", go_on)


@mutant(
    "C10 a read beside a write that is late is said to be late as well",
    tests=gateway_tests("test_C10_a_run_that_is_late_is_unknown_and_its_reads_are_not"),
)
def _(patch: Patch) -> None:
    def end(self: runs.Run, refusal: Reply, answer: Answer | None = None) -> Answer:
        return Answer([refusal] * len(self.operations))

    patch.setattr(runs.Run, "end", end)


@mutant(
    "R2 reads end with the writes beside them that were refused",
    tests=gateway_tests("test_R2_reads_go_on_where_the_writes_beside_them_are_refused"),
)
def _(patch: Patch) -> None:
    patch.setattr(runs.Run, "reads_go_on", lambda self, refusal: False)


@mutant(
    "C10 reads go on though the writes beside them may take effect",
    tests=gateway_tests("test_C10_reads_do_not_go_on_while_an_attempt_may_take_effect"),
)
def _(patch: Patch) -> None:
    real = Writes.on_no_result

    def on_no_result(self: Writes, now: float, write: Any, answer: Any) -> None:
        write.unresolved = 1
        real(self, now, write, answer)

    patch.setattr(Writes, "on_no_result", on_no_result)


@mutant(
    "C1 a run that ends with a read does not tell that its session was forgotten",
    tests=gateway_tests("test_a_run_that_ends_with_reads_tells_that_its_session_was_forgotten"),
)
def _(patch: Patch) -> None:
    real = runs.take_apart
    patch.setattr(
        raft,
        "take_apart",
        lambda run: msgspec.structs.replace(real(run), last_write=len(run) - 1),
    )


@mutant(
    "proxy: a stale read goes with the writes beside it",
    tests=("tests/unit/test_session.py::test_stale_reads_are_runs_of_their_own",),
)
def _(patch: Patch) -> None:
    real = proxy_runs.cut_run

    def cut_run(first: Request, items: Iterable[Any]) -> Any:
        fresh: list[Any] = [
            item if isinstance(item, bytes) else msgspec.structs.replace(item, is_stale=False)
            for item in items
        ]
        return real(fresh[0], fresh)

    patch.setattr(session, "cut_run", cut_run)


TOGETHER = ("tests/property/test_requests.py::test_lines_are_read_together_as_they_are_one_by_one",)


@mutant("wire: of lines that are read together a member may stand twice", tests=TOGETHER)
def _(patch: Patch) -> None:
    patch.setattr(requests, "_has_members", lambda chunk, lines, members: True)


@mutant("wire: lines that are read together may be cut anywhere", tests=TOGETHER)
def _(patch: Patch) -> None:
    patch.setattr(requests, "_has_an_object_a_line", lambda chunk: True)
