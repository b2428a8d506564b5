"""Who may ask for what: tokens, roles, guesses and limits, without sockets and without a clock that passes."""

import json
from typing import Any

import attrs
import msgspec
import pytest

from trio_kv.gateway.store import Answer
from trio_kv.kv.operations import Delete
from trio_kv.kv.operations.scan import Scan
from trio_kv.kv.operations.txn import Txn
from trio_kv.kv.reply import Reply
from trio_kv.proxy.access import (
    DELAY_MAX_S,
    FORGOTTEN_S,
    HOSTS_MAX,
    TRIES_MAX,
    Doorkeeper,
    Tokens,
    parse_tokens,
)
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.limits import Limits
from trio_kv.proxy.session import Session
from trio_kv.proxy.states import PAUSE, WAIT, State, Step
from trio_kv.raft.events import Event
from trio_kv.trace.vocabulary import ClientAuthenticated, ClientNotAuthenticated
from trio_kv.wire.client_sessions import Numbered, OpenOrRenew

ALICE, ROB = "alice-token-0123456789", "rob-token-0123456789"
TOKENS = parse_tokens(f"# who may\nalice {ALICE}\n\nrob {ROB} read\n")
GET, SET = b'{"key":"a"}\n', b'{"key":"a","value":1}\n'
WRITES = [
    SET,
    b'{"op":"set","key":"a","value":1,"id":7}\n',
    b'{"op":"delete","key":"a"}\n',
    b'{"op":"cas","key":"a","value":1}\n',
    b'{"op":"incr","key":"a","by":1}\n',
    b'{"op":"session"}\n',
    b'{"op":"session","session":"s"}\n',
    b'{"key":"a","value":1,"session":"s","seq":1}\n',
    b'{"op":"txn","if":[],"then":[{"op":"set","key":"a","value":1}]}\n',
    b'{"op":"txn","if":[],"then":[{"op":"get","key":"a"}],"else":[{"op":"delete","key":"a"}]}\n',
]
READS = [
    GET,
    b'{"op":"ping"}\n',
    b'{"op":"status"}\n',
    b'{"key":"a","consistency":"stale"}\n',
    b'{"op":"scan","prefix":"a"}\n',
    b'{"op":"txn","if":[{"key":"a","exists":true}],"then":[{"op":"get","key":"a"}],"else":[{"op":"get","key":"b"}]}\n',
    b'{"op":"watch","prefix":"a","id":1}\n',
    b'{"op":"unwatch","id":1}\n',
]
ANSWERS: dict[type, bytes] = {
    Scan: b'"items": [], "more": false, ',
    Txn: b'[true, [["ok", 1]]]',
    OpenOrRenew: b'{"session": "s", "timeout": 1}',
}
"""What the store says, where it is no value."""


@attrs.define
class Door:
    """A door whose clock is moved by the test, and whose store says ok to everything."""

    tokens: Tokens | None = attrs.field(factory=lambda: TOKENS)
    limits: Limits = attrs.field(factory=Limits)
    now_s: float = 0.0
    events: list[Event] = attrs.field(factory=list)
    keeper: Doorkeeper = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.keeper = Doorkeeper(self.tokens, self.limits, lambda: self.now_s, self.events.append)

    def client(self, peer: str = "192.0.2.1:5000") -> "Client":
        admission = self.keeper.admit(1, peer)
        return Client(self, Session(ProxyConfig(), lambda: {"leader": 1}, admission))


@attrs.define
class Client:
    door: Door
    session: Session
    asked: int = 0
    """How many requests came to the store."""
    waited_s: float = 0.0

    def say(self, *lines: bytes) -> list[dict[str, Any]]:
        """Send lines in one chunk; return the replies."""
        said = self.carry_out(self.session.receive(b"".join(lines)))
        if not self.session.is_open and self.session.state is not State.CLOSED:
            said += self.carry_out(self.session.close())
        return [json.loads(line) for line in said.splitlines()]

    def carry_out(self, step: Step | None) -> bytes:
        said = b""
        while step is not None:
            if isinstance(step, bytes):
                said += step
            elif step is WAIT:
                self.waited_s += self.session.delay_s
                self.door.now_s += self.session.delay_s
            elif step is not PAUSE:
                run = self.session.operations
                self.asked += len(run)
                texts = [ANSWERS.get(type(each), b"1") for each in run]
                ok = [Reply("ok", msgspec.Raw(text), 1) for text in texts]
                step = self.session.take_answer(Answer(ok, 1, 1))
                continue
            step = self.session.next_step() if self.session.is_owing else None
        return said

    def codes(self, *lines: bytes) -> list[str]:
        return [reply.get("error", reply.get("status", "")) for reply in self.say(*lines)]


