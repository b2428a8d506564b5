"""Claims about `trio_kv.testing`: a cluster inside a test, whole and gone without a trace; under a clock that jumps."""

import contextlib
import errno
import json
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from trio.testing import MockClock

import trio_kv
from trio_kv.cluster.members import FaultError
from trio_kv.storage.errors import NodesDifferError
from trio_kv.testing import Cluster, Server, background, open_cluster, open_server
from trio_kv.wire.node_status import State

TAKEN = os.strerror(errno.EADDRINUSE)


def descriptors() -> dict[str, str]:
    """Return what this process has open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names, which vanish meanwhile
        with contextlib.suppress(OSError):
            found[name] = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115 - sockets are no paths
    return {name: target for name, target in found.items() if not target.startswith("/proc/")}


def all_tasks() -> set[trio.lowlevel.Task]:
    """Return all tasks of this run."""
    root = trio.lowlevel.current_root_task()
    assert root is not None
    found, left = set(), [root]
    while left:
        task = left.pop()
        found.add(task)
        left += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return found


def threads() -> set[threading.Thread]:
    """Return all threads but those that Trio keeps for a while, whoever needed one."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("Trio thread ")}


def left_behind() -> tuple[object, ...]:
    return threads(), descriptors()


@pytest.fixture(params=["in memory", "on disk"])
def open_either(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., object]:
    """Open a cluster in memory, or on disk."""
    return open_cluster if request.param == "in memory" else partial(open_cluster, path=tmp_path / "data")


async def other_leads(cluster: Cluster, old: int) -> None:
    """Wait until somebody else leads."""
    with trio.fail_after(30):
        while await cluster.wait_leader() == old:  # noqa: ASYNC110 - what a test would see is looked at
            await trio.sleep(0.01)


async def applied(cluster: Cluster) -> set[tuple[int, str]]:
    """Return what nodes have carried out: up to where, and what came of it."""
    nodes = json.loads((await cluster.client.status()).line)["nodes"]
    return {(node["applied"], node["digest"]) for node in nodes}


async def may_write(cluster: Cluster) -> bool:
    """Write something; return whether that was taken."""
    try:
        await cluster.client.set("k", "may be written" * 700)
    except trio_kv.ReadOnlyError:
        return False
    return True


async def fill(cluster: Cluster) -> None:
    """Write until something stands against it."""
    for number in range(1000):
        await cluster.client.set(f"k{number}", "x" * 10_000)


@contextlib.asynccontextmanager
async def counting() -> AsyncIterator[None]:
    """Nothing that was not there before is there at the end."""
    before = all_tasks(), left_behind()
    yield
    assert (all_tasks(), left_behind()) == before


async def test_it_serves_and_leaves_nothing_behind() -> None:
    """In memory: no thread meanwhile, and no task, thread, file or port after."""
    async with counting():
        before = threading.enumerate()
        async with open_cluster(port=0) as cluster:
            assert (await cluster.client.set("snack", "chips")).code == "ok"
            assert (await cluster.client.get("snack")).data == "chips"
            assert cluster.nodes == (1, 2, 3)
            assert cluster.leader == await cluster.wait_leader()
            assert threading.enumerate() == before
            assert cluster.port is not None
            async with trio_kv.open_client(port=cluster.port) as other:
                assert (await other.get("snack")).data == "chips"
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream("127.0.0.1", cluster.port)
        with pytest.raises(ConnectionRefusedError):
            await cluster.open_stream()
        with pytest.raises(trio.ClosedResourceError):
            await cluster.client.get("snack")


async def test_who_knocks_at_the_end_hears_of_it(autojump_clock: MockClock) -> None:
    """A connection ends with the cluster, or is refused, also if nobody had let it in."""
    ends: list[bytes] = []

    async def read(stream: trio.abc.Stream) -> None:
        ends.append(bytes(await stream.receive_some()))

    async def knock(cluster: Cluster) -> None:
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                nursery.start_soon(read, await cluster.open_stream())

    # Who knocks outlives the cluster.
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, open_cluster(1) as cluster:
            nursery.start_soon(knock, cluster)  # noqa: ASYNC111 - see above
            for _ in range(20):
                await trio.lowlevel.checkpoint()
    assert len(ends) > 10


async def test_on_disk_it_is_there_again(tmp_path: Path) -> None:
    """With a path it is a data directory as any other, and its threads end with it."""
    async with counting():
        for number in range(2):
            async with open_cluster(path=tmp_path / "data") as cluster:
                assert (await cluster.client.incr("starts")).data == number + 1
        with pytest.raises(NodesDifferError):
            async with open_cluster(5, path=tmp_path / "data"):
                pytest.fail("another number of nodes")


async def test_what_the_body_raises_comes_out_as_it_is() -> None:
    """A failed assert in a test is one, and no group."""
    with pytest.raises(AssertionError, match="mine"):
        async with counting(), open_cluster(1):
            raise AssertionError("mine")


