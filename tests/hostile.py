"""What a client can send, whatever it is: a session that is fed with it, and what must hold of what it says.

Shared by the property tests and by `bench/fuzz.py`, which lets coverage guide what is sent.
"""

import json

import msgspec

from trio_kv.gateway.store import Answer
from trio_kv.kv.operations.operation import WriteOperation
from trio_kv.kv.reply import Reply
from trio_kv.proxy.access import Doorkeeper, parse_tokens
from trio_kv.proxy.config import ProxyConfig
from trio_kv.proxy.framing import LineBuffer
from trio_kv.proxy.limits import Limits
from trio_kv.proxy.session import Session
from trio_kv.proxy.states import WAIT, Action, Step
from trio_kv.wire.client_sessions import OpenOrRenew

TOKEN = "0123456789abcdef"
TOKENS = parse_tokens(f"alice {TOKEN}\nrob {TOKEN[::-1]} read\n")
CONFIG = ProxyConfig(line_bytes_max=4096, run_requests_max=4)
SESSION = msgspec.Raw(b'{"session": "s", "timeout": 1}')
SEEDS = [
    b'{"key":"a"}\n{"key":"a","value":1}\n',
    b'{"op":"delete","key":"a","if_revision":3,"id":[1]}\n{"op":"ping"}\n{"op":"status"}\n',
    b'{"op":"cas","key":"a","expected":null,"value":{"b":[1.5e3,"\\ud83d\\ude00"]},"meta":true}\n',
    b'{"op":"set","key":"a","value":"x","ttl":5,"session":"s","seq":1,"done":1,"timeout":0.5}\n',
    b'{"op":"incr","key":"a","by":-4}\r\n \t\n{"op":"session"}\n{"op":"session","session":"s"}\n',
    b'{"op":"watch","prefix":"a","from":1,"progress":2,"id":1}\n{"op":"unwatch","id":1}\n',
    b'{"op":"scan","prefix":"a","after":"b","limit":3,"reverse":true,"values":false,"count":true}\n',
    b'{"op":"txn","if":[{"key":"a","equals":1}],"then":[{"op":"set","key":"a","value":2}],"else":[]}\n',
    b'{"op":"txn","if":[{"key":"b","exists":true}],"else":[{"op":"get","key":"a"}]}\n',
    b'{"op":"auth","token":"%b"}\n{"key":"a","value":1}\n' % TOKEN.encode(),
    b'{"op":"auth","token":"%b"}\n{"key":"a","value":1}\n' % TOKEN[::-1].encode(),
    b"GET / HTTP/1.1\r\n\r\n",
    b'\xef\xbb\xbf{"key":"\xff"}\n{"key":"\\ud800"}\n{{\n[]\nnull\n',
]


def reply_to(operation: object, number: int) -> Reply:
    """Return an answer that the store may give."""
    if isinstance(operation, OpenOrRenew):
        return Reply("ok", SESSION, 1)
    choice = number % 3
    if choice == 1 and isinstance(operation, WriteOperation):
        return Reply("timeout")
    return Reply("unavailable") if choice else Reply("missing")


class Driver:
    """Carries out what a session says."""

    def __init__(self, is_guarded: bool) -> None:
        """Begin a session, with tokens and limits or without."""
        limits = Limits(8, 16) if is_guarded else Limits()
        keeper = Doorkeeper(TOKENS if is_guarded else None, limits, lambda: 0.0, lambda _: None)
        self.session = Session(CONFIG, lambda: {"leader": 1}, keeper.admit(1, "a:1"))
        self.said = b""
        self.asked = 0

    def receive(self, chunk: bytes) -> None:
        """Give it a chunk, as far as it listens."""
        if self.session.is_hearing:
            self.carry_out(self.session.receive(chunk))

    def carry_out(self, step: Step | None) -> None:
        """Do what it says until it has nothing to say."""
        session = self.session
        while step is not None:
            if isinstance(step, bytes):
                self.said += step
            elif step in (Action.READ, Action.WRITE, Action.WATCH):
                replies = [
                    reply_to(each, self.asked + place) for place, each in enumerate(session.operations)
                ]
                self.asked += len(replies)
                step = session.take_answer(Answer(replies, 1, 1))
                continue
            elif step is WAIT:
                assert session.delay_s > 0
            step = session.next_step() if session.is_owing else None

    def end(self) -> None:
        """End the input, and the session."""
        self.receive(b"")
        if self.session.state.value == "draining":
            self.carry_out(self.session.close())


def run_one(data: bytes) -> None:
    """Feed one input, whole and in pieces.

    Its first byte says whether there are tokens and small limits, the second how long the pieces are.
    """
    if len(data) < 2:
        return
    is_guarded, size, rest = bool(data[0] & 1), data[1] % 61 + 1, data[2:]
    whole, cut = Driver(is_guarded), Driver(is_guarded)
    if rest:
        whole.receive(rest)
    whole.end()
    for start in range(0, len(rest), size):
        cut.receive(rest[start : start + size])
    cut.end()
    assert whole.said == cut.said, (whole.said, cut.said)
    lines = whole.said.split(b"\n")
    assert lines.pop() == b""
    for line in lines:
        assert type(json.loads(line)) is dict, line
    if not whole.session.is_refused:
        buffer = LineBuffer(CONFIG.line_bytes_max)
        wanted = len(buffer.feed(rest) if rest else []) + len(buffer.end())
        assert len(lines) == wanted, (lines, wanted)
