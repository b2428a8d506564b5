"""Claims about the recipes that need no faults, in a cluster in memory. What faults do is in `tests/sim`."""

from collections.abc import Callable
from typing import Any, NoReturn, Self

import pytest
import trio
import trio.testing

from trio_kv import CompactedError, TrioClient, recipes
from trio_kv.recipes import queue as queue_module
from trio_kv.testing import open_cluster


@pytest.fixture
def autojump_clock() -> trio.testing.MockClock:
    return trio.testing.MockClock(autojump_threshold=0)


class Gone:
    """A watch whose history is gone."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        return None

    def __aiter__(self) -> "Gone":
        return self

    async def __anext__(self) -> NoReturn:
        await trio.lowlevel.checkpoint()
        raise CompactedError("compacted: it is gone")


@pytest.fixture
def first_watch_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first watch be one that was away for too long."""
    real: Callable[..., Any] = TrioClient.watch
    watches: list[object] = []

    def watch(self: TrioClient, *args: Any, **options: Any) -> Any:
        watches.append(args)
        return Gone() if len(watches) == 1 else real(self, *args, **options)

    monkeypatch.setattr(TrioClient, "watch", watch)


async def put(kv: TrioClient, prefix: str, numbers: range) -> None:
    """Set keys that end with these numbers."""
    for start in range(numbers.start, numbers.stop, 100):
        some = range(start, min(start + 100, numbers.stop))
        await kv.txn([{"op": "set", "key": f"{prefix}{each:018}", "value": each} for each in some])


@pytest.mark.usefixtures("first_watch_is_gone")
async def test_who_waits_for_a_lock_looks_again(autojump_clock: trio.testing.MockClock) -> None:
    """Also when it could not be told of all that came meanwhile."""
    async with open_cluster(1) as cluster, trio.open_nursery() as nursery:
        kv = cluster.client
        first = await recipes.Lock(kv, "lock").acquire_nowait()
        assert first is not None

        async def release() -> None:
            await trio.sleep(5)
            await first.release()

        nursery.start_soon(release)
        with trio.fail_after(8):
            async with recipes.Lock(kv, "lock").hold() as held:
                assert held.token > first.token


@pytest.mark.usefixtures("first_watch_is_gone")
async def test_who_waits_for_a_thing_looks_again(autojump_clock: trio.testing.MockClock) -> None:
    """As with a lock."""
    async with open_cluster(1) as cluster, trio.open_nursery() as nursery:
        queue = recipes.Queue(cluster.client, "work")

        async def put_late() -> None:
            await trio.sleep(5)
            await queue.put("late")

        nursery.start_soon(put_late)
        with trio.fail_after(8):
            async with queue.take() as taken:
                assert taken.data == "late"


async def test_a_thing_is_finished_once(autojump_clock: trio.testing.MockClock) -> None:
    """However often that is asked, as after an error that leaves it open; and with it what goes with the end."""
    async with open_cluster(1) as cluster:
        queue = recipes.Queue(cluster.client, "work")
        await queue.put("a")
        async with queue.take() as taken:
            for _ in range(2):
                await taken.finish([{"op": "incr", "key": "ends"}])
            taken.is_finished = False
        assert await cluster.client.get("ends", int) == 1
        with pytest.raises(recipes.LockLostError):
            await taken.finish()


async def test_all_that_is_free_is_taken(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds that others were faster looks for more behind what they have taken."""
    monkeypatch.setattr(queue_module, "LOOK_AT", 1)
    async with open_cluster(1) as cluster, trio.open_nursery() as nursery:
        queue = recipes.Queue(cluster.client, "work")
        await put(cluster.client, "work/items/", range(3))
        seen = []

        async def take() -> None:
            async with queue.take() as taken:
                seen.append(taken.data)
                await trio.sleep_forever()

        for _ in range(3):
            nursery.start_soon(take)
        await trio.sleep(5)
        assert sorted(seen) == [0, 1, 2]
        nursery.cancel_scope.cancel()


async def test_more_may_be_taken_than_a_page_holds(autojump_clock: trio.testing.MockClock) -> None:
    """All claims are looked at, to find the one thing that is free."""
    async with open_cluster(1) as cluster:
        await put(cluster.client, "work/items/", range(1102))
        await put(cluster.client, "work/taken/", range(1101))
        with trio.fail_after(5):
            async with recipes.Queue(cluster.client, "work").take() as taken:
                assert taken.data == 1101
