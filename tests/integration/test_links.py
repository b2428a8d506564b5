"""Processes of a cluster that are joined by links, in virtual time."""

from functools import partial
from random import Random

import attrs
import msgspec
import pytest
import trio
import trio.testing

from tests.linked import CONFIG, SECRET, Linked, Port, linked
from trio_kv.cluster.elsewhere import encode_look
from trio_kv.control.anywhere import carry_out_anywhere, serve_commands
from trio_kv.control.commands import CommandError, parse_command
from trio_kv.gateway.pulls import Pulls
from trio_kv.gateway.store import View
from trio_kv.kv.operations import Get, Incr, Set
from trio_kv.kv.reply import Reply
from trio_kv.raft.messages import HeartbeatReply
from trio_kv.trace.processes import LinkConnected, LinkLost, LinkRefused
from trio_kv.transport import door
from trio_kv.transport.asking import Asked, ask_all
from trio_kv.transport.link import ITEMS_MAX
from trio_kv.transport.links import LinkFault
from trio_kv.transport.peers import Identity, Layout
from trio_kv.wire import links
from trio_kv.wire.links import Hello, LinkFormatError, Refusal, Welcome, decode_reply
from trio_kv.wire.node_port import Answer, Batch, Done, Gone, Read, Refused, ReplyTo, encode_answer
from trio_kv.wire.peer_frames import FrameReader, encode_frame, encode_header
from trio_kv.wire.peers import encode_message

HOSTS: dict[int, tuple[int, ...]] = {1: (1,), 2: (2,), 3: (3,)}
PAIR: dict[int, tuple[int, ...]] = {0: (1, 3, 5), 1: (2, 4)}


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


async def write(cluster: Linked, process: int, key: str, value: bytes, timeout_s: float = 10.0) -> str:
    store = cluster.all[process].store
    answer = await store.write([Set(key, msgspec.Raw(value))], timeout_s=timeout_s)
    return answer.replies[0].code


async def read(cluster: Linked, process: int, key: str) -> bytes:
    answer = await cluster.all[process].store.read([Get(key)], timeout_s=10.0, is_stale=False, view=View())
    assert answer.replies[0].value is not None, answer
    return bytes(answer.replies[0].value)


@pytest.mark.parametrize("nodes", [HOSTS, PAIR])
async def test_each_process_reads_what_another_one_wrote(
    nodes: dict[int, tuple[int, ...]], autojump_clock: trio.testing.MockClock
) -> None:
    """Whichever process has the leader, a write by any of them is read at once by all."""
    async with linked(nodes) as cluster:
        await cluster.wait_leader()
        for round_ in range(5):
            for process in nodes:
                assert await write(cluster, process, "k", b"%d" % (10 * round_ + process)) == "ok"
                for other in nodes:
                    assert await read(cluster, other, "k") == b"%d" % (10 * round_ + process)


async def test_a_request_is_applied_once_though_its_connection_breaks_again_and_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A connection that dies with a request on it leaves it unknown; it is handed over again under its seq."""
    async with linked(HOSTS) as cluster:
        leader = await cluster.wait_leader()
        process = next(each for each in HOSTS if each != leader)
        store, count = cluster.all[process].store, 40
        random = Random(5)
        codes: list[str] = []

        async def add() -> None:
            answer = await store.write([Incr("n", by=1)], timeout_s=30.0)
            codes.append(answer.replies[0].code)

        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(add)
                if random.random() < 0.3:
                    await trio.sleep(random.random() * 0.02)
                    cluster.wires.break_all(*random.sample(list(HOSTS), 2))
        assert codes == ["ok"] * count
        assert await read(cluster, leader, "n") == b"%d" % count
        assert any(one.heard.events(LinkLost) for one in cluster.all.values())


async def test_a_process_that_is_away_is_unreachable_and_comes_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The others see it go, tell why, go on without it, and see it come."""
    async with linked(HOSTS) as cluster:
        leader = await cluster.wait_leader()
        away = next(each for each in HOSTS if each != leader)
        cluster.wires.is_dead = lambda source, target: away in {source, target}
        for other in HOSTS:
            cluster.wires.break_all(away, other)
            cluster.wires.break_all(other, away)
        await trio.sleep(1.0)
        seen = cluster.all[leader].process.cluster.registry.nodes[away]
        assert (str(seen.state), seen.role) == ("crashed", None)
        assert f"its process {away} can't be reached" in seen.reason
        assert await write(cluster, leader, "k", b"1") == "ok"
        cluster.wires.is_dead = lambda source, target: False
        with trio.fail_after(10):
            registry = cluster.all[leader].process.cluster.registry
            while registry.nodes[away].role is None:
                await registry.wait_change()
            assert await read(cluster, away, "k") == b"1"