async def test_what_can_not_be_opened_says_why() -> None:
    """A port that is taken, and a number of nodes that no cluster has."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match=TAKEN):
        async with open_cluster(port=taken.getsockname()[1]):
            pytest.fail("it was taken")
    with pytest.raises(ValueError, match="10"):
        async with open_cluster(10):
            pytest.fail("too many")


async def test_a_minute_is_over_at_once(autojump_clock: MockClock) -> None:
    """Time is the test's: a key of a minute ends in it, and an idle client keeps its connection."""
    async with open_cluster() as cluster:
        await cluster.client.set("short", 1, ttl_s=60)
        await trio.sleep(59)
        assert (await cluster.client.get("short")).data == 1
        await trio.sleep(3)
        assert (await cluster.client.get("short")).code == "missing"
        assert cluster.client.statistics().connections == 1


async def test_nodes_crash_stop_pause_and_come_back(open_either: Callable[..., object]) -> None:
    """Whatever happens to a minority, nobody but the nodes notices; in the end all hold the same."""
    async with open_either() as cluster:  # type: ignore[attr-defined]
        kv = cluster.client
        cluster.crash(first := await cluster.wait_leader())
        await kv.set("a", 1)
        await cluster.wait_up()
        assert cluster.state(first) is State.UP
        cluster.stop(other := await cluster.wait_leader())
        await kv.set("a", 2)
        assert cluster.state(other) is State.STOPPED
        with pytest.raises(FaultError, match="does not run"):
            cluster.crash(other)
        await cluster.wait_converged()
        cluster.restart(other)
        await cluster.wait_up()
        cluster.faults.pause(paused := await cluster.wait_leader() % 3 + 1)
        assert cluster.state(paused) is State.PAUSED
        await kv.set("a", 3)
        cluster.faults.resume(paused)
        cluster.transfer(await cluster.wait_leader() % 3 + 1)
        await cluster.wait_converged()
        assert (await kv.get("a")).data == 3


async def test_all_nodes_die_and_nothing_is_lost(autojump_clock: MockClock) -> None:
    """What was acknowledged is on the disks in memory, as long as the cluster lives."""
    async with open_cluster() as cluster:
        for number in range(50):
            await cluster.client.set(f"k{number}", number)
        for node in cluster.nodes:
            cluster.stop(node)
        with pytest.raises(trio_kv.UnavailableError):
            await cluster.client.get("k1")
        for node in cluster.nodes:
            cluster.restart(node)
        assert await cluster.client.count("k") == 50


async def test_a_minority_is_cut_off(autojump_clock: MockClock) -> None:
    """Writes go on at the majority; a cluster in pieces serves nobody; healed, all is as it was."""
    async with open_cluster() as cluster:
        old = await cluster.wait_leader()
        cluster.faults.partition([[old], [node for node in cluster.nodes if node != old]])
        await cluster.client.set("k", 1)
        assert await cluster.wait_leader() != old
        cluster.faults.partition([[1], [2], [3]])
        await trio.sleep(2)
        with pytest.raises(trio_kv.StoreError):
            await cluster.client.set("k", 2)
        cluster.faults.heal()
        await cluster.wait_converged()
        assert (await cluster.client.set("k", 3)).code == "ok"


async def test_who_waits_for_nodes_to_agree_finds_them_equal(autojump_clock: MockClock) -> None:
    """Each has carried out all that there is; one that is down for good, or paused, is not waited for."""
    async with open_cluster() as cluster:
        late, paused = [node for node in cluster.nodes if node != await cluster.wait_leader()]
        cluster.faults.slow_disk(late, 0.2)
        for number in range(10):
            await cluster.client.set("k", number)
        assert len(await applied(cluster)) > 1
        await cluster.wait_converged()
        assert len(await applied(cluster)) == 1
        cluster.faults.pause(paused)
        await cluster.client.set("k", "paused")
        await cluster.wait_converged()
        assert len(await applied(cluster)) == 2
        cluster.stop(late)
        cluster.faults.resume(paused)
        await cluster.client.set("k", "late")
        await cluster.wait_converged()
        assert len(await applied(cluster)) == 2


async def test_slow_and_stalled_disks_take_time(autojump_clock: MockClock) -> None:
    """A write waits for a majority of disks; a leader whose disk stands still loses the lead."""
    async with open_cluster() as cluster:
        leader = await cluster.wait_leader()
        await cluster.client.set("k", 0)
        began = trio.current_time()
        for node in cluster.nodes:
            cluster.faults.slow_disk(node, 0.5)
        await cluster.client.set("k", 1)
        assert 0.49 <= trio.current_time() - began <= 1.5
        cluster.faults.heal()
        cluster.faults.stall_disk(leader)
        await cluster.client.set("k", 2)
        await other_leads(cluster, leader)
        cluster.faults.heal()
        await cluster.wait_converged()


