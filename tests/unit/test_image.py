"""Snapshots of the state machine: their chunks, and the way back."""

from collections.abc import Iterable

import msgspec
import pytest

from trio_kv.kv.commands import Command, OpenSession, Write
from trio_kv.kv.image import CHUNK_BYTES_MAX, CHUNK_RECORDS_MAX
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Cas, Delete, Set
from trio_kv.kv.reply import Reply
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.entry import make_entry

SESSION = 1

FIRST = (
    b'{"format":"trio_kv state","version":3,'
    b'"head":{"applied":9,"applied_term":1,"time_us":0,"entries_digest":0,"state_digest":0},'
    b'"counts":{"sessions":1,"replies":1,"items":1}}\n'
)
SESSIONS = b'{"chunk":1,"sessions":[[1,10,5,2]]}\n'
ITEMS = b'{"chunk":2,"items":[["k","v",9]]}\n'
REPLIES = b'{"chunk":3,"replies":[[1,3,"ok",null,false,9,""]]}\n'


def set_to(key: str, value: str, seq: int) -> Write:
    return Write(SESSION, seq, 0, Set(key, msgspec.Raw(value)))


def run(commands: Iterable[Command]) -> Machine:
    """Return a machine with one session that applied these commands."""
    machine = Machine()
    opened: list[Command] = [OpenSession(1_000_000)]
    machine.apply([make_entry(index, 1, 0, each) for index, each in enumerate([*opened, *commands], 1)])
    return machine


def tell(machine: Machine) -> list[bytes]:
    """Return a machine's snapshot."""
    chunks = list(machine.freeze().chunks())
    machine.thaw()
    return chunks


def restore(chunks: Iterable[bytes]) -> Machine:
    restorer = Restorer()
    for chunk in chunks:
        restorer.feed(chunk)
    return restorer.finish()


def test_snapshot_is_lines_for_people() -> None:
    """The format is what the documents say, byte by byte: nodes of two versions read each other's."""
    machine = run(
        [set_to("k", '{"a": 1.0}', 1), Write(SESSION, 2, 2, Delete("k")), set_to("\u00e9", "null", 3)]
    )
    assert b"".join(tell(machine)).decode() == (
        '{"format":"trio_kv state","version":3,"head":{"applied":4,"applied_term":1,"time_us":0,'
        '"entries_digest":3276266040,"state_digest":3124949064},"counts":{"sessions":1,"replies":2,"items":1}}\n'
        '{"chunk":1,"sessions":[[1,1000000,0,2]]}\n'
        '{"chunk":2,"items":[["\u00e9",null,4]]}\n'
        '{"chunk":3,"replies":[[1,2,"ok",{"a": 1.0},true,3,"","k",2],[1,3,"ok",null,false,4,""]]}\n'
    )


def test_snapshot_holds_everything() -> None:
    """A restored machine is the same machine, answers of sessions and null values included."""
    machine = run(
        [
            set_to("k", "null", 1),
            set_to('\u00e9\n\u2028"', "[1,\r\n 2]", 2),
            Write(SESSION, 3, 0, Delete("k")),
            Write(SESSION, 4, 0, Cas("x", msgspec.Raw("1"), msgspec.Raw("2"))),
        ]
    )
    restored = restore(tell(machine))
    assert tell(restored) == tell(machine)
    assert restored.items == machine.items
    kept, original = (each.sessions.by_id[SESSION].replies for each in (restored, machine))
    assert kept == original
    assert kept[3].value == msgspec.Raw("null")
    assert kept[1].value is None


def test_empty_machine_has_a_snapshot() -> None:
    """The state before the first entry is one chunk."""
    chunks = tell(Machine())
    assert len(chunks) == 1
    assert tell(restore(chunks)) == chunks