async def test_a_process_that_is_called_again_tells_again_how_its_nodes_are(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Who lost its own connection alone forgot what it was told over the other one, and nothing new comes of itself."""
    async with linked(HOSTS) as cluster:
        leader = await cluster.wait_leader()
        other = next(each for each in HOSTS if each != leader)
        await trio.sleep(1.0)
        cluster.wires.break_all(other, leader)
        await trio.sleep(1.0)
        assert (found := cluster.all[other].process.cluster.registry.leader()) is not None
        assert found.status.node == leader


async def test_a_cut_link_lets_the_word_through_that_it_is_whole_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Faults act on what nodes say to one another, and on nothing else."""
    async with linked(HOSTS) as cluster:
        leader = await cluster.wait_leader()
        others = [each for each in HOSTS if each != leader]
        faults = cluster.all[leader].process.cluster.faults
        faults.partition([[leader], others])
        await trio.sleep(2.0)
        # All processes know of it, so the others have another leader.
        found = {process: cluster.all[process].process.cluster.registry.leader() for process in others}
        assert all(each is not None and each.status.node in others for each in found.values())
        faults.heal()
        await trio.sleep(0.5)
        assert await cluster.wait_leader() in others
        for one in cluster.all.values():
            assert not one.process.cluster.faults.active()


async def test_messages_of_all_processes_that_come_or_go_are_seen(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whoever looks at one process sees what its nodes say, and what is said to them."""
    async with linked(PAIR) as cluster:
        await cluster.wait_leader()
        seen: set[tuple[int, int]] = set()
        cluster.all[0].process.cluster.add_tap(
            lambda message, is_lost: seen.add((message.source, message.target))
        )
        leader = await cluster.wait_leader()
        assert await write(cluster, 0, "k", b"1") == "ok"
        await trio.sleep(0.2)
        far = next(node for node in PAIR[1 if leader in PAIR[0] else 0])
        assert {(leader, far), (far, leader)} <= seen


async def test_a_process_that_comes_back_hears_what_is_wrong_with_links(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What was cut while it was away is cut for it as well, and what was healed is whole."""
    async with linked(HOSTS) as cluster:
        leader = await cluster.wait_leader()
        away, third = [each for each in HOSTS if each != leader]
        own, other = (cluster.all[each].process.cluster.faults for each in (leader, away))
        for act in (partial(own.cut, leader, third), own.heal):
            cluster.wires.is_dead = lambda source, target: away in {source, target}
            for each in HOSTS:
                cluster.wires.break_all(away, each)
                cluster.wires.break_all(each, away)
            await trio.sleep(2.0)
            act()
            assert other.active() != own.active()
            cluster.wires.is_dead = lambda source, target: False
            await trio.sleep(2.0)
            assert other.active() == own.active()


@attrs.frozen
class Caller:
    """Somebody who calls a process, whoever he is."""

    stream: trio.abc.Stream

    async def hear(self) -> Welcome | Refusal | None:
        """Return what is said to the caller; None if he is cut off."""
        reader = FrameReader(1 << 20)
        while (items := reader.next()) is None:
            data = await self.stream.receive_some()
            if not data:
                return None
            reader.feed(data)
        return decode_reply(items[0])


def hello(opened: Linked, /, **changes: object) -> bytes:
    known = opened.disks.incarnations
    right = Hello(
        versions=links.VERSIONS,
        cluster=opened.disks.cluster,
        process=2,
        target=1,
        incarnations={2: known[2]},
        is_bulk=False,
        nodes=3,
        secret=SECRET,
    )
    return encode_frame([links.HELLO + links.encode(msgspec.structs.replace(right, **changes))])


async def is_going_on(cluster: Linked) -> bool:
    """Return whether the cluster still works, all of it."""
    with trio.fail_after(10):
        await cluster.wait_leader()
        codes = [await write(cluster, process, "on", b"1") for process in HOSTS]
    return codes == ["ok"] * 3


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"cluster": "0" * 32}, "it belongs to cluster"),
        ({"target": 3}, "it wants process 3"),
        ({"process": 7}, "there is no other process 7"),
        ({"process": 1}, "there is no other process 1"),
        ({"versions": (2, 9)}, "it speaks versions 2 to 9"),
        ({"incarnations": {2: 1}}, "node 2 was made twice"),
        ({"nodes": 5}, "its cluster has 5 nodes, and this one 3"),
        ({"is_asking": True}, "it asks what is known of its nodes, and has some"),
        ({"incarnations": {}}, "it has nodes []"),
        ({"incarnations": {3: 2**60}}, "it has nodes [3]"),
        ({"secret": "guessed"}, "it does not know the secret"),
    ],
)
async def test_who_is_not_a_peer_is_refused_with_the_reason(
    changes: dict[str, object], word: str, autojump_clock: trio.testing.MockClock
) -> None:
    """The one who called hears why, the log tells it, and nobody else notices."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        caller = Caller(cluster.wires.open(9, 1))
        await caller.stream.send_all(hello(cluster, **changes))
        refusal = await caller.hear()
        assert isinstance(refusal, Refusal)
        assert word in refusal.reason
        told = cluster.all[1].heard.events(LinkRefused)
        assert [word in each.reason for each in told if isinstance(each, LinkRefused)] == [True]
        assert await is_going_on(cluster)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "a frame of"),
        (encode_header(2**32 - 1, 0), "a frame of 4294967295 bytes"),
        (encode_frame([b"H\xc1"]), "malformed H"),
        (encode_frame([b"S\x90"]), "where b'H' belongs"),
        (b"", "did not say within"),
    ],
)
async def test_what_is_no_hello_is_cut_off(
    said: bytes, word: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Garbage, a frame of 4 GiB, nothing at all: an event names it, and the connection ends."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        caller = Caller(cluster.wires.open(9, 1))
        if said:
            await caller.stream.send_all(said)
        with trio.fail_after(10):
            assert await caller.hear() is None
        told = cluster.all[1].heard.events(LinkRefused)
        assert any(word in each.reason for each in told if isinstance(each, LinkRefused)), told
        assert await is_going_on(cluster)


@pytest.mark.parametrize(
    ("items", "word"),
    [
        ([b"Z"], "nobody sends who calls"),
        ([b"M\xff\xff"], "begins with"),
        ([b"Q"], "a request without a node"),
        ([b"Q\x01nonsense"], "begins with"),
        ([b"S\xc0"], "malformed S"),
        ([b"L\xc0"], "malformed state of links"),
        ([b"C\xc0"], "malformed C"),
        ([links.MESSAGE + encode_message(HeartbeatReply(3, 1, 1, 5, False, 1))], "which it does not have"),
        ([links.MESSAGE + encode_message(HeartbeatReply(2, 1, 1, 5, False, 1))], "which it does not have"),
    ],
)
async def test_a_peer_that_says_what_no_peer_says_is_cut_off(
    items: list[bytes], word: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Also of one that was let in nothing is believed: nor that it speaks for another node, or for a former one."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        caller = Caller(cluster.wires.open(9, 1))
        await caller.stream.send_all(hello(cluster))
        assert isinstance(await caller.hear(), Welcome)
        await caller.stream.send_all(encode_frame(items))
        with trio.fail_after(10):
            while await caller.stream.receive_some():
                pass
        told = cluster.all[1].heard.events(LinkRefused)
        assert any(word in each.reason for each in told if isinstance(each, LinkRefused)), told
        assert await is_going_on(cluster)


async def test_who_lost_its_disk_is_told_what_is_known_and_nothing_else_is_taken_from_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """One answer, and the connection ends. Those of the process that it says it is go on as they were."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        caller = Caller(cluster.wires.open(9, 1))
        await caller.stream.send_all(hello(cluster, incarnations={}, is_asking=True))
        answer = await caller.hear()
        assert isinstance(answer, Welcome)
        assert (answer.known, answer.nodes) == ({2: cluster.disks.incarnations[2]}, 3)
        assert not await caller.stream.receive_some()
        assert await is_going_on(cluster)
        assert not cluster.all[1].heard.events(LinkLost)
        assert not cluster.all[2].heard.events(LinkLost)


