"""Claims about a cluster of one process: real node tasks, real disks, real time, injected faults."""

import errno
import shutil
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from tests.doubles import MemorySink
from trio_kv.cluster import loading
from trio_kv.cluster.cluster import Cluster
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.disks import Loaded, RealDisks
from trio_kv.cluster.members import FaultError, Member
from trio_kv.cluster.supervisor import Supervisor
from trio_kv.gateway.local import LocalCluster, open_cluster
from trio_kv.gateway.store import View
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import Cas, Get, Set
from trio_kv.kv.reply import Reply
from trio_kv.storage.data_directory import DataDirectory, open_data_directory
from trio_kv.storage.errors import StorageError
from trio_kv.trace.trace import Trace
from trio_kv.trace.vocabulary import NodeCrashed
from trio_kv.wire.node_port import Done, Read
from trio_kv.wire.node_status import NodeStatus, State

WAIT_S = 20.0
"""A condition that does not come true within this time fails the test."""
CONFIG = ClusterConfig(restart_delay_min_s=0.1)


async def eventually(condition: Callable[[], bool]) -> None:
    with trio.fail_after(WAIT_S):
        while not condition():  # noqa: ASYNC110 - what a person would watch is polled, not signalled
            await trio.sleep(0.01)


def has_state(status: NodeStatus, state: State) -> bool:
    return status.state is state


async def put(local: LocalCluster, key: str, value: object) -> Reply:
    request = Set(key=key, value=msgspec.Raw(msgspec.json.encode(value)))
    return (await local.store.write([request], timeout_s=WAIT_S)).replies[0]


async def get(local: LocalCluster, key: str, *, is_stale: bool = False, view: View | None = None) -> Any:
    answer = await local.store.read([Get(key)], timeout_s=WAIT_S, is_stale=is_stale, view=view or View())
    reply = answer.replies[0]
    assert reply.code in ("ok", "missing"), reply
    return None if reply.value is None else msgspec.json.decode(reply.value)


def rows(cluster: Cluster) -> list[dict[str, Any]]:
    status: Any = cluster.status()
    nodes: list[dict[str, Any]] = status["nodes"]
    return nodes


async def converged(local: LocalCluster) -> None:
    """Wait until all nodes have applied the same, and check that it had the same effect."""
    await put(local, "converged", True)
    await eventually(lambda: len({(row["applied"], row["state"]) for row in rows(local.cluster)}) == 1)
    assert len({row["digest"] for row in rows(local.cluster)}) == 1


class Load:
    """Clients that write and read a counter each, and one that all share, and note all that must not be."""

    def __init__(self, local: LocalCluster, clients: int) -> None:
        self.local = local
        self.clients = clients
        self.increments = 0
        self.operations = 0
        self.wrong: list[object] = []
        self.is_stopping = False

    async def run(self) -> None:
        await put(self.local, "shared", 0)
        async with trio.open_nursery() as nursery:
            for client in range(self.clients):
                nursery.start_soon(self._own, client)
            nursery.start_soon(self._shared)
            nursery.start_soon(self._shared)

    async def _own(self, client: int) -> None:
        count = 0
        while not self.is_stopping:
            count += 1
            reply = await put(self.local, f"own{client}", count)
            if reply.code != "ok":
                self.wrong.append(reply)
            seen = await get(self.local, f"own{client}")
            if seen != count:
                self.wrong.append(f"client {client} wrote {count} and read {seen}")
            self.operations += 2

    async def _shared(self) -> None:
        """Count up by compare-and-swap: a retry that took effect twice would answer `conflict` or skip a number."""
        while not self.is_stopping:
            value = await get(self.local, "shared")
            request = Cas(
                key="shared",
                value=msgspec.Raw(str(value + 1).encode()),
                expected=msgspec.Raw(str(value).encode()),
            )
            reply = (await self.local.store.write([request], timeout_s=WAIT_S)).replies[0]
            if reply.code == "ok":
                self.increments += 1
            elif reply.code != "conflict":
                self.wrong.append(reply)

    async def more(self, operations: int) -> None:
        target = self.operations + operations
        await eventually(lambda: self.operations >= target)


async def under_load(local: LocalCluster, story: Callable[[Load], Awaitable[None]]) -> None:
    load = Load(local, clients=14)
    await local.cluster.wait_leader()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run)
        await load.more(200)
        await story(load)
        await load.more(200)
        load.is_stopping = True
    assert load.wrong == []
    assert await get(local, "shared") == load.increments


