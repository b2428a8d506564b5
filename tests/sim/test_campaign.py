"""Campaigns: which seeds are run, what they add up to, and the one verdict."""

import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import attrs
import pytest

from trio_kv.cli import sim_output
from trio_kv.cli.sim_output import describe_progress, describe_verdict, show_campaign
from trio_kv.sim.attempt import Failure, Outcome, Task
from trio_kv.sim.campaign import FAILURES_MAX, Campaign, Order, Seeds, Verdict, parse_seeds, replay_command
from trio_kv.sim.plan import draw_plan
from trio_kv.sim.result import Result
from trio_kv.sim.world import World
from trio_kv.sim.worlds import Draw, WorldKind

Patch = pytest.MonkeyPatch
SITUATIONS = ("rain", "snow")


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def fake_kind(name: str = "fake") -> WorldKind:
    """Return a world in which each seed does what a test says: no plan of it is ever run."""
    return WorldKind(
        name=name, kinds=("crash",), situations=SITUATIONS, seeds_for_coverage=3, draw=draw_plan, make=World
    )


def outcome(task: Task, *, coverage: Sequence[str] = (), took_s: float = 1.0, **members: Any) -> Outcome:
    figures = Result(
        trace_hash="beef",
        events=1000,
        operations=50,
        crashes=2,
        simulated_s=36.0,
        recovered_after_s=task.seed / 10,
        coverage=Counter(coverage),
    )
    return attrs.evolve(Outcome(task=task, took_s=took_s, figures=figures), **members)


def failed(task: Task) -> Outcome:
    failure = Failure(kind="Violation in judge.look", text="Violation: a bad day", frames="  somewhere\n")
    return outcome(task, figures=None, failure=failure)


def campaign_of(
    *answers: Callable[[Task], Outcome], order: Order | None = None, kind: WorldKind | None = None
) -> Campaign:
    """Return a campaign that got these outcomes, for seed 1 and so on."""
    order = order or Order(worlds=("fake",), seeds=Seeds(1, len(answers)))
    campaign = Campaign(order, {"fake": kind or fake_kind()}, Clock())

    def run(tasks: Iterator[Task]) -> Generator[Outcome, None, None]:
        for task, answer in zip(tasks, answers, strict=False):
            yield answer(task)

    campaign.carry_out(run, lambda _outcome: None)
    return campaign


# --- which seeds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seeds"), [("7", Seeds(7, 7)), ("1..20", Seeds(1, 20)), ("0..0", Seeds(0, 0)), ("5..", Seeds(5))]
)
def test_seeds_are_one_a_range_or_without_end(text: str, seeds: Seeds) -> None:
    """Seeds are read as they are printed."""
    assert parse_seeds(text) == seeds
    assert parse_seeds(str(seeds)) == seeds


@pytest.mark.parametrize(
    "text", ["", "..", "..5", "a", "1..b", "5..4", "-1", "1...3", "1,2", "1_0", "٣", " 1"]
)
def test_what_is_no_seeds_is_refused(text: str) -> None:
    """All else is refused."""
    with pytest.raises(ValueError, match="seeds"):
        parse_seeds(text)


def test_seeds_are_taken_in_order_until_the_time_is_over() -> None:
    """No seed begins after the minutes that were given."""
    clock = Clock()
    campaign = Campaign(Order(worlds=("fake",), seeds=Seeds(5), minutes=2.0), {"fake": fake_kind()}, clock)
    seeds = []

    def run(tasks: Iterator[Task]) -> Generator[Outcome, None, None]:
        for task in tasks:
            seeds.append(task.seed)
            clock.now_s += 50.0
            yield outcome(task)

    campaign.carry_out(run, lambda _outcome: None)
    assert seeds == [5, 6, 7]
    assert campaign.took_s == 150.0
    assert campaign.verdict() == Verdict.UNKNOWN  # neither rain nor snow in three seeds


