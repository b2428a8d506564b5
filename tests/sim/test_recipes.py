"""The recipes in the whole world: what each promises, over crashes, pauses, partitions and doors that are restarted."""

from typing import Any

import attrs
import msgspec
import pytest
import trio

from tests.samples import first_of
from tests.world_client import TrioWorldClient, Use, run_with
from trio_kv import Event, OutcomeUnknownError, Revision, StoreError, TrioClient, recipes
from trio_kv.check.violation import Violation
from trio_kv.client.answers import Item, Page
from trio_kv.recipes import cache as cache_module
from trio_kv.sim.plan import Plan
from trio_kv.sim.whole.plan import draw_whole_plan

TTL_S = 0.3
PATIENCE_S = 3.0
TASKS = 2
"""Of a client, which share its connection."""


def plan_of(seed: int | None) -> Plan:
    """Return the plan of a seed; without one nothing goes wrong."""
    if seed is not None:
        return draw_whole_plan(seed)
    return attrs.evolve(draw_whole_plan(1, ()), fault_phase_s=6.0, nodes=3)


def patiently(use: Use) -> Use:
    """Let a client give up what takes long, or goes wrong for a reason that is the store's; and then go on."""

    async def try_it(kv: TrioClient, client: TrioWorldClient) -> None:
        while not client.is_stopping:
            try:
                with trio.move_on_after(PATIENCE_S):
                    await use(kv, client)
            except (StoreError, recipes.LockLostError):
                pass
            await trio.sleep(client.random.expovariate(20))

    async def try_them(kv: TrioClient, client: TrioWorldClient) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(TASKS):
                nursery.start_soon(try_it, kv, client)

    return try_them


def make_ids(client: TrioWorldClient) -> Any:
    return lambda: f"{client.number}-{client.random.getrandbits(64):x}"


# --- the lock -----------------------------------------------------------------------------------------------


class Writers:
    """Holders of one lock who write, as long as the store lets them, and the judge of what they wrote.

    Half of them stand still while they hold it, as a process does that is stopped: they renew nothing, and go on as if
    nothing had been.
    """

    def __init__(self) -> None:
        self.written: list[tuple[int, int]] = []
        """Revision and token of each write."""
        self.overlaps = 0
        """How often somebody got the lock while another one believed to hold it."""
        self.outlived = 0
        """How often a holder that had lost it was kept from writing."""
        self._believers = 0

    async def use(self, kv: TrioClient, client: TrioWorldClient) -> None:
        """Hold the lock once, and write."""
        lock = recipes.Lock(kv, "lock", ttl_s=TTL_S, make_id=make_ids(client))
        if client.random.random() < 0.5:
            async with lock.hold() as held:
                await self._write(held, client)
            return
        held_late = await lock.acquire_nowait()
        if held_late is not None:
            await self._write(held_late, client)
            await held_late.release()

    async def _write(self, held: recipes.Held, client: TrioWorldClient) -> None:
        self.overlaps += self._believers > 0
        self._believers += 1
        try:
            for _ in range(client.random.randint(1, 4)):
                await trio.sleep(client.random.choice((0.0, 0.01, 0.03, 2 * TTL_S)))
                reply = await held.txn([{"op": "set", "key": "written", "value": held.token}])
                self.written.append((reply.revision, held.token))
        except recipes.LockLostError:
            self.outlived += 1
        finally:
            self._believers -= 1

    def judge(self) -> None:
        """See that nobody wrote behind a later holder."""
        tokens = [token for _, token in sorted(self.written)]
        if tokens != sorted(tokens):
            raise Violation(f"a former holder wrote behind a later one: {tokens}")


def run_lock(seed: int | None, monkeypatch: pytest.MonkeyPatch) -> Writers:
    writers = Writers()
    run_with(plan_of(seed), [patiently(writers.use)] * 3, monkeypatch)
    return writers