def test_chunks_are_small() -> None:
    """Neither many keys nor large ones nor escaped ones make a chunk of more bytes or records than it may have."""
    small = [set_to(f"key{number}", "1", number) for number in range(3_000)]
    large = [set_to(f"large{number}", f'"{"x" * 40_000}"', 3_000 + number) for number in range(9)]
    escaped = [set_to(f"{number}" + "\x01" * 4_000, "1", 4_000 + number) for number in range(50)]
    machine = run([*small, *large, *escaped])
    chunks = tell(machine)
    assert max(map(len, chunks)) <= CHUNK_BYTES_MAX
    lines = [msgspec.json.decode(chunk) for chunk in chunks[1:]]
    assert [line["chunk"] for line in lines] == list(range(1, len(chunks)))
    assert max(len(line.get("items", ())) for line in lines) == CHUNK_RECORDS_MAX
    assert restore(chunks).items == machine.items


def test_value_larger_than_a_chunk_has_one_of_its_own() -> None:
    """The largest value is told whole, and no small one waits for it in the same chunk."""
    large = f'"{"x" * (1 << 20)}"'
    chunks = tell(run([set_to("a", "1", 1), set_to("b", large, 2), set_to("c", "1", 3)]))
    assert [len(msgspec.json.decode(chunk)["items"]) for chunk in chunks[2:5]] == [1, 1, 1]
    assert len(chunks[3]) < len(large) + 64
    assert restore(chunks).items["b"].value == msgspec.Raw(large)


def test_values_do_not_keep_their_chunk() -> None:
    """A restored value is a copy: one that stays must not hold a whole chunk in memory."""
    restored = restore([FIRST, SESSIONS, ITEMS, REPLIES])
    value = restored.items["k"].value
    assert len(memoryview(value).obj) == len(value)  # type: ignore[arg-type]


def test_restored_sessions_know_their_answers() -> None:
    """A repeated command is answered by the restored machine as by the one that applied it."""
    machine = restore([FIRST, SESSIONS, ITEMS, REPLIES])
    assert machine.expires_at_us == 15
    assert machine.apply([make_entry(10, 1, 6, set_to("k", "2", 3))]) == [Reply("ok", None, 9)]


def conflict(seq: int, key: str, *, done: int = 0, session: int = SESSION) -> Write:
    """Return a cas that fails on any key that exists."""
    return Write(session, seq, done, Cas(key, msgspec.Raw("0"), msgspec.Raw('"no"')))


LARGE = f'"{"x" * 10_000}"'


def test_what_a_key_holds_is_told_once() -> None:
    """However many answers hold the value of a key, it stands in a snapshot once, and once in memory afterwards."""
    machine = run([set_to("k", LARGE, 1), *[conflict(seq, "k") for seq in range(2, 102)]])
    chunks = tell(machine)
    assert b"".join(chunks).count(LARGE.encode()) == 1
    restored = restore(chunks)
    assert {id(restored.items["k"].value)} == {
        id(reply.value) for seq, reply in restored.sessions.by_id[SESSION].replies.items() if seq > 1
    }
    assert tell(restored) == chunks
    assert restored.sessions.held_bytes == machine.sessions.held_bytes == len(LARGE)


def test_what_only_answers_hold_is_told_once() -> None:
    """So it is when the key has changed since, or is gone: each of its values that answers hold stands there once."""
    commands: list[Command] = [OpenSession(1_000_000)]
    for number in range(3):
        commands.append(set_to("k", LARGE[:-1] + f'{number}"', 10 * number))
        commands += [conflict(10 * number + 1, "k"), conflict(10 * number + 1, "k", session=2)]
        commands.append(conflict(10 * number + 2, "k"))
    commands += [Write(SESSION, 90, 0, Delete("k")), set_to("k", "1", 91)]
    machine = run(commands)
    chunks = tell(machine)
    assert b"".join(chunks).count(LARGE[:-1].encode()) == 3
    restored = restore(chunks)
    for session_id, session in machine.sessions:
        again = restored.sessions.by_id[session_id]
        assert again.replies == session.replies
        assert again.held_bytes == session.held_bytes == 3 * (len(LARGE) + 1)
    assert tell(restored) == chunks
    texts = {id(reply.value) for _, session in restored.sessions for reply in session.replies.values()}
    assert len(texts - {id(None)}) == 3


