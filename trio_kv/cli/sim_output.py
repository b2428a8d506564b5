"""How a campaign looks: how far it is, on stderr, and what it came to, on stdout."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trio_kv.cli.terminal import is_terminal, open_console
from trio_kv.cli.words import count
from trio_kv.sim.attempt import Outcome
from trio_kv.sim.campaign import Campaign, Totals, Verdict

PLAIN_EVERY_S = 10.0
"""How often a line tells how far it is, where nobody watches."""


def describe_outcome(outcome: Outcome) -> str:
    """Return what became of a seed, in a line, or in a few if it went wrong."""
    of = f"seed {outcome.task.seed} of the {outcome.task.world} world"
    if outcome.lost is not None:
        return f"{of} did not end: {outcome.lost}"
    if outcome.failure is not None:
        return f"{of} failed: {outcome.failure.text}\n{outcome.failure.frames}".rstrip()
    figures = outcome.figures
    assert figures is not None
    return (
        f"{of}: trace {figures.trace_hash}, {figures.events:,} events, {figures.operations:,} operations,"
        f" {figures.crashes:,} crashes, {figures.simulated_s:.1f} s in {outcome.took_s:.2f} s"
    )


def describe_progress(campaign: Campaign) -> str:
    """Return how far a campaign is, in a line."""
    all_totals = campaign.totals.values()
    seeds = sum(totals.seeds for totals in all_totals)
    events = sum(totals.events for totals in all_totals)
    took_s = max(campaign.took_s, 1e-9)
    return (
        f"{seeds:,} seeds · {events / took_s:,.0f} events/s"
        f" · {sum(totals.operations for totals in all_totals):,} operations"
        f" · {sum(totals.crashes for totals in all_totals):,} crashes"
        f" · {sum(totals.simulated_s for totals in all_totals) / 3600:,.1f} hours simulated"
        f" · {count(len(campaign.failures), 'violation')}"
    )


@contextmanager
def show_progress(campaign: Campaign) -> Iterator[Callable[[], None]]:
    """Give a function to be called now and then: it shows how far a campaign is."""
    if is_terminal(sys.stderr):
        with _show_bar(campaign) as show:
            yield show
        return
    next_s = time.monotonic() + PLAIN_EVERY_S

    def show_line() -> None:
        nonlocal next_s
        if time.monotonic() >= next_s:
            next_s = time.monotonic() + PLAIN_EVERY_S
            print(describe_progress(campaign), file=sys.stderr, flush=True)

    yield show_line


@contextmanager
def _show_bar(campaign: Campaign) -> Iterator[Callable[[], None]]:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    order = campaign.order
    seeds = order.seeds
    total = None if seeds.last is None else len(seeds) * len(order.worlds)
    columns = (BarColumn(bar_width=20), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=open_console(sys.stderr), transient=True) as progress:
        task = progress.add_task("", total=total)

        def show() -> None:
            is_timed = order.minutes < float("inf")
            done = sum(totals.seeds for totals in campaign.totals.values())
            part = campaign.took_s / (order.minutes * 60) if is_timed else 0.0
            if total is not None and done / total >= part:
                progress.update(task, completed=done, description=describe_progress(campaign))
            elif is_timed:
                progress.update(task, total=1.0, completed=part, description=describe_progress(campaign))
            else:
                progress.update(task, description=describe_progress(campaign))

        yield show


def show_campaign(campaign: Campaign) -> None:
    """Print the totals, what was reached, and the verdict."""
    from rich import box
    from rich.table import Table

    console = open_console(sys.stdout)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("")
    for world in campaign.totals:
        table.add_column(world, justify="right", no_wrap=True)
    rows = [_figures(totals, campaign) for totals in campaign.totals.values()]
    for name in rows[0]:
        table.add_row(name, *(row[name] for row in rows))
    if not campaign.order.seeds.is_one:
        table.add_section()
        situations = dict.fromkeys(s for world in campaign.totals for s in campaign.situations(world))
        for situation in situations:
            cells = [
                f"{totals.coverage[situation]:,}"
                if totals.coverage[situation] or situation in campaign.situations(world)
                else ""
                for world, totals in campaign.totals.items()
            ]
            table.add_row(situation, *cells)
    console.print(table)
    console.print(describe_verdict(campaign), markup=False, soft_wrap=True)


def _figures(totals: Totals, campaign: Campaign) -> dict[str, str]:
    took_s = max(campaign.took_s, 1e-9)
    recovery = "" if totals.slowest_seed is None else f"{totals.slowest_s:.2f} s (seed {totals.slowest_seed})"
    return {
        "seeds": f"{totals.seeds:,}",
        "events checked": f"{totals.events:,}",
        "events/s of a core": f"{totals.events / max(totals.used_s, 1e-9):,.0f}",
        "operations checked": f"{totals.operations:,}",
        "crash-restarts": f"{totals.crashes:,}",
        "cluster-hours simulated": f"{totals.simulated_s / 3600:,.2f}",
        "times real time": f"{totals.simulated_s / took_s:,.0f}",
        "longest recovery": recovery,
    }


def describe_verdict(campaign: Campaign) -> str:
    """Return the verdict in words."""
    seeds = count(sum(totals.seeds for totals in campaign.totals.values()), "seed")
    match campaign.verdict():
        case Verdict.VIOLATION:
            failed = ", ".join(f"{seed} ({world})" for world, seed, _ in campaign.failures)
            return f"violation: {len(campaign.failures)} of {seeds} failed: {failed}"
        case Verdict.INTERRUPTED:
            return f"interrupted: no violation until then, in {seeds}"
        case Verdict.UNKNOWN:
            return f"unknown: no violation in {seeds}, but {'; '.join(_describe_gaps(campaign))}"
        case _:
            return f"valid: no violation in {seeds}, {campaign.took_s:.1f} s"


def _describe_gaps(campaign: Campaign) -> Iterator[str]:
    for world, situations in campaign.missing().items():
        yield f"the {world} world never reached: {', '.join(situations)}"
    if campaign.lost:
        yield f"these did not end: {', '.join(f'{seed} ({world})' for world, seed, _ in campaign.lost)}"
    for world, totals in campaign.totals.items():
        if not totals.seeds:
            yield f"nothing was run to its end in the {world} world"