def test_worlds_share_the_time_and_not_the_seeds() -> None:
    """A world whose seeds take ten times as long gets as much time as the other."""
    order = Order(worlds=("fast", "slow"), seeds=Seeds(1))
    campaign = Campaign(order, {"fast": fake_kind("fast"), "slow": fake_kind("slow")}, Clock())
    counts = Counter[str]()

    def run(tasks: Iterator[Task]) -> Generator[Outcome, None, None]:
        for task, _ in zip(tasks, range(110), strict=False):
            counts[task.world] += 1
            assert task.seed == counts[task.world]
            yield outcome(task, took_s=10.0 if task.world == "slow" else 1.0)

    campaign.carry_out(run, lambda _outcome: None)
    assert counts == {"fast": 100, "slow": 10}


def test_a_range_is_run_in_both_worlds_to_its_end() -> None:
    """With a range each world runs all of its seeds."""
    order = Order(worlds=("fast", "slow"), seeds=Seeds(1, 4))
    campaign = Campaign(order, {"fast": fake_kind("fast"), "slow": fake_kind("slow")}, Clock())
    campaign.carry_out(lambda tasks: (outcome(task) for task in tasks), lambda _outcome: None)
    assert [totals.seeds for totals in campaign.totals.values()] == [4, 4]


# --- the verdict --------------------------------------------------------------------------------------------


def wet(task: Task) -> Outcome:
    return outcome(task, coverage=SITUATIONS)


def lost(task: Task) -> Outcome:
    return outcome(task, figures=None, lost="its process was killed by SIGKILL")


def test_a_campaign_that_reached_all_is_valid() -> None:
    """All situations were reached by enough seeds, and nothing failed."""
    campaign = campaign_of(wet, wet, wet)
    assert campaign.verdict() == Verdict.VALID
    assert describe_verdict(campaign).startswith("valid: no violation in 3 seeds")


def test_a_large_campaign_that_missed_a_situation_is_no_pass() -> None:
    """As many seeds as should reach everything, and it did not snow: the verdict is unknown, and says why."""
    rain = [lambda task: outcome(task, coverage=["rain"])] * 3
    assert campaign_of(*rain).verdict() == Verdict.UNKNOWN
    assert "the fake world never reached: snow" in describe_verdict(campaign_of(*rain))
    assert campaign_of(*rain[:2]).verdict() == Verdict.VALID


@pytest.mark.parametrize(
    "members", [{"draw": Draw(kinds=("crash",))}, {"draw": Draw(is_beyond_budget=True)}, {"is_bare": True}]
)
def test_a_campaign_that_is_confined_need_not_reach_everything(members: dict[str, Any]) -> None:
    """With some kinds of faults alone, beyond the budget or without judges no situation is asked for."""
    order = attrs.evolve(Order(worlds=("fake",), seeds=Seeds(1, 3)), **members)
    assert campaign_of(outcome, outcome, outcome, order=order).verdict() == Verdict.VALID


def test_one_failure_makes_a_violation_whatever_else_there_is() -> None:
    """A failed seed outweighs all others, and what was missed, too; it is named."""
    campaign = campaign_of(wet, failed, lost)
    assert campaign.verdict() == Verdict.VIOLATION
    assert describe_verdict(campaign) == "violation: 1 of 2 seeds failed: 2 (fake)"
    assert campaign.summary()["worlds"]["fake"]["failures"][0]["seed"] == 2


def test_a_seed_that_did_not_end_is_no_pass() -> None:
    """A process that died took its seed with it: the verdict is unknown, and names the seed."""
    campaign = campaign_of(wet, lost, wet, wet)
    assert campaign.verdict() == Verdict.UNKNOWN
    assert "these did not end: 2 (fake)" in describe_verdict(campaign)


