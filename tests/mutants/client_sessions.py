"""Sessions that clients open for themselves: what makes them theirs alone, and their writes take effect once."""

from typing import Any

from tests.mutants.registry import Patch, mutant
from trio_kv.gateway import client_sessions, runs, writes
from trio_kv.gateway.store import Answer
from trio_kv.kv import session as session_module
from trio_kv.kv import sessions as sessions_module
from trio_kv.kv.commands import ClientWrite, Write
from trio_kv.kv.image import ReplyRecord
from trio_kv.kv.reply import Reply
from trio_kv.kv.restorer import Restorer
from trio_kv.kv.session import ClientSession, Session
from trio_kv.kv.sessions import Sessions
from trio_kv.proxy import runs as proxy_runs
from trio_kv.wire.client_sessions import OpenOrRenew


def kv_tests(*names: str) -> tuple[str, ...]:
    """Return tests of the state machine."""
    return tuple(f"tests/unit/test_client_sessions.py::{name}" for name in names)


def gateway_tests(*names: str) -> tuple[str, ...]:
    """Return tests of the gateway."""
    return tuple(f"tests/unit/test_gateway_sessions.py::{name}" for name in names)


@mutant(
    "kv: a session is found by its index alone",
    tests=kv_tests("test_a_guessed_index_is_no_session"),
)
def _(patch: Patch) -> None:
    patch.setattr(Sessions, "find", lambda self, session_id, secret: self.by_id.get(session_id))


@mutant(
    "kv: a client may use a session of a gateway",
    tests=kv_tests("test_a_session_of_a_gateway_is_out_of_reach"),
)
def _(patch: Patch) -> None:
    real = Sessions.take

    def take(self: Sessions, command: ClientWrite) -> Write | Reply:
        session = self.by_id.get(command.session)
        if type(session) is Session:
            return Write(command.session, command.seq, 0, command.operation)
        return real(self, command)

    patch.setattr(Sessions, "take", take)
    patch.setattr(Sessions, "applied", lambda self, command, reply: None)


@mutant(
    "kv: another request under a known seq is taken for a repetition",
    tests=kv_tests("test_another_request_under_a_seq_is_refused"),
)
def _(patch: Patch) -> None:
    real = ClientSession.take

    def take(self: ClientSession, command: ClientWrite) -> Write | Reply:
        self.digests.pop(command.seq, None)
        self.digests[command.seq] = command.digest
        return real(self, command)

    patch.setattr(ClientSession, "take", take)


@mutant(
    "kv: a snapshot says nothing of what answers are for",
    tests=kv_tests("test_another_request_under_a_seq_is_refused"),
)
def _(patch: Patch) -> None:
    real = Restorer._add_reply

    def add_reply(self: Restorer, answer: ReplyRecord) -> None:
        real(self, answer)
        session = self._sessions.by_id[answer.session]
        if isinstance(session, ClientSession):
            session.digests.clear()

    patch.setattr(Restorer, "_add_reply", add_reply)


@mutant(
    "kv: clients may open sessions until there are no more",
    tests=kv_tests("test_clients_leave_room_for_gateways"),
)
def _(patch: Patch) -> None:
    patch.setattr(sessions_module, "CLIENT_SESSIONS_MAX", sessions_module.SESSIONS_MAX)


@mutant(
    "kv: a repeated opening opens a second session",
    tests=kv_tests("test_a_repeated_opening_gives_the_same_session"),
)
def _(patch: Patch) -> None:
    real = Sessions.open

    def open_session(
        self: Sessions, session_id: int, timeout_us: int, time_us: int, secret: str = ""
    ) -> Reply:
        self.by_secret.pop(secret, None)
        return real(self, session_id, timeout_us, time_us, secret)

    patch.setattr(Sessions, "open", open_session)


@mutant(
    "kv: what a client says to have heard is not heeded",
    tests=kv_tests("test_an_explicit_done_reaches_further_back"),
)
def _(patch: Patch) -> None:
    real = ClientSession.take

    def take(self: ClientSession, command: ClientWrite) -> Write | Reply:
        taken = real(self, command)
        return taken if isinstance(taken, Reply) else Write(taken.session, taken.seq, 0, taken.operation)

    patch.setattr(ClientSession, "take", take)


@mutant(
    "kv: who says nothing of done keeps all answers",
    tests=kv_tests("test_who_says_nothing_of_done_has_the_last_answers"),
)
def _(patch: Patch) -> None:
    patch.setattr(session_module, "SEQS_UNSAID", 1 << 40)


@mutant(
    "kv: a client that found no room hears so for ever",
    tests=kv_tests("test_no_room_for_a_text_is_no_answer_for_ever"),
)
def _(patch: Patch) -> None:
    real = Sessions.applied

    def applied(self: Sessions, command: ClientWrite, reply: Reply) -> None:
        real(self, command, Reply("overloaded") if reply is sessions_module.FULL_OF_TEXTS else reply)

    patch.setattr(Sessions, "applied", applied)


@mutant(
    "C1 a client's write goes out under the gateway's own number",
    tests=gateway_tests("test_C1_a_clients_write_is_repeated_under_the_clients_number"),
)
def _(patch: Patch) -> None:
    patch.setattr(runs, "OF_CLIENTS", frozenset({OpenOrRenew}))


@mutant(
    "C10 a refusal of one attempt denies what another may do",
    tests=gateway_tests("test_a_definite_error_is_told_only_if_no_other_attempt_can_take_effect"),
)
def _(patch: Patch) -> None:
    real = client_sessions.retell

    def retell(answer: Answer, asked: Any, *, is_sure: bool) -> Answer:
        del is_sure
        return real(answer, asked, is_sure=True)

    patch.setattr(writes, "retell", retell)


@mutant(
    "proxy: a read stands before a write that its client may have sent before",
    tests=gateway_tests("test_no_read_stands_before_a_write_of_a_clients_session"),
)
def _(patch: Patch) -> None:
    patch.setattr(proxy_runs, "OF_CLIENTS", frozenset())
