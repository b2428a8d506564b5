"""A run: load and faults, then recovery, then the verdict, and all that was found in one folder.

| file | what it holds |
|---|---|
| `history.jsonl` | every operation and every fault, as `docs/histories.md` says |
| `watched.jsonl` | what watches were told of each key, kept unless the run is valid |
| `timeline.html` | a picture of the key that is wrong, or of the most troubled one |
| `summary.json` | the verdict and the figures |
| `server.log`, `traces/` | what our own server said; every event of it, start by start; of hosts `host-1.log`, … |
| `data/` | its data directory, or one for each host, kept unless the run is valid |
| `cluster/` | the file of a cluster of hosts |
"""

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from random import Random
from typing import Any

import attrs
import msgspec
import trio

from trio_kv.check.history import Fault as HistoryFault
from trio_kv.check.history import RisingClock
from trio_kv.check.picture import VIOLATIONS_DRAWN_MAX
from trio_kv.sim.chaos.cards import possible_kinds, required_situations
from trio_kv.sim.chaos.config import COVERAGE_S, ChaosConfig
from trio_kv.sim.chaos.judge import Judge, Question, draw_picture, open_judge
from trio_kv.sim.chaos.nemesis import Nemesis
from trio_kv.sim.chaos.recorder import Group, Recorder
from trio_kv.sim.chaos.recovery import NotWholeError, audit, find_nodes, mend, wait_whole, write_last
from trio_kv.sim.chaos.summary import Findings, Summary, count_situations
from trio_kv.sim.chaos.target import StartError, Target
from trio_kv.sim.chaos.watchers import StreamFile, Watchers
from trio_kv.sim.chaos.workload import Workload

AUDIT_CLIENT = 1_000_000_000
"""The clients that read everything once more at the end have numbers from here on."""
TELL_S = 0.5
DRAWN_MAX = 1_000_000
"""Operations of a run that is drawn as a whole; it must be read into memory for that."""


@attrs.frozen
class Progress:
    """How far a run is."""

    phase: str
    """load, recovery or verdict"""
    done: float
    total: float
    """Seconds of load, or keys to check."""
    operations: int = 0
    faults: int = 0


OnProgress = Callable[[Progress], None]
OpenTarget = Callable[[Callable[[dict[str, Any]], None]], AbstractAsyncContextManager[Target]]


async def run_chaos(
    config: ChaosConfig, open_target: OpenTarget, *, on_progress: OnProgress, stop: trio.Event
) -> Summary:
    """Carry a run out and return what it found; the folder holds the rest.

    Args:
        config: what to do. Its folder may be there, empty.
        open_target: opens the server, given who wants to hear the events of its log.
        on_progress: is told how far it is.
        stop: ends load and faults early; it is set when they have ended.

    Raises:
        StartError: there is no server.

    """
    run = Run(config, on_progress, stop)
    config.out.mkdir(parents=True, exist_ok=True)
    async with open_target(run.take_event) as target:
        return await run.carry_out(target)


