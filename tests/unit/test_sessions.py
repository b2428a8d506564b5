"""Client sessions: once and only once, and forgotten only by cluster time."""

from collections.abc import Sequence

import msgspec
import pytest

from trio_kv.kv import sessions as sessions_module
from trio_kv.kv.commands import Command, Expire, OpenSession, RenewSession, Write
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Cas, Delete, Set
from trio_kv.kv.reply import Reply
from trio_kv.kv.session import REPLIES_MAX, Session
from trio_kv.kv.sessions import SESSIONS_MAX, Sessions
from trio_kv.raft.entry import make_entry

SESSION = 1
"""The session that every test opens first."""

TIMEOUT_US = 1_000


def started() -> Machine:
    """Return a machine with one session, opened at cluster time 0."""
    machine = Machine()
    assert at(machine, 0, OpenSession(TIMEOUT_US)) == Reply("ok", revision=SESSION)
    return machine


def at(machine: Machine, time_us: int, command: Command) -> Reply:
    """Apply one command at a cluster time."""
    return run(machine, time_us, [command])[0]


def run(machine: Machine, time_us: int, commands: Sequence[Command]) -> list[Reply]:
    """Apply commands as one run of entries."""
    first = machine.applied + 1
    return machine.apply(
        [make_entry(first + place, 1, time_us, command) for place, command in enumerate(commands)]
    )


def put(seq: int, value: str = "1", *, done: int = 0, session: int = SESSION) -> Write:
    """Return a command that sets the key `k`."""
    return Write(session, seq, done, Set("k", msgspec.Raw(value)))


def value_of(machine: Machine, key: str = "k") -> str | None:
    """Return what a key holds, as text."""
    item = machine.get(key)
    return None if item is None else bytes(item.value).decode()


def test_repeated_seq_gets_its_first_answer() -> None:
    """A command that comes again changes nothing and is answered as the first time (scenario C1)."""
    machine = started()
    first = at(machine, 0, put(7, '"first"'))
    at(machine, 0, put(8, '"second"'))
    assert at(machine, 0, put(7, '"first"')) == first
    assert value_of(machine) == '"second"'


def test_repeated_delete_gets_the_old_value_again() -> None:
    """The kept answer carries its value, though the key is long gone."""
    machine = started()
    at(machine, 0, put(1, "[1]"))
    first = at(machine, 0, Write(SESSION, 2, 0, Delete("k")))
    assert first == Reply("ok", msgspec.Raw(b"[1]"), 3)
    assert at(machine, 0, Write(SESSION, 2, 0, Delete("k"))) == first


def test_new_seqs_are_applied_in_whatever_order_they_arrive() -> None:
    """A seq that was overtaken by a higher one is still new, as long as its owner awaits it."""
    machine = started()
    assert [at(machine, 0, put(seq, str(seq), done=1)).code for seq in (9, 3, 1, 5)] == ["ok"] * 4
    assert value_of(machine) == "5"


def test_seq_below_done_is_not_applied() -> None:
    """A late copy of a command whose owner had its answer must not take effect again."""
    machine = started()
    at(machine, 0, put(1, "1"))
    at(machine, 0, put(5, "5", done=5))
    assert at(machine, 0, put(1, "1", done=0)).code == "session_expired"
    assert at(machine, 0, put(4, "4", done=0)).code == "session_expired"
    assert value_of(machine) == "5"


def test_seq_below_its_own_done_is_not_applied() -> None:
    """A command whose owner says that it does not await it is refused."""
    machine = started()
    assert at(machine, 0, put(3, done=4)).code == "session_expired"
    assert value_of(machine) is None


def test_done_never_goes_back() -> None:
    """An old command with a lower done does not reopen what was forgotten."""
    machine = started()
    run(machine, 0, [put(10, done=10), put(11, done=2), put(9, done=2)])
    assert machine.sessions.by_id[SESSION].done == 10
    assert sorted(machine.sessions.by_id[SESSION].replies) == [10, 11]


def test_answers_are_kept_from_done_on() -> None:
    """Answers below done are dropped, whether done moves by a step or by a leap."""
    machine = started()
    run(machine, 0, [put(seq) for seq in range(100)])
    replies = machine.sessions.by_id[SESSION]
    at(machine, 0, put(100, done=1))
    assert min(replies.replies) == 1
    at(machine, 0, put(101, done=60))
    assert sorted(replies.replies) == list(range(60, 102))
    at(machine, 0, put(1 << 60, done=1 << 60))
    assert list(replies.replies) == [1 << 60]