async def test_full_disks_are_read_only_until_there_is_room(autojump_clock: MockClock) -> None:
    """Reads go on meanwhile; also a node that starts again has room."""
    async with open_cluster() as cluster:
        await cluster.client.set("k", "before")
        for node in cluster.nodes:
            cluster.faults.fill_disk(node)
        with pytest.raises(trio_kv.ReadOnlyError):
            await fill(cluster)
        assert (await cluster.client.get("k")).data == "before"
        assert {cluster.state(node) for node in cluster.nodes} == {State.UP}
        for node in cluster.nodes:
            cluster.restart(node)
        # More than what is left of a segment that was made before.
        assert all([await may_write(cluster) for _ in range(60)])
        for node in cluster.nodes:
            cluster.faults.fill_disk(node)
        cluster.faults.heal()
        await cluster.wait_converged()
        await trio.sleep(2)
        assert await may_write(cluster)


async def test_a_disk_that_fails_stops_its_node(autojump_clock: MockClock) -> None:
    """It stays down until somebody starts it; lost data is filled in by the others."""
    async with open_cluster() as cluster:
        broken = await cluster.wait_leader()
        cluster.faults.fail_disk(broken)
        await cluster.client.set("k", 1)
        await trio.sleep(5)
        assert cluster.state(broken) is State.STOPPED
        await cluster.rebuild(broken)
        await cluster.wait_up()
        await cluster.wait_converged()
        cluster.stop(cluster.nodes[broken % 3])
        assert (await cluster.client.get("k")).data == 1


async def test_logs_are_cut_and_a_late_node_is_filled(autojump_clock: MockClock) -> None:
    """Snapshots are taken by themselves, and sent to whoever is behind them."""
    async with open_cluster() as cluster:
        late = await cluster.wait_leader() % 3 + 1
        cluster.stop(late)
        for number in range(500):
            await cluster.client.set(f"k{number % 20}", "x" * 20_000)
        cluster.restart(late)
        await cluster.wait_up()
        await cluster.wait_converged()
        cluster.stop(late % 3 + 1)
        assert await cluster.client.count() == 20


async def test_clients_have_options_of_their_own(autojump_clock: MockClock) -> None:
    """Those of `open_client`; who takes a way to connect may have that, too."""
    async with open_cluster(1) as cluster, cluster.open_client(timeout_s=0.5, repeats_writes=False) as other:
        cluster.stop(1)
        began = trio.current_time()
        with pytest.raises(trio_kv.StoreError):
            await other.set("k", 1)
        assert trio.current_time() - began < 3
        async with trio_kv.open_client("kv.example", 1, open_stream=cluster.open_stream) as third:
            assert (await third.ping()).code == "ok"


# --- in a thread --------------------------------------------------------------------------------------------


def test_a_server_for_who_waits() -> None:
    """It has a port and a client; what the cluster can do is called in its thread. Then nothing is left of it."""
    before = left_behind()
    with open_server() as server:
        server.client.set("snack", "chips")
        with trio_kv.Client(server.host, server.port) as other:
            assert other.get("snack").data == "chips"
        leader = server.call(server.cluster.wait_leader)
        server.call(server.cluster.crash, leader)
        server.client.set("snack", "nuts")
        server.call(server.cluster.wait_converged)
        with pytest.raises(FaultError, match="no node 7"):
            server.call(server.cluster.crash, 7)
    assert left_behind() == before
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port))
    with pytest.raises(trio.RunFinishedError):
        server.call(server.cluster.wait_leader)


def test_a_server_that_can_not_be_opened_says_why() -> None:
    """In the thread that asked for it; and what the body raises comes out."""
    before = left_behind()
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(OSError, match=TAKEN),
        open_server(port=taken.getsockname()[1]),
    ):
        pytest.fail("it was taken")
    with pytest.raises(ZeroDivisionError), open_server(1):
        raise ZeroDivisionError
    assert left_behind() == before


def test_who_gives_up_while_it_opens_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a time-out of a test does, which interrupts it wherever it is."""

    class LateError(Exception):
        pass

    def interrupt(*_: object) -> None:
        raise LateError

    @contextlib.asynccontextmanager
    async def never_open(*_: object, **_options: object) -> AsyncIterator[None]:
        signal.pthread_kill(main, signal.SIGUSR1)
        await trio.Event().wait()
        yield

    main = threading.get_ident()
    monkeypatch.setattr(background, "open_cluster", never_open)
    before, handler = left_behind(), signal.signal(signal.SIGUSR1, interrupt)
    try:
        with pytest.raises(LateError), open_server():
            pytest.fail("it never opens")
    finally:
        signal.signal(signal.SIGUSR1, handler)
    assert left_behind() == before


def test_names_are_no_tests() -> None:
    """What is imported into a test module is not collected there."""
    assert not any(each.__name__.startswith("Test") for each in (Cluster, Server))