class Run:
    """What a run knows of itself."""

    def __init__(self, config: ChaosConfig, on_progress: OnProgress, stop: trio.Event) -> None:
        """Prepare a run; see `run_chaos`."""
        self.findings = Findings()
        self._config = config
        self._on_progress = on_progress
        self._stop = stop
        self._begin_s = trio.current_time()
        self._clock = RisingClock()
        self._closed: list[Group] = []
        """Keys that were not checked yet."""
        self._closed_more = trio.Event()
        self._groups, self._watched = config.out / "groups.jsonl", config.out / "watched.jsonl"
        self._watched_groups = 0
        """Keys and families of which a watch was told all."""
        self._recovery_s: float | None = None
        self._last_revision = 0
        """Of what was written behind all else, and was told to all watches."""
        self._calm_from_s: float | None = None
        """Since when the store is whole again."""
        self._load_s = 0.0

    def now(self) -> float:
        """Return the run's clock, in seconds; it never says the same twice."""
        return self._clock.stamp(trio.current_time() - self._begin_s)

    def take_event(self, event: dict[str, Any]) -> None:
        """Hear an event of our own server's log: no fault of ours explains these."""
        match event:
            case {"event": "node.crashed", "is_injected": False, "node": node, "reason": reason}:
                self._accuse(f"n{node} crashed by itself: {reason}; see {_log(event)}")
            case {"event": "node.damaged", "node": node}:
                self._accuse(f"n{node} finds its disk damaged: {event.get('reason')}; see {_log(event)}")
            case {"event": "client.failed"}:
                self._accuse(f"a client's connection failed by a bug of the server; see {_log(event)}")
            case {"event": "process.ended", "code": code, "who": who}:
                self._accuse(f"{who} ended by itself with {code}; see {_log(event)}")
                self._stop.set()
            case {"event": "process.ended", "ended": number, "reason": reason}:
                self._accuse(f"process {number} ended by itself: {reason}; see {_log(event)}")
            case {"event": "process.left", "who": who}:
                self._accuse(f"processes that {who} started go on without it; see {_log(event)}")
            case _:
                pass

    async def carry_out(self, target: Target) -> Summary:
        """Carry the run out on an open server."""
        config = self._config
        nodes = await find_nodes(target)
        self._begin_s = trio.current_time()
        # On our own server all keys are new; on another one they need a name that no key there has.
        prefix = "" if target.own is not None else f"chaos-{time.time_ns() // 1_000_000:x}-"
        recorder = Recorder(
            self._groups,
            Random(f"{config.seed} keys"),
            self.now,
            keys=config.keys,
            prefix=prefix,
            on_closed=self._note_closed,
        )
        kinds = config.faults & possible_kinds(target, has_command=config.fault_command is not None)
        nemesis = Nemesis(target, kinds, Random(f"{config.seed} faults"), self.now, config.fault_command)
        streams = StreamFile(self._watched, prefix)
        watchers = Watchers(target, streams, Random(f"{config.seed} watchers"), self.now, self._reject)
        async with open_judge(self._groups, self._watched) as judge:
            async with trio.open_nursery() as watching:
                await self._watch(watching, watchers, target)
                await self._load(target, recorder, nemesis, judge)
                reads = await self._recover(target, recorder, f"{prefix}whole", watchers)
                watching.cancel_scope.cancel()
            if target.own is not None:
                for problem in await target.own.stop():
                    self._accuse(problem)
            guilty = await self._check_all(recorder, reads, judge, watchers)
            streams.close()
        self.findings.doubts += nemesis.problems
        situations = count_situations(nemesis.faults, required_situations(kinds, nodes))
        if self._load_s >= COVERAGE_S:
            self.findings.doubts += [f"never met: {name}" for name, count in situations.items() if not count]
        if not recorder.recorded:
            self.findings.doubts.append("no operation was answered")
        faults = [HistoryFault(fault.name, fault.from_s, fault.to_s) for fault in nemesis.faults]
        await trio.to_thread.run_sync(self._draw, recorder, reads, guilty, faults)
        await trio.to_thread.run_sync(recorder.finish, config.out / "history.jsonl", faults)
        return await self._sum_up(recorder, nemesis, nodes, situations, watchers)

    async def _watch(self, nursery: trio.Nursery, watchers: Watchers, target: Target) -> None:
        """Begin watches, if the server has them."""
        if not self._config.has_families:
            return
        if not await nursery.start(watchers.run) and target.own is not None:
            self._accuse("our own server knows no watches")

    async def _load(self, target: Target, recorder: Recorder, nemesis: Nemesis, judge: Judge) -> None:
        config = self._config
        workload = Workload(
            target,
            recorder,
            Random(f"{config.seed} clients"),
            clients=config.clients,
            rate=config.rate,
            has_families=config.has_families,
            on_nonsense=self._reject,
        )
        async with trio.open_nursery() as watching:
            watching.start_soon(self._check_early, judge)
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(workload.run)
                    nursery.start_soon(nemesis.run)
                    nursery.start_soon(self._report_load, recorder, nemesis)
                    with trio.move_on_after(config.seconds):
                        await self._stop.wait()
                    nursery.cancel_scope.cancel()
            except* StartError as group:
                # It was killed, and does not come up again. Its log says why.
                for error in _leaves(group):
                    self._accuse(f"after a kill: {error}")
            self._load_s = trio.current_time() - self._begin_s
            recorder.retire()
            # What waits is checked later, together with the last read of each key.
            self._closed.clear()
            self._closed_more.set()
            self._stop.set()

    async def _report_load(self, recorder: Recorder, nemesis: Nemesis) -> None:
        while True:
            done_s = trio.current_time() - self._begin_s
            total_s = self._config.seconds
            self._on_progress(Progress("load", done_s, total_s, recorder.recorded, len(nemesis.faults)))
            await trio.sleep(TELL_S)

    def _note_closed(self, group: Group) -> None:
        self._closed.append(group)
        self._closed_more.set()

    async def _check_early(self, judge: Judge) -> None:
        """Check keys while the load goes on, so that a violation ends it at once."""
        while True:
            while self._closed:
                group = self._closed.pop(0)
                opinion = await judge.ask(Question(_ranges(group, {})))
                if opinion.verdict == "violation":
                    self._stop.set()
            if self._stop.is_set():
                return
            self._closed_more = trio.Event()
            await self._closed_more.wait()

    async def _recover(
        self, target: Target, recorder: Recorder, key: str, watchers: Watchers
    ) -> dict[str, tuple[int, int]]:
        """Mend everything, see the store whole, read all keys; return where each one's last read stands."""
        self._on_progress(Progress("recovery", 0, self._config.recovery_s))
        try:
            await mend(target)
            self._recovery_s = await wait_whole(target, key, within_s=self._config.recovery_s)
            self._calm_from_s = self.now()
            reads = await audit(target, recorder, AUDIT_CLIENT)
            if watchers.orders and not self.findings.violations:
                self._last_revision = await write_last(target, key)
                await watchers.wait_told(self._last_revision, self._config.recovery_s)
        except (NotWholeError, StartError) as error:
            self._accuse(str(error))
            return {}
        return {key: recorder.append(read) for key, read in reads.items()}

    async def _check_all(
        self, recorder: Recorder, reads: dict[str, tuple[int, int]], judge: Judge, watchers: Watchers
    ) -> list[Group]:
        """Check all keys, their last reads included; return those that are wrong."""
        guilty: list[Group] = []
        groups = list(recorder.groups.values())
        for number, group in enumerate(groups):
            self._on_progress(Progress("verdict", number, len(groups), recorder.recorded))
            question = Question(_ranges(group, reads), self._calm_from_s)
            if self._last_revision:
                parts, spans = watchers.told_of(group.key)
                question = msgspec.structs.replace(
                    question, watched=parts, spans=spans, last_revision=self._last_revision
                )
            opinion = await judge.ask(question)
            self._watched_groups += opinion.is_watched
            if opinion.verdict == "violation":
                guilty.append(group)
                self._accuse(opinion.reason)
            elif opinion.verdict != "valid":
                self.findings.doubts.append(f"key {group.key}: {opinion.reason}")
        return guilty

    def _draw(
        self,
        recorder: Recorder,
        reads: dict[str, tuple[int, int]],
        guilty: list[Group],
        faults: Sequence[HistoryFault],
    ) -> None:
        """Draw the whole run, or, if it is long, what is wrong in it or the key that had the most trouble."""
        groups = list(recorder.groups.values())
        shown = [_ranges(group, reads) for group in groups]
        title = f"chaos, seed {self._config.seed}"
        if sum(group.operations for group in groups) > DRAWN_MAX:
            troubled = max(groups, key=lambda group: group.unknown)
            shown = [_ranges(group, reads) for group in guilty] or [_ranges(troubled, {})]
            title += ": the keys that are wrong" if guilty else f": key {troubled.key}, the most troubled one"
        page = draw_picture(
            self._groups,
            shown,
            [_ranges(group, reads) for group in guilty[:VIOLATIONS_DRAWN_MAX]],
            faults,
            title=title,
            calm_from_s=self._calm_from_s,
        )
        (self._config.out / "timeline.html").write_text(page, encoding="utf-8")

    async def _sum_up(
        self,
        recorder: Recorder,
        nemesis: Nemesis,
        nodes: int,
        situations: dict[str, int],
        watchers: Watchers,
    ) -> Summary:
        config = self._config
        operations: dict[str, dict[str, int]] = {}
        for (name, outcome), count in sorted(recorder.outcomes.items()):
            operations.setdefault(name, {})[outcome] = count
        summary = Summary(
            verdict=self.findings.verdict,
            violations=self.findings.violations,
            doubts=self.findings.doubts,
            seed=config.seed,
            command=config.command,
            folder=config.out,
            nodes=nodes,
            clients=config.clients,
            seconds=self._load_s,
            checked=sum(group.operations for group in recorder.groups.values()),
            keys=len(recorder.groups),
            stale_reads=recorder.outcomes["stale", "ok"],
            chains=recorder.chains,
            retried=recorder.retried,
            repeated=recorder.repeated,
            watched=watchers.figures(self._watched_groups),
            operations=operations,
            replies=dict(recorder.codes.most_common()),
            faults=dict(Counter(fault.kind for fault in nemesis.faults).most_common()),
            situations=situations,
            refusals=nemesis.refusals,
            longest_gap_s=recorder.longest_gap_s,
            longest_gap_from_s=recorder.longest_gap_from_s,
            recovery_s=self._recovery_s,
        )
        await trio.to_thread.run_sync(self._write, summary)
        return summary

    def _write(self, summary: Summary) -> None:
        text = msgspec.json.format(msgspec.json.encode(summary.to_json()), indent=2)
        (self._config.out / "summary.json").write_bytes(text + b"\n")
        if summary.verdict == "valid":
            shutil.rmtree(self._config.out / "data", ignore_errors=True)
            self._watched.unlink()

    def _reject(self, nonsense: str) -> None:
        """End the load: whoever answers nonsense will do so again."""
        self._accuse(nonsense)
        self._stop.set()

    def _accuse(self, violation: str) -> None:
        if violation not in self.findings.violations:
            self.findings.violations.append(violation)


def _leaves(group: BaseExceptionGroup[StartError]) -> Iterator[StartError]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


def _log(event: dict[str, Any]) -> str:
    return str(event.get("log", "server.log"))


def _ranges(group: Group, reads: dict[str, tuple[int, int]]) -> list[tuple[int, int]]:
    """Return where all operations on a key stand, its last read included."""
    last = [reads[group.key]] if group.key in reads else []
    return [(group.offset, group.size_bytes), *last]
