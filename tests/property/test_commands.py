"""Commands come from peers and from disks: whatever their bytes are, they are refused or can be applied."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.drawn_commands import COMMANDS
from trio_kv.kv.commands import Command, OpenSession, decode_command
from trio_kv.kv.machine import Machine
from trio_kv.kv.nesting import NESTING_MAX
from trio_kv.kv.restorer import Restorer
from trio_kv.raft.entry import make_entry

SECRET = "secret"
STRANGE: st.SearchStrategy[Any] = st.sampled_from(
    [
        -2,
        -1,
        0,
        1,
        2**53,
        2**63 - 1,
        2**63,
        2**64,
        10**30,
        1.5,
        1e300,
        None,
        True,
        "",
        "a",
        b"[[".decode(),
        [],
        {},
    ]
)


@st.composite
def strange_commands(draw: st.DrawFn) -> bytes:
    """Draw the bytes of a command of a session that there is, in which some members may be what they should not be."""
    members: Any = msgspec.json.decode(draw(COMMANDS).encode())
    if members[0] == "write":
        members[1:4] = [1, draw(st.integers(0, 3)), 0]
    elif members[0] == "client":
        members[1:4] = [2, draw(st.integers(0, 3)), draw(st.integers(-1, 0))]
        members[5] = SECRET
    for _ in range(draw(st.integers(0, 2))):
        _replace_one(draw, members)
    return msgspec.json.encode(members)


def _replace_one(draw: st.DrawFn, members: Any) -> None:
    """Put something strange in the place of a member, of the members of one, and so on."""
    places = list(members) if isinstance(members, dict) else list(range(len(members)))
    if not places:
        return
    place = draw(st.sampled_from(places))
    inner = members[place]
    if isinstance(inner, dict | list) and draw(st.booleans()):
        _replace_one(draw, inner)
    else:
        members[place] = draw(STRANGE)


def apply_all(commands: list[Command]) -> Machine:
    """Apply commands behind the openings of two sessions, and return a machine that was made of a snapshot of that."""
    machine = Machine()
    entries = [
        make_entry(index, 1, 2**62, command)
        for index, command in enumerate([OpenSession(2**63 - 1), OpenSession(1, SECRET), *commands], 1)
    ]
    for entry in entries:
        machine.apply([entry])
    restorer = Restorer()
    for chunk in machine.freeze().chunks():
        restorer.feed(chunk)
    return restorer.finish()


@given(COMMANDS)
def test_a_command_comes_out_as_it_went_in(command: Command) -> None:
    """Whatever a door lets in can be read again."""
    assert decode_command(command.encode()) == command


@given(st.lists(st.binary() | strange_commands() | COMMANDS.map(Command.encode), max_size=6))
def test_what_is_not_refused_can_be_applied(texts: list[bytes]) -> None:
    """Nothing but a ValueError is raised where it is read; and then nothing, neither by machines nor by snapshots."""
    commands = []
    for text in texts:
        try:
            commands.append(decode_command(text))
        except ValueError:
            continue
    machine = apply_all(commands)
    assert machine.applied == 2 + len(commands)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'["write",-1,0,0,{"op":"delete","key":"k"}]', ">= 0"),
        (b'["write",1,9223372036854775808,0,{"op":"delete","key":"k"}]', "<= 9223372036854775807"),
        (b'["write",1,0,1000000000000000000000,{"op":"delete","key":"k"}]', "<= 9223372036854775807"),
        (b'["client",1,0,-2,{"op":"delete","key":"k"},"s",1]', ">= -1"),
        (b'["client",1,0,0,{"op":"delete","key":"k"},"s",-1]', ">= 0"),
        (b'["open",-1]', ">= 0"),
        (b'["renew",1e30]', "`int`"),
        (b'["expire",-1]', ">= 0"),
        (b'["write",1,0,0,{"op":"set","key":"k","value":1,"ttl":1e300}]', "<= 31536000"),
        (b'["write",1,0,0,{"op":"set","key":"k","value":1,"if_revision":9223372036854775808}]', "<= 9223"),
        (b'["write",1,0,0,{"op":"set","key":"\xff","value":1}]', "UTF-8"),
        (b'["write",1,0,0,{"op":"set","key":"k","value":%b}]' % (b"[" * 131 + b"]" * 131), "nested too deep"),
        (b'["write",1,0,0,{"op":"set","key":"k","value":%b}]' % (b"[" * 10**6), "nested too deep"),
    ],
)
def test_what_no_door_lets_in_is_refused(text: bytes, why: str) -> None:
    """A number that a sum or a snapshot could not hold, or a value that a parser could not."""
    with pytest.raises(ValueError, match=why):
        decode_command(text)


def test_the_deepest_value_that_a_door_lets_in_is_read() -> None:
    """Also as what a transaction compares, which is where a value stands deepest."""
    value = b"[" * NESTING_MAX + b"]" * NESTING_MAX
    operation = b'{"op":"txn","if":[{"key":"k","equals":%b}],"then":[{"op":"set","key":"k","value":%b}]}' % (
        value,
        value,
    )
    decode_command(b'["write",1,0,0,%b]' % operation)