def leader_now(local: LocalCluster) -> int | None:
    leader = local.cluster.registry.leader()
    return None if leader is None else leader.status.node


async def leader(local: LocalCluster) -> int:
    """Return who leads, as soon as somebody does: on a busy machine the lead may be lost at any time."""
    with trio.fail_after(WAIT_S):
        return await local.cluster.wait_leader()


async def test_crash_of_the_leader_under_load_costs_no_error_and_no_data(tmp_path: Path) -> None:
    """A leader that dies under load: no error, nothing applied twice, no stale read, and it comes back."""
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False) as local:

        async def story(load: Load) -> None:
            for _ in range(3):
                dead = await leader(local)
                local.cluster.faults.crash(dead)
                await load.more(400)
                status = local.cluster.registry.nodes[dead]
                await eventually(partial(has_state, status, State.UP))

        await under_load(local, story)
        await converged(local)


async def test_partition_with_the_old_leader_in_the_minority(tmp_path: Path) -> None:
    """A minority that holds the old leader answers no read and commits nothing; after heal all digests agree."""
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False) as local:

        async def story(load: Load) -> None:
            old = await leader(local)
            other = old % 5 + 1
            majority = [node for node in range(1, 6) if node not in (old, other)]
            local.cluster.faults.partition([[old, other], majority])
            commits = {node: row["commit"] for node, row in enumerate(rows(local.cluster), 1)}
            mailbox = Mailbox(local)
            for node in (old, other):
                assert mailbox.ask(node, "shared")
            await eventually(lambda: leader_now(local) in majority)
            await load.more(400)
            after = {node: row["commit"] for node, row in enumerate(rows(local.cluster), 1)}
            # What a majority acknowledged before the cut may still be noted as committed; nothing newer is.
            assert all(after[node] < after[majority[0]] for node in (old, other)), (commits, after)
            assert not [answer for answer in mailbox.answers if isinstance(answer, Done)]
            local.cluster.faults.heal()

        await under_load(local, story)
        await converged(local)


class Mailbox:
    """Asks a node directly, without the gateway's help."""

    def __init__(self, local: LocalCluster) -> None:
        self.answers: list[object] = []
        self._registry = local.cluster.registry
        self._reply_to = self._registry.join(self.answers.append)

    def ask(self, node: int, key: str) -> bool:
        handle = self._registry.handle(node)
        return handle is not None and handle.submit(Read(self._reply_to, 1, [Get(key)]))


async def test_R4_a_paused_leader_serves_nothing_stale(tmp_path: Path) -> None:
    """R4: a leader stopped for longer than an election answers the reads it then finds only with what is true now."""
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False) as local:
        await local.cluster.wait_leader()
        await put(local, "key", "old")
        old = await leader(local)
        local.cluster.faults.pause(old)
        mailbox = Mailbox(local)
        assert mailbox.ask(old, "key")
        await eventually(lambda: leader_now(local) not in (None, old))
        await put(local, "key", "new")
        local.cluster.faults.resume(old)
        await eventually(lambda: bool(mailbox.answers))
        answer = mailbox.answers[0]
        if isinstance(answer, Done):
            assert msgspec.json.decode(answer.replies[0].value or b"null") == "new"
        await converged(local)


async def test_failed_disk_stops_its_node_alone(tmp_path: Path) -> None:
    """D11: one failed write ends the node at once, says so, and a restart brings it back; the others go on."""
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False) as local:

        async def story(load: Load) -> None:
            broken = await leader(local)
            local.cluster.faults.fail_disk(broken)
            status = local.cluster.registry.nodes[broken]
            await eventually(lambda: status.state is State.STOPPED)
            assert "disk failed" in status.reason
            await load.more(400)
            local.cluster.restart(broken)
            await eventually(lambda: status.state is State.UP)

        await under_load(local, story)
        await converged(local)


async def test_slow_links_and_losses_cost_no_error(tmp_path: Path) -> None:
    """Delayed, lost, doubled and reordered messages slow clients down and do nothing else."""
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False, random=Random(7)) as local:

        async def story(load: Load) -> None:
            local.cluster.faults.drop(0.05)
            local.cluster.faults.duplicate(0.1)
            local.cluster.faults.reorder(0.002)
            await load.more(300)
            local.cluster.faults.heal()

        await under_load(local, story)
        await converged(local)