def test_a_lock_never_lets_two_write(is_thorough: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has lost it is kept from writing, though it believes to hold it still."""
    overlaps = outlived = 0
    for seed in (None, 504, *(range(1010, 1020) if is_thorough else ())):
        writers = run_lock(seed, monkeypatch)
        writers.judge()
        overlaps, outlived = overlaps + writers.overlaps, outlived + writers.outlived
    assert overlaps > 3
    assert outlived > 3


def test_without_the_check_two_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock alone keeps nobody from writing who does not know that it is over: that takes the store's look at it."""
    always = {"key": "no such key", "exists": False}
    monkeypatch.setattr(recipes.Held, "condition", always)
    with pytest.raises(Violation, match="a former holder wrote"):
        run_lock(None, monkeypatch).judge()


# --- elections ----------------------------------------------------------------------------------------------


class Candidates:
    """Who stands for election, and followers who ask who leads."""

    def __init__(self) -> None:
        self.reigns: list[tuple[int, str]] = []
        """Token and name of each leader."""
        self.followed: list[str] = []

    async def stand(self, kv: TrioClient, client: TrioWorldClient) -> None:
        """Lead for a while."""
        election = recipes.Election(kv, "leader", f"c{client.number}", ttl_s=TTL_S, make_id=make_ids(client))
        async with election.lead() as held:
            self.reigns.append((held.token, f"c{client.number}"))
            await trio.sleep(client.random.choice((0.0, 0.05, 2 * TTL_S)))

    async def follow(self, kv: TrioClient, client: TrioWorldClient) -> None:
        """Wait for one leader after the other."""
        election = recipes.Election(kv, "leader", "nobody", ttl_s=TTL_S)
        last = self.followed[-1] if self.followed else None
        self.followed.append(await election.wait_leader(other_than=last))
        assert await election.leader() in {None, "c1", "c2"}


@pytest.mark.parametrize("seed", first_of([512, None, *range(540, 550)], 1))
def test_one_leads_at_a_time_and_others_hear_of_it(seed: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reign has a token above all before; a follower hears of one leader after the other."""
    candidates = Candidates()
    uses = [patiently(candidates.stand), patiently(candidates.stand), patiently(candidates.follow)]
    run_with(plan_of(seed), uses, monkeypatch)
    tokens = [token for token, _ in candidates.reigns]
    assert len(tokens) > 1
    assert len({*tokens}) == len(tokens)
    assert {name for _, name in candidates.reigns} <= {"c1", "c2"}
    assert candidates.followed


# --- the queue ----------------------------------------------------------------------------------------------


class Workers:
    """Who puts things into a queue, and who takes them out."""

    def __init__(self) -> None:
        self.put: list[str] = []
        """What is in it for sure, in order."""
        self.maybe_put: set[str] = set()
        self.begun: list[str] = []
        self.finished: list[str] = []
        self.maybe_finished: set[str] = set()
        self.left: set[str] = set()
        self.counts: dict[str, int | None] = {}
        self._numbers = 0

    async def produce(self, kv: TrioClient, client: TrioWorldClient) -> None:
        """Put in one thing."""
        self._numbers += 1
        text = f"t{self._numbers}"
        self.maybe_put.add(text)
        await recipes.Queue(kv, "work").put(text)
        self.put.append(text)

    async def work(self, kv: TrioClient, client: TrioWorldClient) -> None:
        """Take one thing and work on it; some give up in the midst of it."""
        queue = recipes.Queue(kv, "work", ttl_s=TTL_S, make_id=make_ids(client))
        if client.random.random() < 0.3:
            # It stands still, and renews nothing.
            _, late = await queue._take()
            await self._work_on(late, client)
            return
        async with queue.take() as taken:
            await self._work_on(taken, client)

    async def _work_on(self, taken: recipes.Taken, client: TrioWorldClient) -> None:
        self.begun.append(taken.data)
        await trio.sleep(client.random.choice((0.0, 0.01, 2 * TTL_S)))
        if client.random.random() < 0.2:
            raise recipes.LockLostError("it gives up")
        try:
            await taken.finish([{"op": "incr", "key": f"done/{taken.data}"}])
        except (OutcomeUnknownError, trio.Cancelled):
            self.maybe_finished.add(taken.data)
            raise
        self.finished.append(taken.data)

    async def look(self, kv: TrioClient, client: TrioWorldClient) -> None:
        """See what is left, and how often each thing was finished."""
        del client
        self.left = {item.data for item in (await kv.scan("work/items/")).items}
        self.counts = {text: await kv.get(f"done/{text}", int) for text in self.finished}

    def judge(self) -> None:
        """See that nothing was lost, and nothing finished twice."""
        if strangers := {*self.begun} - self.maybe_put:
            raise Violation(f"nobody put in {strangers}")
        if lost := {*self.put} - {*self.finished} - self.maybe_finished - self.left:
            raise Violation(f"{lost} were lost")
        if len(self.finished) != len({*self.finished}) or {*self.counts.values()} != {1}:
            raise Violation(f"something was finished more than once: {self.counts}")


@pytest.mark.parametrize("seed", first_of([526, None, *range(550, 560)], 1))
def test_a_queue_loses_nothing_and_ends_each_thing_once(
    seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever takes a thing and is cut off, or gives up: it comes out again, and is finished by one alone."""
    workers = Workers()
    uses = [patiently(workers.produce), patiently(workers.work), patiently(workers.work)]
    run_with(plan_of(seed), uses, monkeypatch, at_end=workers.look)
    workers.judge()
    assert workers.finished


def test_what_is_put_in_first_comes_out_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one puts in one after the other comes out in that order; what was given up comes out again, in its place."""
    rounds: list[list[int]] = []

    async def use(kv: TrioClient, client: TrioWorldClient) -> None:
        queue, taken = recipes.Queue(kv, "line", ttl_s=TTL_S, make_id=make_ids(client)), []
        for number in range(12):
            await queue.put(number)
        with pytest.raises(ZeroDivisionError):
            async with queue.take() as first:
                _ = first.data / 0
        while await queue.count():
            async with queue.take() as next_one:
                taken.append(next_one.data)
        rounds.append(taken)

    run_with(attrs.evolve(plan_of(None), fault_phase_s=1.0), [use], monkeypatch)
    assert rounds
    assert all(each == list(range(12)) for each in rounds)


# --- the cache ----------------------------------------------------------------------------------------------


class Pages:
    """A store whose pages are of different moments."""

    def __init__(self, *pages: Page) -> None:
        self.pages = list(pages)

    async def scan(self, prefix: str, **_options: object) -> Page:
        del prefix
        await trio.lowlevel.checkpoint()
        return self.pages.pop(0)


async def test_what_a_page_has_told_is_not_taken_back() -> None:
    """Where the watch begins behind the first page, it tells of changes that later pages have told already."""

    def item(key: str, revision: int) -> Item:
        return Item(key, revision, msgspec.Raw(b"%d" % revision))

    def told(revision: int, event: str, key: str) -> Revision:
        return Revision(revision, (Event(event, key, item(key, revision).value),))

    pages: Any = Pages(Page((item("a", 3), item("c", 4)), True, 5), Page((item("e", 9),), False, 9))
    cache = recipes.Cache(pages, "")
    await cache.fill()
    assert cache.revision == 5
    seen = []
    for change in (
        told(6, "set", "e"),
        told(7, "set", "b"),
        told(8, "set", "d"),  # it was gone before the second page was read
        told(9, "delete", "d"),
        told(10, "delete", "a"),
        told(11, "set", "d"),
    ):
        cache._take(change)
        seen.append(dict(cache))
    first = {"a": 3, "c": 4, "e": 9}
    assert seen[:4] == [first, {**first, "b": 7}, {**first, "b": 7}, {**first, "b": 7}]
    assert seen[5] == {"b": 7, "c": 4, "d": 11, "e": 9}
    assert cache.revision == 11


class Readers:
    """Writers of numbers that rise, and caches of them."""

    def __init__(self) -> None:
        self.reads = self.fillings = 0
        self._last = 0

    async def write(self, kv: TrioClient, client: TrioWorldClient) -> None:
        """Write a higher number under one of a few keys, or remove one."""
        key = f"numbers/{client.random.randrange(9)}"
        if client.random.random() < 0.2:
            await kv.delete(key)
        else:
            self._last += 1
            await kv.set(key, self._last)

    async def read(self, kv: TrioClient, client: TrioWorldClient) -> None:
        """Keep a cache for a while, and see that it goes with the store."""
        self.fillings += 1
        async with recipes.open_cache(kv, "numbers/") as cache:
            seen: dict[str, int] = {}
            for _ in range(30):
                await trio.sleep(client.random.expovariate(50))
                for key, number in cache.items():
                    if number < seen.get(key, 0):
                        raise Violation(f"{key} went from {seen[key]} back to {number}")
                    seen[key] = number
                    self.reads += 1
            reply = await kv.set("numbers/own", client.number, meta=True)
            await cache.wait_revision(reply.revision or 0)
            assert cache["numbers/own"] == client.number
            page = await kv.scan("numbers/")
            await cache.wait_revision(page.revision)
            for item in page.items:
                kept = cache.item(item.key)
                assert kept is None or kept.revision >= item.revision


@pytest.mark.parametrize("seed", first_of([532, None, *range(560, 570)], 1))
def test_a_cache_goes_with_the_store_and_never_back(
    seed: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is filled page by page while others write, and takes what changes over whatever happens."""
    monkeypatch.setattr(cache_module, "PAGE_ITEMS", 2)
    readers = Readers()
    run_with(plan_of(seed), [patiently(readers.write), patiently(readers.read)], monkeypatch)
    assert readers.reads
