"""The client on Trio, against a door in memory: whose reply is whose, what is repeated, and when it gives up."""

import inspect
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from trio_kv import (
    Client,
    CompactedError,
    ConflictError,
    NotConnectedError,
    OutcomeUnknownError,
    StoreError,
    TrioClient,
    UnauthorizedError,
    UnavailableError,
    open_client,
)
from trio_kv.client.background import running_beside
from trio_kv.client.numbering import Seqs, SessionReply
from trio_kv.wire.replies import parse_reply


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


@attrs.frozen
class Point:
    x: int
    y: int


class Door:
    """A store and its door, in memory. What it does with a line may be told to it.

    It applies a write once by its session and seq, and keeps what it has applied.
    """

    def __init__(self, nursery: trio.Nursery, random: Random | None = None) -> None:
        self.nursery = nursery
        self.random = random
        self.lines: list[dict[str, Any]] = []
        self.values: dict[str, Any] = {}
        self.answers: dict[tuple[str, int], dict[str, Any]] = {}
        self.applied: list[Any] = []
        self.script: list[Callable[[dict[str, Any]], dict[str, Any] | None]] = []
        """What is done with the next lines; None: the connection ends."""
        self.watched: list[list[dict[str, Any] | None]] = []
        """What each next watch is told; None: the connection ends."""
        self.is_open = True
        self.dial_s = 0.0
        """How long it takes to come to it."""
        self.dialled: list[tuple[str, int]] = []
        self.shut_hosts: set[str] = set()

    async def open_stream(self, host: str, port: int) -> trio.abc.Stream:
        await trio.sleep(self.dial_s)
        self.dialled.append((host, port))
        if not self.is_open or host in self.shut_hosts:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self.nursery.start_soon(self._serve, theirs)
        return ours

    async def _serve(self, stream: "trio.StapledStream[Any, Any]") -> None:
        received = b""
        async with stream:
            async for data in stream:
                received += data
                *lines, received = received.split(b"\n")
                for line in lines:
                    if self.random is not None:
                        await trio.sleep(self.random.choice((0, 0, 0, 0.001, 0.01)))
                    asked = json.loads(line)
                    reply = self._carry_out(asked)
                    if reply is None:
                        return
                    await stream.send_all(json.dumps(reply).encode() + b"\n")
                    if "close" in reply:
                        return
                    is_watched = asked.get("op") == "watch" and self.watched
                    for line_of_watch in self.watched.pop(0) if is_watched else ():
                        if line_of_watch is None:
                            return
                        await stream.send_all(json.dumps(line_of_watch).encode() + b"\n")

    def _carry_out(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        self.lines.append(asked)
        if self.script:
            return self.script.pop(0)(asked)
        return self.apply(asked)

    def apply(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Carry out a request, as a store does."""
        match asked.get("op"):
            case "session":
                return {"session": f"{len(self.lines)}-00c0ffee00c0ffee", "timeout": 1000, "status": "ok"}
            case "watch":
                return {"id": 1, "status": "ok", "revision": 7}
            case "auth":
                return OK if asked["token"] == "secret" else refusal("unauthorized")
            case _:
                return self._apply_to_key(asked)

    def _apply_to_key(self, asked: dict[str, Any]) -> dict[str, Any]:
        key = asked["key"]
        if "value" not in asked:
            if key not in self.values:
                return {"key": key, "value": None, "status": "error"}
            return {"key": key, "value": self.values[key], "status": "ok"}
        number = (asked["session"], asked["seq"]) if "session" in asked else None
        if number in self.answers:
            return self.answers[number]
        self.values[key] = asked["value"]
        self.applied.append(asked["value"])
        reply = {"key": key, "value": asked["value"], "status": "ok"}
        if number is not None:
            self.answers[number] = reply
        return reply

    def apply_and_hang_up(self, asked: dict[str, Any]) -> None:
        """Carry out a request, and die before the answer is out."""
        self.apply(asked)


OK = {"status": "ok"}


def refusal(code: str) -> dict[str, Any]:
    return {"key": "k", "value": None, "status": "error", "error": code, "message": "so it is"}


def say(reply: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda _: reply


def hang_up(_asked: dict[str, Any]) -> None:
    return None


@asynccontextmanager
async def open_door(random: Random | None = None, **options: Any) -> AsyncIterator[tuple[Door, TrioClient]]:
    """Open a door and a client of it."""
    async with trio.open_nursery() as nursery:
        door = Door(nursery, random)
        async with open_client("a", 1, open_stream=door.open_stream, **options) as kv:
            yield door, kv
        nursery.cancel_scope.cancel()


def test_both_clients_have_the_same_methods() -> None:
    """By name and by what they take; but that the one on Trio is closed with `aclose`."""

    def methods(kind: type) -> dict[str, list[inspect.Parameter]]:
        return {
            name: list(inspect.signature(method).parameters.values())
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_") and name not in ("close", "aclose", "run", "send_line")
        }

    assert methods(Client) == methods(TrioClient)


def test_the_blocking_client_does_without_trio() -> None:
    """Who uses it alone does not pay for the import of the other."""
    code = (
        "import sys, trio_kv\n"
        "try: trio_kv.Client(port=1).get('k')\n"
        "except trio_kv.NotConnectedError: sys.exit('trio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


async def test_a_value_comes_back_as_what_it_is_asked_for() -> None:
    """As a class of attrs, as a type, or as the reply; a missing key is None, and what does not fit says so."""
    async with open_door() as (_, kv):
        await kv.set("p", Point(1, 2))
        assert await kv.get("p", Point) == Point(1, 2)
        assert (await kv.get("p")).data == {"x": 1, "y": 2}
        assert await kv.get("p", dict[str, int]) == {"x": 1, "y": 2}
        assert await kv.get("q", Point) is None
        with pytest.raises(ValueError, match="Expected `str`"):
            await kv.get("p", dict[str, str])


async def test_many_tasks_share_one_connection(autojump_clock: trio.testing.MockClock) -> None:
    """What they ask at the same time goes out at once, and each gets its own."""
    async with open_door() as (door, kv):

        async def use(name: str) -> None:
            for number in range(20):
                await kv.set(f"{name}{number}", [name, number])
                assert (await kv.get(f"{name}{number}")).data == [name, number]

        async with trio.open_nursery() as nursery:
            for place in range(50):
                nursery.start_soon(use, f"t{place}-")
        told = kv.statistics()
    assert len(door.dialled) == 1
    assert (told.requests, told.replies, told.repetitions) == (2001, 2001, 0)
    assert (told.calls_in_flight, told.calls_waiting, told.address) == (0, 0, "a:1")


@pytest.mark.parametrize("seed", range(4))
async def test_calls_that_are_cancelled_mix_up_no_replies(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Ten thousand calls of forty tasks, most of them cancelled at a random moment: each of the others has its own."""
    random = Random(seed)
    ends = {"cancelled": 0, "answered": 0}
    async with open_door(Random(seed), repeats_writes=bool(seed % 2)) as (door, kv):

        async def use(name: str) -> None:
            for number in range(250):
                key, value = f"{name}{number}", f"{name}/{number}"
                with trio.move_on_after(random.choice((0, 0.0005, 0.005, 0.05, 9))) as scope:
                    reply = await kv.set(key, value) if random.random() < 0.5 else await kv.get(key)
                    assert reply.key == key
                    assert reply.data in (None, value)
                ends["cancelled" if scope.cancelled_caught else "answered"] += 1

        async with trio.open_nursery() as nursery:
            for place in range(40):
                nursery.start_soon(use, f"t{place}-")
        # Nothing is left over: the next call has its own reply, and all that was sent was read.
        assert (await kv.get("last")).key == "last"
        told = kv.statistics()
    assert sum(ends.values()) == 10_000
    assert min(ends.values()) > 1_000
    assert told.replies_dropped > 100
    assert told.requests == told.replies == len(door.lines)
    assert len(door.dialled) == 1
    assert len(set(door.applied)) == len(door.applied)


async def test_C1_a_write_takes_effect_once_though_its_connection_broke(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is sent again under its seq, over the next connection, and gets the first answer (scenario C1)."""
    async with open_door() as (door, kv):
        await kv.set("k", 1)
        door.script = [door.apply_and_hang_up, hang_up]
        assert (await kv.set("k", 2)).code == "ok"
        assert kv.statistics().connections == 3
        assert kv.statistics().repetitions == 2
    assert door.applied == [1, 2]


async def test_a_write_without_a_number_is_unknown_when_its_connection_breaks(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It is not sent again; a read is, and so is a write that the server has not read."""
    async with open_door(repeats_writes=False) as (door, kv):
        door.script = [hang_up]
        with pytest.raises(OutcomeUnknownError, match="may or may not"):
            await kv.set("k", 1)
        door.script = [hang_up]
        assert (await kv.get("k")).code == "missing"
        door.script = [say({"close": "shutdown"})]
        assert (await kv.set("k", 2)).code == "ok"
    assert door.applied == [2]


async def test_a_definite_error_does_not_deny_an_earlier_attempt(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A write that may have taken effect has not failed, whatever becomes of the next attempts."""
    async with open_door(timeout_s=2.0) as (door, kv):
        await kv.set("k", 1)
        door.script = [door.apply_and_hang_up, say(refusal("overloaded"))]
        with pytest.raises(StoreError, match="overloaded: so it is") as caught:
            await kv.set("k", 2)
        assert isinstance(caught.value, OutcomeUnknownError)

        def apply_and_die(asked: dict[str, Any]) -> None:
            door.is_open = False
            door.apply(asked)

        door.script = [apply_and_die]
        with pytest.raises(StoreError, match="no server") as caught:
            await kv.set("k", 3)
        assert isinstance(caught.value, OutcomeUnknownError)
    assert door.applied == [1, 2, 3]


async def test_a_call_that_is_cancelled_before_it_goes_out_never_does(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """While there is no connection, say; and one whose scope was cancelled before it began, neither."""
    async with open_door() as (door, kv):
        await kv.set("k", 0)
        door.script = [hang_up]
        door.dial_s = 1.0
        with trio.move_on_after(0.2):
            await kv.get("k")
        with trio.move_on_after(0.2):
            await kv.set("k", 1)
        with trio.move_on_after(0):
            await kv.set("k", 2)
        await kv.set("k", 3)
    assert door.applied == [0, 3]


def test_a_seq_that_is_awaited_is_not_given_up() -> None:
    """Each write tells the oldest one that has no answer; below that the store forgets."""
    seqs = Seqs()
    seqs.open(SessionReply("7-00c0ffee00c0ffee", 1000.0), 0.0)
    reply = parse_reply(b'{"key":"k","value":1,"status":"ok"}')
    first, second = seqs.number(None), seqs.number(None)
    seqs.settle(second, 0.0, reply)
    third = seqs.number(None)
    seqs.settle(first, 0.0, None)
    fourth = seqs.number(None)
    assert [(each.seq, each.done) for each in (first, second, third, fourth)] == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 3),
    ]


@pytest.mark.parametrize("code", ["unavailable", "timeout", "overloaded", "bad_request", "too_large"])
def test_what_was_refused_does_not_keep_a_session(code: str) -> None:
    """The store was not told of its session, and forgets that: what would go out under it had no known outcome."""
    seqs = Seqs()
    seqs.open(SessionReply("7-00c0ffee00c0ffee", 10.0), 0.0)
    seqs.settle(seqs.number(None), 4.0, parse_reply(json.dumps(refusal(code)).encode()))
    assert seqs.is_usable(5.0)
    assert not seqs.is_usable(6.0)
    seqs.settle(seqs.number(None), 4.0, parse_reply(json.dumps(refusal("conflict")).encode()))
    assert seqs.is_usable(6.0)


async def test_what_a_server_can_not_do_now_is_asked_again(autojump_clock: trio.testing.MockClock) -> None:
    """Until the time is over; what it will never do is not, and is an error of its own class."""
    async with open_door(timeout_s=2.0) as (door, kv):
        door.script = [say(refusal("unavailable"))] * 3
        assert (await kv.get("k")).code == "missing"
        door.script = [say(refusal("unavailable"))] * 100
        with pytest.raises(UnavailableError):
            await kv.get("k")
        assert trio.current_time() <= 4.0
        door.script = [say(refusal("conflict"))]
        with pytest.raises(ConflictError, match="so it is"):
            await kv.set("k", 1)


async def test_a_server_that_is_gone_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    """As long as a call has time; nothing was sent, which is said."""
    async with open_door(timeout_s=2.0) as (door, kv):
        door.is_open = False
        door.script = [hang_up]
        with pytest.raises(NotConnectedError, match="no server at a:1: connection refused"):
            await kv.get("k")
        assert 1.0 < trio.current_time() <= 2.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kv.set, "k", 1)
            await trio.sleep(1.0)
            door.is_open = True
    assert door.applied == [1]


async def test_a_server_that_says_nothing_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    """A call ends a second after its time, a cancel scope ends it earlier, and the next connection is a new one."""
    async with open_door(timeout_s=2.0, repeats_writes=False) as (door, kv):

        async def silent(host: str, port: int) -> trio.abc.Stream:
            del host, port
            await trio.lowlevel.checkpoint()
            return trio.testing.memory_stream_pair()[0]

        kv._dialler._open_stream, sound = silent, kv._dialler._open_stream
        door.script = [hang_up]
        with trio.move_on_after(1.0) as scope:
            await kv.get("k")
        assert scope.cancelled_caught
        with pytest.raises(OutcomeUnknownError, match=r"no answer in time|does not answer"):
            await kv.set("k", 1)
        kv._dialler._open_stream = sound
        assert (await kv.set("k", 2)).code == "ok"
        assert trio.current_time() < 6.0
    assert door.applied == [2]


async def test_another_server_is_asked_when_one_is_gone_or_can_not_serve(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """In turn; what is under way at a server that can't serve is waited for first."""
    async with open_door(fallbacks=[("b", 2), ("c", 3)]) as (door, kv):
        door.shut_hosts = {"a", "b"}
        door.script = [hang_up]
        assert (await kv.get("k")).code == "missing"
        assert door.dialled == [("a", 1), ("a", 1), ("b", 2), ("c", 3)]
        door.shut_hosts = set()
        door.script = [say(refusal("unavailable"))] * 3
        assert (await kv.get("k")).code == "missing"
        assert kv.statistics().address == "a:1"


async def test_a_token_is_shown_on_each_connection(autojump_clock: trio.testing.MockClock) -> None:
    """And one that the server does not know is told at once."""
    async with open_door(token="secret") as (door, kv):
        door.script = [hang_up]
        assert (await kv.get("k")).code == "missing"
        with pytest.raises(UnauthorizedError):
            async with open_client("a", 1, token="wrong", open_stream=door.open_stream):
                pass
    assert [each["op"] for each in door.lines if "op" in each] == ["auth", "auth", "auth"]


async def test_an_error_inside_comes_out_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    """The client's own tasks are its own matter; and who waits for a client that is closed hears so."""
    async with trio.open_nursery() as nursery:
        door = Door(nursery)
        with pytest.raises(ZeroDivisionError):
            await use_badly(door)
        async with open_client("a", 1, open_stream=door.open_stream) as kv:
            door.script = [lambda _: nursery.start_soon(kv.aclose)]
            with pytest.raises(trio.ClosedResourceError):
                await kv.get("k")
        with pytest.raises(trio.ClosedResourceError):
            await kv.get("k")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("dial_s", [0.0, 3.0])
async def test_a_client_that_is_closed_has_no_connection(
    dial_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    """Nor does it make one, also if it lives on in its context."""
    async with open_door() as (door, kv):
        await kv.get("k")
        if dial_s:
            door.script, door.dial_s = [hang_up], dial_s
            with trio.move_on_after(1):
                await kv.get("k")
        await kv.aclose()
        await trio.sleep(5)
        assert kv.statistics().address is None
        assert not door.nursery.child_tasks
        assert len(door.dialled) == 1


async def test_what_runs_beside_a_body_is_its_own_matter(autojump_clock: trio.testing.MockClock) -> None:
    """An error of it ends the body and comes out, one of the body comes out, and both can be cancelled."""

    async def fail() -> None:
        await trio.sleep(1)
        raise NotConnectedError("gone")

    async def use(body_s: float) -> None:
        async with running_beside(fail):
            await trio.sleep(body_s)
            raise ZeroDivisionError

    with pytest.raises(NotConnectedError, match="gone"):
        await use(9)
    with pytest.raises(ZeroDivisionError):
        await use(0)
    with trio.move_on_after(0.5) as scope:
        await use(9)
    assert scope.cancelled_caught
    assert trio.current_time() == 1.5


def test_what_ends_a_body_that_has_a_nursery_comes_out(autojump_clock: trio.testing.MockClock) -> None:
    """Its tasks are cancelled with it, which is no error of the body; what they raise meanwhile is one."""

    async def fail() -> None:
        await trio.sleep(1)
        raise NotConnectedError("gone")

    async def give_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError

    async def use(*tasks: Callable[[], Any]) -> None:
        async with running_beside(fail), trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)

    # As Trio runs by default: a single error of a nursery comes in a group, too.
    with pytest.raises(NotConnectedError, match="gone"):
        trio.run(use, trio.sleep_forever, trio.sleep_forever, clock=autojump_clock)
    with pytest.raises(ExceptionGroup) as caught:
        trio.run(use, trio.sleep_forever, give_up, clock=trio.testing.MockClock(autojump_threshold=0))
    assert [type(each) for each in caught.value.exceptions] == [ZeroDivisionError]


async def use_badly(door: Door) -> None:
    async with open_client("a", 1, open_stream=door.open_stream) as kv:
        await kv.get("k")
        _ = 1 / 0


# --- watches ------------------------------------------------------------------------------------------------


def told(revision: int, *keys: str) -> dict[str, Any]:
    return {
        "watch": 1,
        "revision": revision,
        "events": [{"event": "set", "key": key, "value": revision} for key in keys],
    }


def asked_from(door: Door) -> list[int | None]:
    return [each.get("from") for each in door.lines if each.get("op") == "watch"]


async def test_a_watch_goes_on_behind_what_it_has_told(autojump_clock: trio.testing.MockClock) -> None:
    """Over lost connections, and where it was too slow; lines without events are for who asks for them."""
    async with open_door() as (door, kv):
        door.watched = [
            [told(8, "a"), told(9), None],
            [told(10, "a", "b"), {"watch": 1, "event": "lost", "revision": 11}],
            [told(12, "c"), told(13)],
        ]
        async with kv.watch("") as changes:
            seen = [await anext(changes) for _ in range(3)]
            assert kv.statistics().watches == 1
            assert (await anext(changes.with_progress())).revision == 13
        assert [each.revision for each in seen] == [8, 10, 12]
        assert [(event.key, event.data, event.to(int)) for event in seen[1].events] == [
            ("a", 10, 10),
            ("b", 10, 10),
        ]
        assert asked_from(door) == [None, 10, 11]
        assert kv.statistics().watches == 0
        with pytest.raises(StopAsyncIteration):
            await anext(changes)


async def test_an_iteration_that_is_cancelled_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """The next one is told what this one was not; two at a time are refused."""
    async with open_door() as (door, kv):
        door.watched = [[told(8, "a")]]
        changes = kv.watch(key="a")
        with trio.move_on_after(0):
            await anext(changes)
        assert (await anext(changes)).revision == 8
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, changes)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await anext(changes)
            nursery.cancel_scope.cancel()
        await kv.aclose()
        assert kv.statistics().watches == 0
        with pytest.raises(trio.ClosedResourceError):
            kv.watch("")


async def test_a_watch_that_is_closed_while_it_connects_ends(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever iterates over it hears so at once, and no connection is left."""
    async with open_door() as (door, kv):
        changes = kv.watch(key="a")
        door.dial_s = 3.0
        async with trio.open_nursery() as nursery:

            async def close() -> None:
                await trio.sleep(1)
                await kv.aclose()

            nursery.start_soon(close)
            with trio.fail_after(2), pytest.raises(trio.ClosedResourceError):
                await anext(changes)
        assert not asked_from(door)


async def test_a_watch_gives_up_what_can_not_be(autojump_clock: trio.testing.MockClock) -> None:
    """History that is gone, at once; a server that is gone, after some attempts."""
    async with open_door() as (door, kv):
        door.script = [say({**refusal("compacted"), "revision": 40})]
        with pytest.raises(CompactedError) as caught:
            await anext(kv.watch("", first=1))
        assert caught.value.reply is not None
        assert caught.value.reply.revision == 40
        door.is_open = False
        with pytest.raises(NotConnectedError, match="connection refused"):
            await anext(kv.watch(""))
        with pytest.raises(TypeError, match="either a prefix or a key"):
            kv.watch()