async def test_transfer_moves_the_lead(tmp_path: Path) -> None:
    """Leadership moves to the node that was named, under load and without an error (E9)."""
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False) as local:

        async def story(load: Load) -> None:
            target = await leader(local) % 5 + 1
            local.cluster.transfer(target)
            await eventually(lambda: leader_now(local) == target)
            await load.more(100)

        await under_load(local, story)


async def test_stop_and_restart_by_hand(tmp_path: Path) -> None:
    """A stopped node stays down until it is restarted; three of five go on without two; one that runs comes back."""
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False) as local:
        first = await local.cluster.wait_leader()
        second = first % 5 + 1
        local.cluster.stop(first)
        local.cluster.stop(second)
        nodes = local.cluster.registry.nodes
        await eventually(lambda: nodes[first].state is nodes[second].state is State.STOPPED)
        assert (await put(local, "key", 1)).code == "ok"
        with pytest.raises(FaultError, match="does not run"):
            local.cluster.faults.pause(first)
        local.cluster.restart(first)
        local.cluster.restart(second)
        await eventually(lambda: nodes[first].state is nodes[second].state is State.UP)
        life = local.cluster.registry.handle(first)
        local.cluster.restart(first)
        await eventually(lambda: local.cluster.registry.handle(first) not in (None, life))
        await eventually(lambda: nodes[first].state is State.UP)
        await converged(local)


async def test_without_a_majority_writes_are_unknown_and_reads_unavailable(tmp_path: Path) -> None:
    """Three of five down: a handed-over write ends in `timeout`, one never handed over and a read in `unavailable`."""
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False) as local:
        await local.cluster.wait_leader()
        await put(local, "key", 1)
        lead = await leader(local)
        for node in [node for node in range(1, 6) if node != lead][:3]:
            local.cluster.stop(node)
        request = Set(key="key", value=msgspec.Raw(b"2"))
        answer = await local.store.write([request], timeout_s=0.3)
        assert answer.replies[0].code == "timeout"
        await eventually(lambda: local.cluster.registry.leader() is None)
        answer = await local.store.write([request], timeout_s=0.1)
        assert answer.replies[0].code == "unavailable"
        answer = await local.store.read([Get("key")], timeout_s=0.1, is_stale=False, view=View())
        assert answer.replies[0].code == "unavailable"
        assert await get(local, "key", is_stale=True) == 1


async def test_a_cluster_of_one_and_of_two(tmp_path: Path) -> None:
    """One node is its own majority, two need both (R8); both serve reads and writes."""
    for nodes in (1, 2):
        async with open_cluster(tmp_path / str(nodes), nodes=nodes, is_synced=False) as local:
            await local.cluster.wait_leader()
            assert (await put(local, "key", nodes)).code == "ok"
            assert await get(local, "key") == nodes


async def test_D2_all_is_there_after_a_restart(tmp_path: Path) -> None:
    """A cluster opened again has every value, and no node's term went back (D2)."""
    async with open_cluster(tmp_path) as local:
        await local.cluster.wait_leader()
        for number in range(50):
            await put(local, f"key{number}", number)
        await converged(local)
        terms = [row["term"] for row in rows(local.cluster)]
    async with open_cluster(tmp_path) as local:
        await local.cluster.wait_leader()
        assert [await get(local, f"key{number}") for number in range(50)] == list(range(50))
        await converged(local)
        assert all(row["term"] >= term for row, term in zip(rows(local.cluster), terms, strict=True))


async def test_damaged_and_missing_directories_stay_down_alone(tmp_path: Path) -> None:
    """D8, D10: a node with a flipped bit is damaged, one with no directory needs a rebuild; three go on."""
    async with open_cluster(tmp_path) as local:
        await local.cluster.wait_leader()
        for number in range(20):
            await put(local, f"key{number}", number)
        await converged(local)
    shutil.rmtree(tmp_path / "node-2")
    segment = min((tmp_path / "node-4").glob("wal-*.log"))
    data = bytearray(segment.read_bytes())
    data[data.index(b"key7") + 1] ^= 4
    segment.write_bytes(data)
    async with open_cluster(tmp_path) as local:
        nodes = local.cluster.registry.nodes
        await eventually(lambda: nodes[2].state is State.NEEDS_REBUILD and nodes[4].state is State.DAMAGED)
        await local.cluster.wait_leader()
        assert str(segment) in nodes[4].reason
        assert [await get(local, f"key{number}") for number in range(20)] == list(range(20))
        assert (await put(local, "key", 1)).code == "ok"