def test_full_session_is_overloaded_until_done_moves() -> None:
    """A session keeps 65,536 answers; the next command is not applied, and known seqs are still answered."""
    machine = started()
    assert {reply.code for reply in run(machine, 0, [put(seq) for seq in range(REPLIES_MAX)])} == {"ok"}
    assert at(machine, 0, put(REPLIES_MAX, '"too many"')).code == "overloaded"
    assert value_of(machine) == "1"
    assert at(machine, 0, put(5)).code == "ok"
    assert at(machine, 0, put(REPLIES_MAX, "2", done=1)).code == "ok"
    assert value_of(machine) == "2"


def cas(
    seq: int, value: str, expected: str, *, done: int = 0, session: int = SESSION, key: str = "k"
) -> Write:
    """Return a command that changes a key that holds what is expected."""
    return Write(session, seq, done, Cas(key, msgspec.Raw(value), msgspec.Raw(expected)))


LARGE = '"' + "x" * 998 + '"'


def test_answers_share_what_a_key_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand failed conditions on one large value count as one of it, until the last of them is forgotten."""
    monkeypatch.setattr(sessions_module, "HELD_BYTES_MAX", 1_001)
    machine = started()
    at(machine, 0, put(1, LARGE))
    assert {at(machine, 0, cas(seq, "1", "2")).code for seq in range(2, 1_002)} == {"conflict"}
    assert machine.sessions.held_bytes == machine.sessions.by_id[SESSION].held_bytes == 1_000
    at(machine, 0, put(1_002, "1", done=1_001))
    assert machine.sessions.held_bytes == 1_000
    at(machine, 0, put(1_003, "1", done=1_002))
    assert machine.sessions.held_bytes == 0


def test_values_in_answers_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit nothing is applied whose answer may hold a value; plain sets are, and all is once `done` moves."""
    monkeypatch.setattr(sessions_module, "HELD_BYTES_MAX", 2_000)
    machine = started()
    for number in range(2):
        at(machine, 0, put(10 * number, LARGE))
        assert at(machine, 0, cas(10 * number + 1, "1", "2")).code == "conflict"
    refused = [
        cas(30, "1", LARGE),
        Write(SESSION, 31, 0, Delete("k")),
        Write(SESSION, 32, 0, Set("k", msgspec.Raw("1"), 99)),
    ]
    assert [reply.code for reply in run(machine, 0, refused)] == ["overloaded"] * 3
    assert value_of(machine) == LARGE
    assert at(machine, 0, cas(1, "1", "2")).value == msgspec.Raw(LARGE)
    assert at(machine, 0, cas(34, "34", LARGE, done=2)).code == "ok"
    assert value_of(machine) == "34"


def test_small_values_find_room_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever works with small values, or with keys that don't exist, is not refused because of large ones."""
    monkeypatch.setattr(sessions_module, "HELD_BYTES_MAX", 1_000)
    machine = started()
    run(machine, 0, [put(1, LARGE), cas(2, "1", "2")])
    assert at(machine, 0, cas(3, "1", "2")).code == "overloaded"
    assert at(machine, 0, Write(SESSION, 4, 0, Set("small", msgspec.Raw("1")))).code == "ok"
    assert at(machine, 0, cas(5, "2", "1", key="small")).code == "ok"
    assert at(machine, 0, cas(6, "3", "1", key="small")).value == msgspec.Raw("2")
    assert at(machine, 0, Write(SESSION, 7, 0, Delete("small"))).value == msgspec.Raw("2")
    assert at(machine, 0, Write(SESSION, 8, 0, Delete("small"))).code == "missing"
    assert at(machine, 0, Write(SESSION, 9, 0, Cas("small", msgspec.Raw(LARGE)))).code == "ok"