def auth(token: str) -> bytes:
    return b'{"op":"auth","token":"%b"}\n' % token.encode()


# --- the file -----------------------------------------------------------------------------------------------


def test_a_token_file() -> None:
    """Comments and blank lines are passed over; the table has digests and names, and no token."""
    assert [(each.name, each.is_reader) for each in TOKENS.values()] == [("alice", False), ("rob", True)]
    assert ALICE not in repr(TOKENS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no token"),
        ("# alice\n", "holds no token"),
        (f"alice {ALICE}\nbob", "line 2: a line is NAME TOKEN"),
        (f"alice {ALICE} write", "line 1: a line is NAME TOKEN, or NAME TOKEN read"),
        (f"alice {ALICE} read read", "line 1: a line is"),
        ("alice short", "16 to 1024 bytes, this one 5"),
        ("alice " + "x" * 1025, "16 to 1024 bytes, this one 1025"),
        (f"alice {ALICE}\nalice {ROB}", "line 2: the name alice stands twice"),
        (f"alice {ALICE}\nrob {ALICE}", "line 2: this token has another name"),
        ("a" * 65 + f" {ALICE}", "a name has at most 64"),
    ],
)
def test_a_bad_token_file_is_refused(text: str, words: str) -> None:
    """The message says which line, and what would be right; it never holds a token."""
    with pytest.raises(ValueError, match=words) as raised:
        parse_tokens(text)
    assert ALICE not in str(raised.value)


# --- what has to come first ---------------------------------------------------------------------------------


def test_nothing_before_a_token() -> None:
    """Whatever comes first is unauthorized, the store does not hear of it, and the connection goes on."""
    client = Door().client()
    lines = [*READS, *WRITES]
    assert client.codes(*lines) == ["unauthorized"] * len(lines)
    assert client.asked == 0
    assert client.session.state.value == "authenticating"
    assert client.say(auth(ALICE)) == [{"status": "ok"}]
    assert client.session.state.value == "open"
    assert client.codes(SET, GET) == ["ok", "ok"]


def test_a_pipeline_may_begin_with_its_token() -> None:
    """Each request is looked at in its turn: what stands behind a token in the same chunk is carried out."""
    client = Door().client()
    assert client.codes(GET, auth(ALICE), SET, GET, auth("x" * 20), GET) == [
        *("unauthorized", "ok", "ok", "ok", "unauthorized", "unauthorized"),
    ]
    assert client.asked == 2


def test_a_refusal_names_key_and_id() -> None:
    """It is an answer like any other: a client can tell whose it is."""
    client = Door().client()
    [reply] = client.say(b'{"op":"set","key":"a","value":1,"id":[7]}\n')
    assert (reply["id"], reply["key"], reply["value"], reply["error"]) == ([7], "a", None, "unauthorized")
    assert '{"op": "auth", "token": ...}' in reply["message"]


def test_a_door_without_tokens_takes_any() -> None:
    """A client that is set up for a token works with a server that wants none, and is told nothing wrong."""
    door = Door(None)
    assert door.keeper.admit(1, "a:1") is None
    assert door.client().codes(auth("whatever-it-is-that-comes"), SET) == ["ok", "ok"]


def test_lines_that_are_no_requests_say_nothing_new() -> None:
    """Who has shown no token still learns what is wrong with a line, and a token never comes back in a message."""
    client = Door().client()
    secret = "s" * 2000
    replies = client.say(b"nonsense\n", b'{"op":"auth","token":"%b"}\n' % secret.encode(), b'{"op":"auth"}\n')
    assert [reply["error"] for reply in replies] == ["bad_request"] * 3
    assert "1 to 1024" in replies[1]["message"]
    assert "sss" not in str(replies)


# --- roles --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", WRITES)
def test_C8_a_reader_may_not_write(write: bytes) -> None:
    """Reads, signs of life and the status are answered; a write of any kind is not, alone or in a pipeline."""
    client = Door().client()
    client.say(auth(ROB))
    assert client.codes(*READS) == ["ok"] * len(READS)
    assert client.codes(write) == ["unauthorized"]
    asked = client.asked
    assert client.codes(GET, write, GET, write, write, GET) == [
        *("ok", "unauthorized", "ok", "unauthorized", "unauthorized", "ok"),
    ]
    assert client.asked == asked + 3


