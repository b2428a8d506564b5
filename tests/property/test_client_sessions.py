"""Sessions of clients against the judges' rules, and however their log is cut, copied or restored."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_kv.check.reference import Reference
from trio_kv.check.state_machine_safety import outcome_of
from trio_kv.kv import sessions
from trio_kv.kv.commands import (
    UNSAID,
    ClientWrite,
    Command,
    Expire,
    OpenSession,
    RenewSession,
    Write,
    decode_command,
)
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Cas, Delete, Get, Incr, Set, Txn
from trio_kv.kv.operations.txn import Condition
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.entry import Entry, make_entry

KEYS = st.sampled_from(["a", "b"])
VALUES = st.sampled_from(["1", '"x"', '"' + "y" * 600 + '"']).map(msgspec.Raw)
SECRETS = st.sampled_from(["", "aa", "bb"])
SESSIONS = st.integers(1, 4)
SEQS = st.sampled_from([0, 1, 2, 3, 4, 1025, 65_535, 65_537, 66_600])
DONES = st.sampled_from([UNSAID, UNSAID, 0, 1, 2, 3])
TXNS = st.builds(
    lambda key, value: Txn(
        (Condition(key, exists=True),), (Incr(key), Get(key)), (Set(key, value), Get(key))
    ),
    KEYS,
    VALUES,
)
OPERATIONS = st.one_of(
    TXNS,
    st.builds(Set, KEYS, VALUES),
    st.builds(Delete, KEYS),
    st.builds(Cas, KEYS, VALUES),
    st.builds(Incr, KEYS),
)
ASKED = st.builds(ClientWrite, SESSIONS, SEQS, DONES, OPERATIONS, SECRETS, st.integers(0, 2))
OTHERS = st.one_of(
    st.builds(OpenSession, st.integers(1, 20), SECRETS),
    st.builds(RenewSession, SESSIONS, SECRETS),
    st.builds(Write, SESSIONS, SEQS, st.integers(0, 2), OPERATIONS),
    st.just(Expire()),
)
COMMANDS = st.sampled_from((ASKED, ASKED, ASKED, OTHERS)).flatmap(lambda each: each)


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Draw a log; its first entries open sessions, mostly for long."""
    drawn: list[Command] = [
        OpenSession(draw(st.sampled_from((8, 1000))), secret) for secret in ("aa", "bb", "")
    ]
    drawn += draw(st.lists(COMMANDS, max_size=30))
    entries, time_us = [], 0
    for place, command in enumerate(drawn):
        time_us += draw(st.integers(0, 3))
        entries.append(make_entry(place + 1, 1, time_us, command))
    return entries


def restored(machine: Machine) -> Machine:
    """Return a machine made of the snapshot of one."""
    restorer = Restorer()
    for chunk in machine.copy().freeze().chunks():
        restorer.feed(chunk)
    return restorer.finish()


@given(logs(), st.data())
@settings(max_examples=150)
def test_it_answers_by_the_judges_rules_before_and_after_a_snapshot(log: list[Entry], data: Any) -> None:
    """Entry by entry, and a machine that is restored in the midst of them goes on in the same way."""
    place = data.draw(st.integers(0, len(log)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sessions, "HELD_BYTES_MAX", 1_000)
        patch.setattr("trio_kv.check.reference.SESSION_TEXT_BYTES_MAX", 1_000)
        patch.setattr(sessions, "CLIENT_HELD_BYTES_MAX", 1_500)
        patch.setattr("trio_kv.check.reference.CLIENT_TEXT_BYTES_MAX", 1_500)
        machine, rule, twin = Machine(), Reference(), Machine()
        for number, entry in enumerate(log):
            if number == place:
                twin = restored(machine)
            (reply,) = machine.apply([entry])
            assert outcome_of(reply) == rule.apply(entry), entry.command
            if number >= place:
                assert twin.apply([entry]) == [reply]
        if place < len(log):
            assert list(twin.copy().freeze().chunks()) == list(machine.copy().freeze().chunks())
        assert machine.sessions.client_replies == sum(
            len(each.replies) for _, each in machine.sessions if each.secret
        ) or any(type(entry.command) is Write for entry in log)


@given(COMMANDS)
def test_a_command_is_read_back_from_its_bytes(command: Command) -> None:
    """Also where it says nothing of a secret."""
    assert decode_command(command.encode()) == command


def test_openings_of_gateways_have_the_bytes_that_they_always_had() -> None:
    """A log that no client has a session in is the same as of earlier versions."""
    assert OpenSession(5).encode() == b'["open",5]'
    assert RenewSession(5).encode() == b'["renew",5]'
    assert OpenSession(5, "aa").encode() == b'["open",5,"aa"]'