async def test_a_bug_in_one_node_ends_that_node_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception in a node is an event with its traceback; the node comes back, nobody else notices."""
    sink = MemorySink()
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False, trace=Trace([sink])) as local:

        async def story(load: Load) -> None:
            victim = await leader(local) % 5 + 1
            member = local.cluster._members.all[victim]
            assert member.node is not None
            machine = member.node.replica.machine
            monkeypatch.setattr(Machine, "apply", apply_or_raise(machine))
            await eventually(lambda: bool(sink.events(NodeCrashed)))
            crash = sink.events(NodeCrashed)[0]
            assert "a bug" in crash.reason
            assert "RuntimeError: a bug" in crash.traceback
            await eventually(lambda: local.cluster.registry.nodes[victim].state is State.UP)
            await load.more(100)

        await under_load(local, story)
        await converged(local)


def apply_or_raise(victim: Machine) -> Callable[..., Any]:
    original = Machine.apply

    def apply(self: Machine, *arguments: Any) -> Any:
        if self is victim:
            raise RuntimeError("a bug")
        return original(self, *arguments)

    return apply


async def test_a_second_opening_is_refused(tmp_path: Path) -> None:
    """Two processes, or two openings, can't share a data directory."""
    async with open_cluster(tmp_path, is_synced=False):
        with pytest.raises(StorageError, match=r"in use|lock|another"):
            async with open_cluster(tmp_path, is_synced=False):
                pytest.fail("opened twice")


async def test_stale_reads_never_go_back_on_one_connection(tmp_path: Path) -> None:
    """A stale read may lag, but what one view has seen it sees again, also when its node dies."""
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False) as local:
        await local.cluster.wait_leader()
        view = View()
        seen = 0
        for number in range(1, 200):
            await put(local, "key", number)
            value = await get(local, "key", is_stale=True, view=view) or 0
            assert value >= seen
            seen = value
            if number == 100:
                local.cluster.faults.crash(view.node)
        assert seen > 100


async def test_wrong_faults_are_refused_with_a_word(tmp_path: Path) -> None:
    """A fault that makes no sense says what would be right, and changes nothing."""
    async with open_cluster(tmp_path, nodes=3, is_synced=False) as local:
        await local.cluster.wait_leader()
        for wrong, word in (
            (partial(local.cluster.faults.crash, 9), "the nodes are 1, 2, 3"),
            (partial(local.cluster.faults.partition, [[1, 2], [2, 3]]), "one group"),
            (partial(local.cluster.faults.cut, 1, 1), "two nodes"),
            (partial(local.cluster.transfer, await leader(local)), "leads already"),
            (partial(local.cluster.faults.resume, 1), "not paused"),
        ):
            with pytest.raises(FaultError, match=word):
                wrong()