async def test_who_may_have_forgotten_does_not_say_what_is_known(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A node that does not run with all of its data sends away who asks."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        cluster.all[1].process.cluster.stop(1)
        await trio.sleep(0.1)
        caller = Caller(cluster.wires.open(9, 1))
        await caller.stream.send_all(hello(cluster, incarnations={}, is_asking=True))
        refusal = await caller.hear()
        assert isinstance(refusal, Refusal)
        assert "node 1 does not run with all of its data" in refusal.reason


def asker(cluster: Linked, node: int) -> Identity:
    """Return who asks for a node that has lost its disk."""
    layout = Layout(node, HOSTS, {each: ("memory", each) for each in HOSTS})
    return Identity(layout=layout, cluster=cluster.disks.cluster, secret=SECRET)


async def test_all_others_are_asked_what_they_know_and_say_why_they_do_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each by itself: one that has forgotten, one that can't be reached, one that says nothing, one of elsewhere."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        own, incarnation = asker(cluster, 2), cluster.disks.incarnations[2]
        security = cluster.wires.security_of(2)
        asked = await ask_all(own, security, timeout_s=5.0)
        assert asked == Asked({1: {2: incarnation}, 3: {2: incarnation}}, {})
        cluster.all[1].process.cluster.stop(1)
        await trio.sleep(0.1)
        cluster.wires.is_dead = lambda source, target: target == 3
        asked = await ask_all(own, security, timeout_s=5.0)
        assert asked.known == {}
        assert "node 1 does not run with all of its data" in asked.reasons[1]
        assert asked.reasons[3] == "Connection refused"
        cluster.wires.is_dead = lambda source, target: False
        cluster.wires.ports[3] = Port()
        asked = await ask_all(attrs.evolve(own, cluster="0" * 32), security, timeout_s=5.0)
        assert "it belongs to cluster" in asked.reasons[1]
        assert asked.reasons[3] == "it did not answer within 5 s"


async def test_a_node_that_is_being_filled_does_not_say_what_is_known(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its own disk was lost, and what it had heard with that; when it has all data it is asked again."""
    async with linked(HOSTS) as cluster:
        leader = await cluster.wait_leader()
        filled, lost = [node for node in HOSTS if node != leader]
        cluster.wires.is_dead = lambda source, target: filled in {source, target}
        for other in HOSTS:
            cluster.wires.break_all(filled, other)
            cluster.wires.break_all(other, filled)
        operated = cluster.all[filled].process.cluster
        operated.stop(filled)
        await trio.sleep(0.5)
        await operated.rebuild(filled)
        await trio.sleep(0.5)
        with pytest.raises(ValueError, match=f"node {filled} does not run with all of its data"):
            operated.lives.vouch([lost])
        assert not cluster.all[filled].process.cluster.registry.nodes[filled].has_all_data
        cluster.wires.is_dead = lambda source, target: False
        with trio.fail_after(20):
            while True:
                asked = await ask_all(asker(cluster, lost), cluster.wires.security_of(lost), timeout_s=5.0)
                if filled in asked.known:
                    break
                await trio.sleep(0.1)
        assert asked.known[filled] == {lost: cluster.disks.incarnations[lost]}


async def test_nodes_of_other_processes_that_run_with_all_data_count_for_a_rebuild(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Their processes say so; of one that can't be reached nobody knows it."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        await trio.sleep(0.5)
        operated = cluster.all[2].process.cluster
        assert set(operated.sound_nodes()) == {1, 2, 3}
        operated.stop(2)
        await trio.sleep(0.5)
        assert set(operated.sound_nodes()) == {1, 3}
        cluster.wires.is_dead = lambda source, target: 3 in {source, target}
        for other in HOSTS:
            cluster.wires.break_all(3, other)
            cluster.wires.break_all(other, 3)
        await trio.sleep(2.0)
        assert set(operated.sound_nodes()) == {1}


async def test_a_peer_that_says_nothing_more_is_cut_off(autojump_clock: trio.testing.MockClock) -> None:
    """A half-open connection is noticed within two election time-outs, and told by nobody: it was none."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        caller = Caller(cluster.wires.open(9, 1))
        await caller.stream.send_all(hello(cluster, is_bulk=True))
        assert isinstance(await caller.hear(), Welcome)
        began_at = trio.current_time()
        assert not await caller.stream.receive_some()
        assert trio.current_time() - began_at <= 2 * CONFIG.raft.election_timeout_max_s
        assert await is_going_on(cluster)


async def test_a_process_that_reads_nothing_costs_a_bounded_amount(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What does not fit into the outbox is lost and counted; the link is given up, and opened anew."""
    async with linked(HOSTS) as cluster:
        leader = await cluster.wait_leader()
        deaf = next(each for each in HOSTS if each != leader)
        link = cluster.all[leader].process.links.links[deaf]
        message = HeartbeatReply(leader, deaf, 1, 1, False, 1)
        item = links.MESSAGE + encode_message(message)
        # Nothing of this is sent before this task waits.
        taken = sum(link.post(item) for _ in range(2 * ITEMS_MAX))
        assert 0 < taken <= ITEMS_MAX
        assert link.counts.messages_lost == 2 * ITEMS_MAX - taken
        assert await is_going_on(cluster)
        assert cluster.all[leader].heard.events(LinkConnected)


async def test_a_message_for_a_node_that_is_elsewhere_is_not_handed_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Handed on, it would end the connection to the process that has the node: it comes from none of ours."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        caller = Caller(cluster.wires.open(9, 1))
        await caller.stream.send_all(hello(cluster))
        assert isinstance(await caller.hear(), Welcome)
        message = HeartbeatReply(2, 3, 1, cluster.disks.incarnations[2], False, 1)
        await caller.stream.send_all(encode_frame([links.MESSAGE + encode_message(message)]))
        with trio.fail_after(10):
            while await caller.stream.receive_some():
                pass
        told = cluster.all[1].heard.events(LinkRefused)
        assert [each.reason for each in told if isinstance(each, LinkRefused)] == [
            "a message to node 3, which is not here"
        ]
        assert await is_going_on(cluster)


@pytest.mark.parametrize(
    "answer",
    [Batch(7, 2, 0, 1, ()), Gone(7, 2, 0), Done(7, 2, 1, 1, ()), Done(7, 2, 1, 1, [Reply("ok")] * 2)],
)
async def test_an_answer_to_something_else_than_was_asked_ends_the_link_and_nothing_more(
    answer: Answer, autojump_clock: trio.testing.MockClock
) -> None:
    """Who asked would fall over it, and the whole process with him."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        link = cluster.all[1].process.links.links[2]
        reply_to = ReplyTo(1, 99)
        assert link.submit(2, Read(reply_to, 7, [Get("k")]))
        with pytest.raises(LinkFormatError, match="node 2 answers what it was not asked"):
            link._on_answer(links.ANSWER + encode_answer(reply_to, answer))


async def test_a_request_that_was_handed_over_twice_is_answered_twice(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The first answer may say that nothing happened, and the second what did."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        registry, link = cluster.all[1].process.cluster.registry, cluster.all[1].process.links.links[2]
        heard: list[Answer] = []
        reply_to = registry.join(heard.append)
        for _ in range(2):
            assert link.submit(2, Read(reply_to, 7, [Get("k")]))
        for answer in (Refused(7, 2, None), Done(7, 2, 1, 1, [Reply("ok")]), Done(7, 2, 1, 1, [Reply("ok")])):
            link._on_answer(links.ANSWER + encode_answer(reply_to, answer))
        assert [type(each) for each in heard] == [Refused, Done]


async def test_large_values_that_are_read_together_come_over_a_link(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A run of reads may be answered with far more than a door takes at a time."""
    async with linked(HOSTS) as cluster:
        leader = await cluster.wait_leader()
        assert await write(cluster, leader, "k", b'"' + b"x" * (1 << 20) + b'"') == "ok"
        store = cluster.all[leader].store
        answer = await store.read([Get("k")] * 70, timeout_s=10.0, is_stale=False, view=View())
        assert [reply.code for reply in answer.replies] == ["ok"] * 70
        assert not any(one.heard.events(LinkLost) for one in cluster.all.values())


async def test_answers_that_find_no_room_are_unknown_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Many large reads at a time are slow, and end no connection: other requests and heartbeats go over it."""
    monkeypatch.setattr(door, "BYTES_MAX", 3 << 20)
    async with linked(HOSTS) as cluster:
        leader = await cluster.wait_leader()
        assert await write(cluster, leader, "k", b'"' + b"x" * (1 << 20) + b'"') == "ok"
        for one in cluster.all.values():
            one.heard.records.clear()
        codes: list[str] = []

        async def read_large() -> None:
            store = cluster.all[leader].store
            answer = await store.read([Get("k")] * 2, timeout_s=10.0, is_stale=False, view=View())
            codes.append(answer.replies[0].code)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(read_large)
        assert codes == ["ok"] * 20
        assert not any(one.heard.events(LinkLost) for one in cluster.all.values())


async def test_events_leave_room_for_what_nodes_say(autojump_clock: trio.testing.MockClock) -> None:
    """A flood of events waits, and neither messages of Raft nor requests are lost for it."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        ways = cluster.all[1].process.links
        # Nothing of this is sent before this task waits.
        told = sum([ways.tell_event(2, b"{}") for _ in range(2 * ITEMS_MAX)])
        assert told <= ITEMS_MAX // 2
        assert ways.links[2].post(links.PING + bytes(8))
        assert not ways.links[2].counts.messages_lost


async def test_what_was_made_wrong_with_links_at_the_same_time_in_two_processes_becomes_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """All come to know the same, whichever it is; else each would lose what the others let through, for ever."""
    async with linked(HOSTS) as cluster:
        await cluster.wait_leader()
        known = [one.process.others for one in cluster.all.values()]
        cluster.all[1].process.cluster.faults.cut(1, 2)
        cluster.all[2].process.cluster.faults.cut(2, 3)
        await trio.sleep(0.5)
        assert len({each.faults() for each in known}) == 1
        cluster.all[3].process.cluster.faults.heal()
        await trio.sleep(0.5)
        assert not any(one.process.cluster.faults.active() for one in cluster.all.values())


async def test_word_of_nodes_and_links_that_found_no_room_is_told_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Nothing else would ever say that all is whole again, or who leads."""
    async with linked(HOSTS) as cluster:
        leader = await cluster.wait_leader()
        process = cluster.all[leader].process
        process.cluster.faults.partition([[1], [2], [3]])
        await trio.sleep(0.5)
        for link in process.links.links.values():
            while link.post(links.PING + bytes(8)):
                pass
        # All this before anything is sent.
        process.cluster.faults.heal()
        process.others._tell()
        await trio.sleep(0.5)
        assert not any(one.process.cluster.faults.active() for one in cluster.all.values())
        assert await is_going_on(cluster)


async def test_a_look_takes_nothing_back_that_was_told_since(autojump_clock: trio.testing.MockClock) -> None:
    """It comes over another connection than what is told, and may have been there for a while."""
    async with linked(HOSTS) as cluster:
        leader = await cluster.wait_leader()
        other = next(each for each in HOSTS if each != leader)
        seen = cluster.all[other].process
        look = attrs.evolve(cluster.all[leader].process.cluster.look_here())
        before = attrs.evolve(look, statuses=[attrs.evolve(look.statuses[0], role=None, term=0)])

        async def call(process: int, name: str, payload: bytes) -> bytes:
            del process, name, payload
            await trio.lowlevel.checkpoint()
            return encode_look(before)

        seen.others.call = call  # type: ignore[method-assign]
        await seen.others.refresh()
        assert seen.cluster.registry.nodes[leader].role == "leader"
        assert (found := seen.cluster.registry.leader()) is not None
        assert found.status.node == leader


async def test_who_is_cut_off_on_hosts_is_so_for_his_clients(autojump_clock: trio.testing.MockClock) -> None:
    """What is wrong with links between nodes is wrong with what doors ask of nodes elsewhere, and hear."""
    async with linked(HOSTS, is_host=True) as cluster:
        leader = await cluster.wait_leader()
        away, other = (each for each in HOSTS if each != leader)
        faults = cluster.all[leader].process.cluster.faults
        faults.partition([[away], [leader, other]])
        await trio.sleep(0.5)
        assert await write(cluster, away, "k", b"1", timeout_s=2.0) != "ok"
        asked = cluster.all[away].store.read([Get("k")], timeout_s=2.0, is_stale=False, view=View())
        assert [reply.code for reply in (await asked).replies] == ["unavailable"]
        assert await write(cluster, leader, "k", b"2") == "ok"
        faults.heal()
        assert await write(cluster, away, "k", b"3") == "ok"
        assert await read(cluster, other, "k") == b"3"


@pytest.mark.parametrize("fault", [LinkFault(drop=0.4), LinkFault(duplicate=1.0), LinkFault(jitter_s=0.03)])
async def test_what_hosts_ask_over_links_with_faults_takes_effect_once(
    fault: LinkFault, autojump_clock: trio.testing.MockClock
) -> None:
    """Requests and answers get lost, are late and overtake one another; each write has one effect and an answer."""
    async with linked(HOSTS, is_host=True) as cluster:
        leader = await cluster.wait_leader()
        process = next(each for each in HOSTS if each != leader)
        store, codes = cluster.all[process].store, []

        async def add() -> None:
            answer = await store.write([Incr("n", by=1)], timeout_s=60.0)
            codes.append(answer.replies[0].code)

        cluster.all[leader].process.others._network.links.set_fault(fault)
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(add)
                await trio.sleep(0.01)
        cluster.all[leader].process.others._network.links.heal()
        await trio.sleep(0.5)
        assert codes == ["ok"] * 20
        assert await read(cluster, process, "n") == b"20"


async def test_links_that_are_slow_on_hosts_are_so_for_requests(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The way to the leader takes its time, and the way back."""
    async with linked(HOSTS, is_host=True) as cluster:
        leader = await cluster.wait_leader()
        process = next(each for each in HOSTS if each != leader)
        assert await write(cluster, process, "k", b"1") == "ok"
        cluster.all[leader].process.cluster.faults.delay(0.05)
        await trio.sleep(0.5)
        assert await cluster.wait_leader() == leader
        began_at = trio.current_time()
        assert await write(cluster, process, "k", b"2") == "ok"
        # There and back once to the leader, and once from there to a majority.
        assert trio.current_time() - began_at >= 0.2


async def test_a_backup_on_a_host_is_taken_there_or_not_at_all(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The snapshot of another host's node has a path on that host, where nobody here finds it."""
    async with linked(HOSTS, is_host=True) as cluster:
        await cluster.wait_leader()
        for one in cluster.all.values():
            serve_commands(one.process.cluster, one.process.others)
        backup = parse_command(b'{"command":"backup"}')
        here = cluster.all[1].process.cluster
        assert (await carry_out_anywhere(backup, here))["node"] == 1
        here.stop(1)
        await trio.sleep(0.5)
        with pytest.raises(
            CommandError, match="no node runs that could take a snapshot on this host: ask another one"
        ):
            await carry_out_anywhere(backup, here)


async def test_changes_are_drawn_from_a_follower_of_this_process(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """All that changes would go over a link else, and again for each process that has a door."""
    async with linked(HOSTS) as cluster:
        leader = await cluster.wait_leader()
        process = next(each for each in HOSTS if each != leader)
        registry = cluster.all[process].process.cluster.registry
        assert len(registry.readable()) == len(HOSTS)
        for seed in range(20):
            pulls = Pulls(registry, Random(seed))
            assert pulls.pull(0, print, print).node == process