def test_nothing_run_is_no_pass() -> None:
    """A campaign without a seed proves nothing; neither does one without a seed in one of its worlds."""
    campaign = campaign_of(order=Order(worlds=("fake",), seeds=Seeds(1, 1)))
    assert campaign.verdict() == Verdict.UNKNOWN
    assert "nothing was run to its end in the fake world" in describe_verdict(campaign)
    order = Order(worlds=("wet", "dry"), seeds=Seeds(1))
    campaign = Campaign(order, {"wet": fake_kind("wet"), "dry": fake_kind("dry")}, Clock())
    campaign.carry_out(
        lambda tasks: (wet(task) for task, _ in zip(tasks, range(1), strict=False)), lambda _outcome: None
    )
    assert campaign.verdict() == Verdict.UNKNOWN
    assert "nothing was run to its end in the dry world" in describe_verdict(campaign)


def test_the_command_that_replays_a_seed_says_how_it_was_run() -> None:
    """Kinds, budget and judges are those of the run that failed."""
    draw = Draw(kinds=("crash", "pause"), is_beyond_budget=True)
    task = Task(world="core", seed=7, draw=draw, is_bare=True)
    assert replay_command(task) == (
        "python -m trio_kv sim --seed 7 --world core --kinds crash,pause --beyond-budget --bare --verbose"
    )


def test_a_campaign_ends_when_enough_failed() -> None:
    """After some failures no further seeds are begun."""
    order = Order(worlds=("fake",), seeds=Seeds(1))
    campaign = campaign_of(*[failed] * 50, order=order)
    assert len(campaign.failures) == FAILURES_MAX


def test_ctrl_c_ends_a_campaign_with_the_verdict_so_far() -> None:
    """An interrupt ends it in order: what was found until then counts."""

    def interrupt(task: Task) -> Outcome:
        raise KeyboardInterrupt

    campaign = campaign_of(wet, wet, interrupt, wet)
    assert campaign.verdict() == Verdict.INTERRUPTED
    assert describe_verdict(campaign) == "interrupted: no violation until then, in 2 seeds"
    assert campaign_of(failed, interrupt).verdict() == Verdict.VIOLATION


def test_totals_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Figures of all seeds are added, and the longest recovery is kept with its seed."""
    campaign = campaign_of(wet, wet, wet)
    summary = campaign.summary()["worlds"]["fake"]
    assert summary["events"] == 3000
    assert summary["operations"] == 150
    assert summary["crashes"] == 6
    assert summary["simulated_hours"] == 0.03
    assert summary["events_per_s_of_a_core"] == 1000
    assert (summary["longest_recovery_s"], summary["longest_recovery_seed"]) == (0.3, 3)
    assert summary["coverage"] == {"rain": 3, "snow": 3}
    show_campaign(campaign)
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for row in ("seeds 3", "events checked 3,000", "longest recovery 0.30 s (seed 3)", "snow 3"):
        assert row in shown


# --- progress -----------------------------------------------------------------------------------------------


def test_progress_is_a_line_now_and_then_where_nobody_watches(
    monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Into a pipe goes a plain line every ten seconds, on stderr."""
    clock = Clock()
    monkeypatch.setattr("trio_kv.cli.sim_output.time.monotonic", clock)
    campaign = campaign_of(wet, failed)
    with sim_output.show_progress(campaign) as show:
        for _ in range(21):
            show()
            clock.now_s += 1.0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [describe_progress(campaign)] * 2
    assert "2 seeds" in shown.err
    assert "50 operations · 2 crashes · 0.0 hours simulated · 1 violation" in shown.err


@pytest.mark.parametrize(
    "order",
    [
        Order(worlds=("fake",), seeds=Seeds(1, 2)),
        Order(worlds=("fake",), seeds=Seeds(1, 2), minutes=1.0),
        Order(worlds=("fake",), seeds=Seeds(1), minutes=1.0),
        Order(worlds=("fake",), seeds=Seeds(1)),
    ],
    ids=["range", "range and time", "time", "no end"],
)
def test_progress_is_a_bar_for_a_person(
    order: Order, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a terminal there is a bar with the same words, whatever ends the campaign."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    with sim_output.show_progress(campaign_of(wet, wet, order=order)) as show:
        show()
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "2 seeds" in shown.err
