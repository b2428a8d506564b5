"""Sessions that clients open for themselves: their secrets, their seqs, what they keep, what they leave to others."""

import msgspec
import pytest

from trio_kv.kv import sessions as sessions_module
from trio_kv.kv.commands import UNSAID, ClientWrite, Command, Expire, OpenSession, RenewSession, Write
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import AnyWrite, Delete, Incr, Set
from trio_kv.kv.operations.operation import SessionChange
from trio_kv.kv.reply import Reply
from trio_kv.kv.restorer import Restorer
from trio_kv.kv.session import SEQS_UNSAID, ClientSession
from trio_kv.kv.sessions import CLIENT_SESSIONS_MAX, SESSIONS_MAX, Sessions
from trio_kv.raft.entry import make_entry

SECRET = "00c0ffee00c0ffee"
SESSION = 1
TIMEOUT_US = 1_000


def at(machine: Machine, time_us: int, command: Command) -> Reply:
    """Apply one command at a cluster time."""
    return machine.apply([make_entry(machine.applied + 1, 1, time_us, command)])[0]


def started() -> Machine:
    """Return a machine in which a client has opened a session."""
    machine = Machine()
    assert at(machine, 0, OpenSession(TIMEOUT_US, SECRET)) == Reply("ok", msgspec.Raw(b"1000"), SESSION)
    return machine


def ask(seq: int, operation: AnyWrite, done: int = UNSAID, secret: str = SECRET) -> ClientWrite:
    """Return what a gateway makes of a client's write; its digest is that of its bytes."""
    return ClientWrite(SESSION, seq, done, operation, secret, hash(msgspec.json.encode(operation)))


def code(machine: Machine, seq: int, operation: AnyWrite, done: int = UNSAID) -> str:
    """Ask, and return the code of the reply."""
    return at(machine, 0, ask(seq, operation, done)).code


def restored(machine: Machine) -> Machine:
    """Return a machine made of the snapshot of one."""
    restorer = Restorer()
    for chunk in machine.copy().freeze().chunks():
        restorer.feed(chunk)
    return restorer.finish()


def test_C1_a_repetition_gets_the_first_answer_and_takes_effect_once() -> None:
    """However often, in whatever order, and after a restart from a snapshot (scenario C1)."""
    machine = started()
    first = at(machine, 0, ask(5, Incr("n")))
    second = at(machine, 0, ask(6, Incr("n")))
    for each in (machine, restored(machine)):
        assert at(each, 0, ask(5, Incr("n"))) == first
        assert at(each, 0, ask(6, Incr("n"))) == second
        item = each.get("n")
        assert item is not None
        assert bytes(item.value) == b"2"


def test_another_request_under_a_seq_is_refused() -> None:
    """It is told from a repetition, before and after a snapshot, and leaves the first answer where it is."""
    machine = started()
    first = at(machine, 0, ask(1, Set("k", msgspec.Raw(b"1"))))
    for each in (machine, restored(machine)):
        assert code(each, 1, Set("k", msgspec.Raw(b"2"))) == "bad_request"
        assert code(each, 1, Delete("k")) == "bad_request"
        assert at(each, 0, ask(1, Set("k", msgspec.Raw(b"1")))) == first


@pytest.mark.parametrize("secret", ["00c0ffee00c0ffef", ""])
def test_a_guessed_index_is_no_session(secret: str) -> None:
    """Who does not know its secret writes nothing under a session, renews nothing, and hears nothing of it."""
    machine = started()
    assert at(machine, 5, ask(1, Delete("k"), secret=secret)).code == "session_expired"
    assert at(machine, 5, RenewSession(SESSION, secret)).code == "session_expired"
    assert machine.expires_at_us == TIMEOUT_US


@pytest.mark.parametrize("secret", [SECRET, ""])
def test_a_session_of_a_gateway_is_out_of_reach(secret: str) -> None:
    """It has no secret, and that can't be told either."""
    machine = Machine()
    at(machine, 0, OpenSession(TIMEOUT_US))
    assert at(machine, 5, ask(1, Delete("k"), secret=secret)).code == "session_expired"


def test_a_repeated_opening_gives_the_same_session() -> None:
    """An attempt that was repeated, because its answer got lost, makes no second one; it renews what it has opened."""
    machine = started()
    assert at(machine, 7, OpenSession(TIMEOUT_US, SECRET)).revision == SESSION
    assert machine.changes == [SessionChange("renew", SESSION)]
    assert len(machine.sessions) == 1
    assert machine.expires_at_us == 7 + TIMEOUT_US
    at(machine, 7, OpenSession(TIMEOUT_US, "another"))
    assert len(machine.sessions) == 2


def test_what_keeps_a_session() -> None:
    """A write that is applied and a renewal do; a repetition and what is refused don't."""
    machine = started()
    assert at(machine, 10, ask(1, Delete("k"))).code == "missing"
    assert machine.expires_at_us == 10 + TIMEOUT_US
    at(machine, 20, ask(1, Delete("k")))
    at(machine, 20, ask(1, Delete("other")))
    assert machine.expires_at_us == 10 + TIMEOUT_US
    assert at(machine, 30, RenewSession(SESSION, SECRET)) == Reply(
        "ok", msgspec.Raw(b"1000"), machine.applied
    )
    assert machine.expires_at_us == 30 + TIMEOUT_US