async def test_a_node_that_is_being_rebuilt_is_not_started_before_its_directory_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a directory is replaced, neither `restart` nor a second `rebuild` may touch the node: both are refused."""
    async with (
        open_cluster(tmp_path, config=CONFIG, is_synced=False) as local,
        trio.open_nursery() as nursery,
    ):
        nodes = local.cluster.registry.nodes
        await eventually(lambda: all(has_state(each, State.UP) for each in nodes.values()))
        local.cluster.stop(1)
        await eventually(lambda: has_state(nodes[1], State.STOPPED))
        rebuild, has_begun, may_go_on = RealDisks.rebuild, trio.Event(), trio.Event()

        async def rebuild_slowly(self: RealDisks, *arguments: Any) -> Path | None:
            has_begun.set()
            await may_go_on.wait()
            return await rebuild(self, *arguments)

        monkeypatch.setattr(RealDisks, "rebuild", rebuild_slowly)
        nursery.start_soon(local.cluster.rebuild, 1)
        await has_begun.wait()
        with pytest.raises(FaultError, match="starts by itself"):
            local.cluster.restart(1)
        with pytest.raises(FaultError, match="already"):
            await local.cluster.rebuild(1)
        may_go_on.set()
        await eventually(lambda: has_state(nodes[1], State.UP))


async def test_of_two_rebuilds_at_a_time_the_second_sees_what_the_first_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of three nodes never lose their data to rebuilds at the same time: each counts the other as sound."""
    replace, may_go_on = DataDirectory.replace_node, threading.Event()
    refused: list[int] = []

    def replace_slowly(self: DataDirectory, *arguments: Any) -> Path | None:
        assert may_go_on.wait(WAIT_S)
        return replace(self, *arguments)

    async def rebuild(disks: RealDisks, node: int) -> None:
        try:
            await disks.rebuild(node, Random(node), ())
        except StorageError:
            refused.append(node)

    monkeypatch.setattr(DataDirectory, "replace_node", replace_slowly)
    with open_data_directory(tmp_path / "data", random=Random(1), nodes=3, is_synced=False) as directory:
        disks = RealDisks(directory, Trace([]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(disks.rebuild, 1, Random(1), ())
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(rebuild, disks, 2)
            await trio.testing.wait_all_tasks_blocked()
            in_threads = trio.to_thread.current_default_thread_limiter().borrowed_tokens
            may_go_on.set()
        found = [await disks.examine(node) for node in disks.nodes]
    assert in_threads == 1
    assert refused == [2]
    assert [(each.directory.state, each.is_rebuilding) for each in found] == [
        ("ok", True),
        ("ok", False),
        ("ok", False),
    ]


async def test_a_rebuild_that_is_refused_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that would have come back after a crash does so, though somebody tried to rebuild it meanwhile."""

    async def refuse(self: RealDisks, *arguments: Any) -> Path | None:
        await trio.lowlevel.checkpoint()
        raise StorageError("too few of the others have all of their data", "wait for them")

    monkeypatch.setattr(RealDisks, "rebuild", refuse)
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False) as local:
        nodes = local.cluster.registry.nodes
        await eventually(lambda: all(has_state(each, State.UP) for each in nodes.values()))
        local.cluster.faults.crash(1)
        await eventually(lambda: has_state(nodes[1], State.CRASHED))
        with pytest.raises(FaultError, match="too few"):
            await local.cluster.rebuild(1)
        await eventually(lambda: has_state(nodes[1], State.UP))


async def test_a_node_that_is_told_to_stop_while_its_disk_is_read_stays_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node between a crash and its next life obeys, too, and comes up when it is asked to."""
    async with open_cluster(tmp_path, config=CONFIG, is_synced=False) as local:
        status = local.cluster.registry.nodes[1]
        await eventually(
            lambda: all(has_state(each, State.UP) for each in local.cluster.registry.nodes.values())
        )
        load, has_begun, may_end = RealDisks.load, trio.Event(), trio.Event()

        async def load_slowly(self: RealDisks, *arguments: Any) -> Loaded:
            has_begun.set()
            await may_end.wait()
            return await load(self, *arguments)

        monkeypatch.setattr(RealDisks, "load", load_slowly)
        local.cluster.faults.crash(1)
        await has_begun.wait()
        states = []
        set_state = Supervisor.set_state

        def note_state(self: Supervisor, member: Member, state: State, *arguments: Any, **more: Any) -> None:
            states.append(state)
            set_state(self, member, state, *arguments, **more)

        with monkeypatch.context() as patch:
            patch.setattr(Supervisor, "set_state", note_state)
            local.cluster.stop(1)
            may_end.set()
            await eventually(lambda: has_state(status, State.STOPPED))
        assert states == [State.STOPPED]
        local.cluster.restart(1)
        await eventually(lambda: has_state(status, State.UP))


async def test_D12_a_start_that_needs_room_waits_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk that can't even be opened without room is no failed one: the others serve, and the node comes up."""
    real, is_full = RealDisks.load, True

    async def load(self: RealDisks, node: int, *arguments: Any) -> Loaded:
        if node == 1 and is_full:
            await trio.lowlevel.checkpoint()
            raise OSError(errno.ENOSPC, "no space is left")
        return await real(self, node, *arguments)

    monkeypatch.setattr(RealDisks, "load", load)
    monkeypatch.setattr(loading, "FULL_RETRY_S", 0.01)
    async with open_cluster(tmp_path, nodes=3, config=CONFIG, is_synced=False) as local:
        status = local.cluster.registry.nodes[1]
        await eventually(lambda: "full" in status.reason)
        assert (await put(local, "key", 1)).code == "ok"
        assert not has_state(status, State.UP)
        is_full = False
        await eventually(lambda: has_state(status, State.UP) and not status.reason)