def test_a_plain_pipeline_is_looked_at_as_well() -> None:
    """The short way of pipelines of plain lines is none around the rules."""
    client = Door().client()
    client.say(auth(ROB))
    assert client.codes(*[GET, SET] * 50) == ["ok", "unauthorized"] * 50
    assert client.asked == 50


def test_a_token_that_is_taken_away_counts_no_more() -> None:
    """At once: the next request of a connection that has shown it is refused, also one that was sent before."""
    door = Door()
    client, other = door.client(), door.client()
    assert client.codes(auth(ALICE), SET) == ["ok", "ok"]
    assert other.codes(auth(ROB), GET) == ["ok", "ok"]
    # A run is at the store, and what is behind it has been decoded.
    step = client.session.receive(b'{"key":"a","value":1,"timeout":1}\n' + SET)
    assert len(client.session.operations) == 1
    door.keeper.tokens = parse_tokens(f"rob {ROB} read\n")
    step = client.session.take_answer(Answer([Reply("ok")], 1, 1))
    replies = [json.loads(line) for line in client.carry_out(step).splitlines()]
    assert [reply.get("error", "ok") for reply in replies] == ["ok", "unauthorized"]
    assert other.codes(GET) == ["ok"]


def test_a_token_may_become_a_readers() -> None:
    """The role is that of the moment, and not that of the moment when the token was shown."""
    door = Door()
    client = door.client()
    assert client.codes(auth(ALICE), SET) == ["ok", "ok"]
    door.keeper.tokens = parse_tokens(f"alice {ALICE} read\n")
    assert client.codes(SET, GET) == ["unauthorized", "ok"]
    door.keeper.tokens = TOKENS
    assert client.codes(SET, GET) == ["ok", "ok"]


def test_a_write_that_the_store_has_is_unknown_whatever_became_of_its_token() -> None:
    """At the end of a door what was handed over may take effect: it is never told as refused."""
    door = Door()
    client = door.client()
    client.say(auth(ALICE))
    client.session.receive(SET)
    door.keeper.tokens = parse_tokens(f"rob {ROB} read\n")
    client.session.stop()
    replies = [json.loads(line) for line in client.carry_out(client.session.close()).splitlines()]
    assert replies[0]["error"] == "timeout"


# --- guesses ------------------------------------------------------------------------------------------------


def test_guesses_are_slowed_down_and_end() -> None:
    """Each further one waits longer before it is looked at; after some the connection ends, and is not heard again."""
    door = Door()
    client = door.client()
    waits = []
    for _ in range(TRIES_MAX - 1):
        before = client.waited_s
        assert client.codes(auth("x" * 20)) == ["unauthorized"]
        waits.append(client.waited_s - before)
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[1] > 0
    assert waits[-1] == DELAY_MAX_S
    assert client.codes(auth("x" * 20), auth(ALICE), SET) == ["unauthorized"] * 4
    assert client.session.is_refused
    assert client.asked == 0
    failed = [event for event in door.events if isinstance(event, ClientNotAuthenticated)]
    assert [event.tries for event in failed] == list(range(1, TRIES_MAX + 1))


def test_a_guess_waits_before_it_is_looked_at() -> None:
    """Who goes away meanwhile has learnt nothing, and a new connection from the same host begins no better."""
    door = Door()
    door.client("192.0.2.1:1").say(auth("x" * 20))
    client = door.client("192.0.2.1:2")
    assert client.session.receive(auth(ALICE)) is WAIT
    assert not [event for event in door.events if isinstance(event, ClientAuthenticated)]
    assert client.session.next_step() == b'{"status": "ok"}\n'


def test_nobody_else_waits_for_who_guesses() -> None:
    """Neither another host, nor a connection of the same host that has shown its token."""
    door = Door()
    old = door.client("192.0.2.1:1")
    old.say(auth(ALICE))
    door.client("192.0.2.1:2").say(*[auth("x" * 20)] * 5)
    assert old.codes(SET, GET) == ["ok", "ok"]
    other = door.client("192.0.2.2:1")
    assert other.codes(auth(ALICE)) == ["ok"]
    assert old.waited_s == other.waited_s == 0