def test_what_was_refused_is_never_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that was told `overloaded` for its answer hears that again, though there is room now."""
    monkeypatch.setattr(sessions_module, "HELD_BYTES_MAX", 1_000)
    machine = started()
    run(machine, 0, [put(1, LARGE), cas(2, "1", "2")])
    refused = at(machine, 0, cas(4, "1", LARGE))
    assert refused.code == "overloaded"
    at(machine, 0, put(3, LARGE, done=3))
    assert machine.sessions.held_bytes == 0
    assert at(machine, 0, cas(4, "1", LARGE)) == refused
    assert value_of(machine) == LARGE


def test_values_in_answers_of_all_sessions_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sessions there are; what an expired one held does not count any more."""
    monkeypatch.setattr(sessions_module, "ALL_HELD_BYTES_MAX", 2_500)
    machine = started()
    run(machine, 0, [OpenSession(TIMEOUT_US * 2), OpenSession(TIMEOUT_US * 2), OpenSession(TIMEOUT_US * 2)])
    at(machine, 0, put(1, LARGE))
    codes = [at(machine, 0, cas(1, "1", "2", session=session)).code for session in (2, 3)]
    codes += [at(machine, 0, cas(2, "1", "2")).code, at(machine, 0, cas(1, "1", "2", session=4)).code]
    assert codes == ["conflict", "conflict", "conflict", "overloaded"]
    at(machine, TIMEOUT_US, Expire())
    assert machine.sessions.held_bytes == 2_000
    assert at(machine, TIMEOUT_US, cas(2, "1", "2", session=4)).code == "conflict"


def test_unknown_session_is_not_applied() -> None:
    """A command of a session that was never opened is refused; so is its renewal."""
    machine = started()
    assert at(machine, 0, put(1, session=77)).code == "session_expired"
    assert at(machine, 0, RenewSession(77)).code == "session_expired"
    assert value_of(machine) is None


def test_C6_session_dies_only_by_an_expire_entry_at_its_due_time() -> None:
    """A session past its due time is known until an Expire entry has reached it (scenario C6)."""
    machine = started()
    assert machine.expires_at_us == TIMEOUT_US
    at(machine, TIMEOUT_US - 1, Expire())
    assert len(machine.sessions) == 1
    assert at(machine, TIMEOUT_US * 9, put(1)).code == "ok"
    assert machine.expires_at_us == TIMEOUT_US * 10
    at(machine, TIMEOUT_US * 10, Expire())
    assert at(machine, TIMEOUT_US * 10, put(2)).code == "session_expired"
    assert machine.expires_at_us is None


def test_writes_and_renewals_use_a_session() -> None:
    """Each applied write or renewal gives the session its whole time-out again."""
    machine = started()
    at(machine, 300, put(1))
    assert machine.expires_at_us == 300 + TIMEOUT_US
    assert at(machine, 500, RenewSession(SESSION)).code == "ok"
    assert machine.expires_at_us == 500 + TIMEOUT_US


def test_repeated_and_refused_commands_do_not_use_a_session() -> None:
    """Only what was applied counts as use."""
    machine = started()
    at(machine, 100, put(5, done=5))
    at(machine, 200, put(5, done=5))
    at(machine, 300, put(1))
    assert machine.expires_at_us == 100 + TIMEOUT_US


def test_expire_forgets_all_that_is_due_and_nothing_else() -> None:
    """Several sessions fall due at once, in an order that has nothing to do with their ids."""
    machine = Machine()
    run(machine, 0, [OpenSession(timeout_us) for timeout_us in (50, 10, 30, 20, 40)])
    at(machine, 5, RenewSession(4))
    assert machine.expires_at_us == 10
    at(machine, 30, Expire())
    assert [session for session, _ in machine.sessions] == [1, 5]
    assert machine.expires_at_us == 40


def test_ids_of_sessions_are_never_reused() -> None:
    """A session opened after another died has its own index, so old commands can't slip into it."""
    machine = started()
    at(machine, TIMEOUT_US, Expire())
    reply = at(machine, TIMEOUT_US, OpenSession(TIMEOUT_US))
    assert reply.revision == machine.applied == 3
    assert at(machine, TIMEOUT_US, put(1)).code == "session_expired"


def test_sessions_are_bounded() -> None:
    """With 65,536 sessions open, a further one is not opened."""
    sessions = Sessions()
    for session in range(1, SESSIONS_MAX + 1):
        sessions.add(session, Session(10, 0))
    assert sessions.open(SESSIONS_MAX + 1, 10, 0).code == "overloaded"
    assert len(sessions) == SESSIONS_MAX
    while sessions.expires_at_us() == 10:
        sessions.forget_first()
    assert len(sessions) == 0
    assert sessions.open(SESSIONS_MAX + 2, 10, 0).code == "ok"