def test_the_end_of_a_session_is_told() -> None:
    """As a change, and in words to who uses it still; the same secret opens another one then."""
    machine = started()
    at(machine, 0, ask(1, Incr("n")))
    at(machine, TIMEOUT_US, Expire())
    assert machine.changes == [SessionChange("forget", SESSION)]
    assert machine.forgotten == [SESSION]
    reply = at(machine, TIMEOUT_US, ask(1, Incr("n")))
    assert reply.code == "session_expired"
    assert "forgotten, because no write and no renewal of it was applied" in reply.message
    assert machine.forgotten == []
    assert (machine.sessions.client_replies, machine.sessions.by_secret) == (0, {})
    assert at(machine, TIMEOUT_US, OpenSession(TIMEOUT_US, SECRET)).revision == machine.applied


def test_who_says_nothing_of_done_has_the_last_answers() -> None:
    """That is the highest seq less 1,023, wherever others stand; what is below is forgotten, and not applied again."""
    machine = started()
    assert code(machine, 10, Incr("n")) == "ok"
    assert code(machine, 10 + SEQS_UNSAID, Incr("n")) == "ok"
    assert code(machine, 10, Incr("n")) == "ok"
    assert code(machine, 11 + SEQS_UNSAID, Incr("n")) == "ok"
    for each in (machine, restored(machine)):
        assert code(each, 10, Incr("n")) == "session_expired"
        assert code(each, 11, Incr("n")) == "ok"
        assert each.sessions.client_replies == 3


def test_an_explicit_done_reaches_further_back() -> None:
    """Seqs up to done + 65,535 are taken, beyond it is `overloaded`, which keeps nothing."""
    machine = started()
    assert code(machine, 3, Incr("n"), done=3) == "ok"
    assert code(machine, 3 + 65_535, Incr("n"), done=3) == "ok"
    assert code(machine, 3 + 65_536, Incr("n"), done=3) == "overloaded"
    assert code(machine, 3, Incr("n"), done=3) == "ok"
    assert code(machine, 2, Incr("n"), done=2) == "session_expired"
    assert code(machine, 3 + 65_536, Incr("n"), done=4) == "ok"
    assert code(machine, 3, Incr("n"), done=0) == "session_expired"


def test_clients_leave_room_for_gateways() -> None:
    """1,024 of all sessions are for gateways, whatever clients open; a repeated opening is none more."""
    sessions = Sessions()
    for number in range(1, CLIENT_SESSIONS_MAX + 1):
        assert sessions.open(number, 10, 0, f"{number:016x}").code == "ok"
    assert sessions.open(SESSIONS_MAX, 10, 0, SECRET).code == "overloaded"
    assert sessions.open(SESSIONS_MAX, 10, 0, f"{7:016x}").revision == 7
    for number in range(CLIENT_SESSIONS_MAX + 1, SESSIONS_MAX + 1):
        assert sessions.open(number, 10, 0).code == "ok"
    assert sessions.open(SESSIONS_MAX + 1, 10, 0).code == "overloaded"


def test_answers_for_clients_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sessions of clients keep too many, a further command of one has no effect; a gateway's has."""
    machine = started()
    monkeypatch.setattr(sessions_module, "CLIENT_REPLIES_MAX", 2)
    own = at(machine, 0, OpenSession(TIMEOUT_US)).revision
    assert [code(machine, seq, Incr("n"), done=1) for seq in (1, 2, 3, 2)] == ["ok", "ok", "overloaded", "ok"]
    assert at(machine, 0, Write(own, 1, 0, Incr("n"))).code == "ok"
    again = restored(machine)
    assert code(again, 3, Incr("n"), done=1) == "overloaded"
    assert code(again, 2, Incr("n"), done=2) == "ok"
    assert code(again, 3, Incr("n"), done=2) == "ok"
    item = again.get("n")
    assert item is not None
    assert bytes(item.value) == b"4"


def test_no_room_for_a_text_is_no_answer_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that hears `overloaded` asks again under the same seq, and is served when there is room."""
    monkeypatch.setattr(sessions_module, "HELD_BYTES_MAX", 1_000)
    machine = started()
    large = Set("k", msgspec.Raw(b'"' + b"x" * 1_000 + b'"'))
    assert code(machine, 1, large) == "ok"
    assert code(machine, 2, Delete("k")) == "ok"
    assert code(machine, 3, large) == "ok"
    assert code(machine, 4, Delete("k")) == "overloaded"
    assert code(machine, 4, Delete("k"), done=3) == "ok"


def test_texts_of_clients_leave_room_for_those_who_have_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much clients let be kept for them, a write without a number is carried out."""
    monkeypatch.setattr(sessions_module, "HELD_BYTES_MAX", 2_000)
    monkeypatch.setattr(sessions_module, "CLIENT_HELD_BYTES_MAX", 1_000)
    machine = started()
    own = at(machine, 0, OpenSession(TIMEOUT_US)).revision
    large = Set("k", msgspec.Raw(b'"' + b"x" * 1_000 + b'"'))
    assert code(machine, 1, large) == "ok"
    assert code(machine, 2, Delete("k")) == "ok"
    assert code(machine, 3, large) == "ok"
    assert code(machine, 4, Delete("k")) == "overloaded"
    assert at(machine, 0, Write(own, 1, 0, Delete("k"))).code == "ok"


def test_a_copy_changes_on_its_own() -> None:
    """A frozen or copied machine keeps the sessions that it has."""
    machine = started()
    at(machine, 0, ask(1, Incr("n")))
    twin, frozen = machine.copy(), machine.freeze()
    at(machine, 0, ask(2, Incr("n")))
    machine.thaw()
    session, other = machine.sessions.by_id[SESSION], twin.sessions.by_id[SESSION]
    assert isinstance(session, ClientSession)
    assert isinstance(other, ClientSession)
    assert (len(session.digests), len(other.digests)) == (2, 1)
    assert frozen.head.applied == 2
    assert at(twin, 0, ask(2, Incr("n"))).revision == 3