def test_counts_go_down_as_answers_are_forgotten() -> None:
    """A text counts until its last answer is gone, in a restored machine as in the one that applied all."""
    machine = run([set_to("k", LARGE, 1), conflict(2, "k"), conflict(3, "k"), set_to("k", "1", 4)])
    restored = restore(tell(machine))
    for each, held_bytes in ((3, len(LARGE)), (4, 0)):
        for twin in (machine, restored):
            twin.apply(
                [make_entry(twin.applied + 1, 1, 0, Write(SESSION, 4, each, Set("k", msgspec.Raw("1"))))]
            )
            assert twin.sessions.held_bytes == twin.sessions.by_id[SESSION].held_bytes == held_bytes
    assert tell(machine) == tell(restored)


def test_version_1_is_read() -> None:
    """What an earlier version wrote is read: each answer with a value told it, before the items."""
    first = FIRST.replace(b'"version":3', b'"version":1').replace(
        b'"sessions":1,"replies":1', b'"sessions":2,"replies":4'
    )
    machine = restore(
        [
            first,
            b'{"chunk":1,"sessions":[[1,10,5,2],[2,10,5,2]]}\n',
            b'{"chunk":2,"replies":[%s]}\n'
            % b",".join(
                [
                    b'[1,3,"conflict","v",true,9,"no"]',
                    b'[1,4,"conflict","v",true,9,"no"]',
                    b'[1,5,"ok",null,false,7,""]',
                    b'[2,3,"ok",[1],true,8,""]',
                ]
            ),
            ITEMS.replace(b'"chunk":2', b'"chunk":3'),
        ]
    )
    replies = machine.sessions.by_id[1].replies
    assert replies[3] == replies[4] == Reply("conflict", msgspec.Raw('"v"'), 9, "no")
    assert replies[5] == Reply("ok", None, 7)
    assert machine.sessions.by_id[2].replies[3] == Reply("ok", msgspec.Raw("[1]"), 8)
    assert machine.sessions.held_bytes == len('"v"') + len("[1]")
    assert tell(restore(tell(machine))) == tell(machine)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([b""], "truncated"),
        ([b"{}\n"], "format"),
        ([ITEMS], "format"),
        ([b'{"format":"trio_kv state","version":4}\n'], "version 4, not 'trio_kv state' version 3"),
        ([b'{"format":"shopping list","version":1}\n'], "shopping list"),
        ([b'{"format":"trio_kv state","version":1}\n'], "head"),
        ([FIRST, FIRST], "chunk"),
        ([FIRST, REPLIES], "chunk 3 came where chunk 1 was due"),
        ([FIRST, SESSIONS, SESSIONS], "chunk 1 came where chunk 2 was due"),
        ([FIRST, SESSIONS[:-5]], "truncated"),
        ([FIRST, SESSIONS, b'{"chunk":2,"replies":[[9,3,"ok",null,false,9,""]]}'], "session 9"),
        ([FIRST, SESSIONS, b'{"chunk":2,"replies":[[1,3,"fine",null,false,9,""]]}'], "answered 'fine'"),
        ([FIRST, SESSIONS, b'{"chunk":2,"items":[["k",1]]}'], "items"),
        ([FIRST, SESSIONS, ITEMS, b'{"chunk":3,"replies":[[1,3,"ok",null,false,9,"","k",8]]}'], "nowhere"),
        ([FIRST, SESSIONS, ITEMS, b'{"chunk":3,"replies":[[1,3,"ok",null,false,9,"","l",9]]}'], "nowhere"),
        ([], "no chunk"),
        ([FIRST], "0 sessions, 0 replies and 0 items came"),
        ([FIRST, SESSIONS, ITEMS], "the snapshot has 1, 1 and 1"),
        ([FIRST, SESSIONS, ITEMS, REPLIES, b'{"chunk":4,"items":[["l",1,9]]}'], "2 items came"),
    ],
)
def test_what_is_no_snapshot_is_refused(chunks: list[bytes], message: str) -> None:
    """A damaged or incomplete snapshot, or one of another format, raises and says what is wrong."""
    with pytest.raises(ValueError, match=message):
        restore(chunks)