def test_guesses_are_forgotten() -> None:
    """After a minute without one; and of very many hosts the oldest are, so that memory stays bounded."""
    door = Door()
    door.client().say(auth("x" * 20))
    assert door.keeper.delay_s("192.0.2.1") > 0
    door.now_s += FORGOTTEN_S + 1
    assert door.keeper.delay_s("192.0.2.1") == 0
    for number in range(HOSTS_MAX + 10):
        door.keeper.note_failure(f"host-{number}")
    assert len(door.keeper._failures) == HOSTS_MAX
    assert door.keeper.delay_s("host-0") == 0
    assert door.keeper.delay_s(f"host-{HOSTS_MAX + 9}") > 0


def test_a_stop_lets_no_guess_wait() -> None:
    """What was not looked at by then is not: it is neither right nor wrong."""
    door = Door()
    client = door.client()
    client.say(auth("x" * 20))
    assert client.session.receive(auth(ALICE) + SET) is WAIT
    client.session.stop()
    replies = [json.loads(line) for line in client.carry_out(client.session.close()).splitlines()]
    assert [reply.get("error") for reply in replies] == ["unavailable", "unauthorized", None]


def test_events_have_names_and_no_tokens() -> None:
    """What is told of a client never holds what it has shown."""
    door = Door()
    client = door.client()
    client.say(auth("x" * 20), auth(ROB))
    _, done = door.events
    assert isinstance(done, ClientAuthenticated)
    assert (done.holder, done.access) == ("rob", "read")
    assert ROB not in repr(door.events)
    assert "xxx" not in repr(door.events)
    assert "xxx" not in repr(client.session._items)


# --- limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"key":"abcde"}\n', '"key" has 5 bytes; this server takes 4'),
        ('{"key":"ééé"}\n'.encode(), '"key" has 6 bytes; this server takes 4'),
        (b'{"key":"a","value":"0123456789"}\n', '"value" has 12 bytes; this server takes 8'),
        (b'{"op":"cas","key":"a","expected":"0123456789","value":1}\n', '"expected" has 12 bytes'),
        (b'{"op":"delete","key":"abcde"}\n', '"key" has 5 bytes'),
        (b'{"op":"watch","prefix":"abcde","id":1}\n', '"prefix" has 5 bytes'),
        (b'{"key":"abcde","value":1,"session":"s","seq":1}\n', '"key" has 5 bytes'),
    ],
)
def test_limits_of_a_door(line: bytes, words: str) -> None:
    """A longer key or value is too large, with figures; what is within the limits is carried out."""
    client = Door(None, Limits(key_bytes_max=4, value_bytes_max=8)).client()
    [refusal, *others] = client.say(line, b'{"key":"abcd","value":"123456"}\n', GET)
    assert refusal.get("error") == "too_large"
    assert words in refusal["message"]
    assert [reply["status"] for reply in others] == ["ok", "ok"]
    assert client.asked == 2


def test_a_page_is_as_long_as_the_door_has_it() -> None:
    """Who asks for a longer one gets as many keys, and asks again for the next."""
    client = Door(None, Limits(page_items_max=7)).client()
    for limit, asked in ((b"", 7), (b',"limit":1000', 7), (b',"limit":3', 3)):
        client.session.receive(b'{"op":"scan","prefix":"a"%b}\n' % limit)
        [scan] = client.session.operations
        assert scan.limit == asked
        client.carry_out(client.session.take_answer(Answer([Reply("unavailable")], 1, 1)))


def test_limits_come_behind_tokens() -> None:
    """Who may not ask is not told what would be within the limits."""
    client = Door(limits=Limits(key_bytes_max=4)).client()
    assert client.codes(b'{"key":"abcde"}\n') == ["unauthorized"]
    client.say(auth(ALICE))
    assert client.codes(b'{"key":"abcde"}\n', GET) == ["too_large", "ok"]


def test_ids_of_sessions_are_no_keys() -> None:
    """They are as long as they are; the key of a write under one is as long as it may be."""
    limits, session = Limits(key_bytes_max=4), "2-00c0ffee00c0ffee"
    assert limits.refuse(OpenOrRenew(session)) is None
    assert limits.refuse(Numbered(Delete("abcd"), session, 1)) is None
    refusal = limits.refuse(Numbered(Delete("abcde"), session, 1))
    assert refusal is not None
    assert refusal.code == "too_large"
