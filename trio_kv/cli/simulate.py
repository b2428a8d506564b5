"""What `sim` does: runs a campaign or a single plan, shows how far it is, tells the verdict and how to repeat it."""

import math
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import msgspec

from trio_kv.cli.errors import UsageError
from trio_kv.cli.failures import explain_os_error
from trio_kv.cli.output import ExitCode, say
from trio_kv.cli.sim_options import SimOptions
from trio_kv.cli.sim_output import describe_outcome, show_campaign, show_progress
from trio_kv.sim.attempt import Failure, Outcome, TraceText, attempt
from trio_kv.sim.campaign import Campaign, Order, Seeds, Verdict, parse_seeds, replay_command, run_here
from trio_kv.sim.evidence import Evidence, gather
from trio_kv.sim.plan import Plan
from trio_kv.sim.plan_file import BadPlanError, read_plan
from trio_kv.sim.pool import run_in_processes
from trio_kv.sim.result import Result
from trio_kv.sim.shrink import NotRepeatableError
from trio_kv.sim.worlds import Draw, WorldKind, world_kind

OUT_DEFAULT = Path("trio_kv-sim")
SUMMARY_NAME = "summary.json"
SHRINKING_TOLD_EVERY = 50
"""Runs after which is told how small a plan is by now."""
EVIDENCE_MAX = 3
"""For so many kinds of failures the first seed is shrunk."""


def simulate(options: SimOptions) -> int:
    """Carry out `sim`; return the exit code.

    Raises:
        UsageError: options do not go together, or ask for what there is not.

    """
    if options.plan is not None:
        return _run_file(options, options.plan)
    seeds = _seeds(options)
    kinds = {world: _world_kind(world) for world in options.worlds}
    _check_modes(options, kinds)
    draw = Draw(kinds=_fault_kinds(options, kinds), is_beyond_budget=options.is_beyond_budget)
    if seeds.is_one and (options.is_verbose or options.trace is not None):
        (kind,) = _only(kinds, options)
        return _run_plan(options, kind, kind.draw_plan(seeds.first, draw))
    if options.trace is not None:
        raise UsageError(f"--trace is for one seed, and --seeds {seeds} are many")
    order = Order(
        worlds=options.worlds,
        seeds=seeds,
        draw=draw,
        is_bare=options.is_bare,
        minutes=math.inf if options.minutes is None else options.minutes,
    )
    if options.out is not None:
        _make_folder(options.out)
    return _run_campaign(options, Campaign(order, kinds), kinds)


def _make_folder(path: Path) -> None:
    """Make the folder for what is found before anything is looked for, and see that it can be written into."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(
            f"--out {explain_os_error(error, path)}: name a folder that can be written"
        ) from error


def _run_campaign(options: SimOptions, campaign: Campaign, kinds: dict[str, WorldKind]) -> int:
    order = campaign.order
    with _ending_in_order(), show_progress(campaign) as show_step:

        def on_outcome(outcome: Outcome) -> None:
            if outcome.figures is None:
                say(f"{describe_outcome(outcome)}\nreplay it: {replay_command(outcome.task)}")
            elif options.output != "json" and (options.is_verbose or order.seeds.is_one):
                print(describe_outcome(outcome), flush=True)  # whoever reads a pipe wants to see it now, too
            show_step()

        jobs = (
            min(options.processes, len(order.seeds) * len(order.worlds))
            if order.seeds.last
            else options.processes
        )
        if order.seeds.is_one and len(order.worlds) == 1:
            campaign.carry_out(run_here, on_outcome)
        else:
            campaign.carry_out(lambda tasks: run_in_processes(tasks, jobs), on_outcome)
    evidence = _gather(options, campaign, kinds)
    summary = campaign.summary() | {"evidence": [str(each.folder) for each in evidence]}
    is_written = options.out is None or _write_summary(options.out, summary)
    if options.output == "json":
        print(msgspec.json.encode(summary).decode())
    else:
        for each in evidence:
            print(f"{each}\n")
        show_campaign(campaign)
    return _code(campaign.verdict(), is_written=is_written)


def _write_summary(out: Path, summary: dict[str, Any]) -> bool:
    """Write the figures down; return whether that worked."""
    try:
        (out / SUMMARY_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n")
    except OSError as error:
        say(explain_os_error(error, out / SUMMARY_NAME))
        return False
    return True


def _code(verdict: Verdict, *, is_written: bool) -> int:
    """Return the exit code: a verdict stands, whether or not what was asked for could be written."""
    return ExitCode.NOT_TOLD if verdict is Verdict.VALID and not is_written else verdict


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let SIGTERM end a campaign as Ctrl-C does: with the verdict so far."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _gather(options: SimOptions, campaign: Campaign, kinds: dict[str, WorldKind]) -> list[Evidence]:
    """Shrink the first failure of each kind."""
    firsts: dict[tuple[str, str], tuple[int, Failure]] = {}
    for world, seed, failure in campaign.failures:
        firsts.setdefault((world, failure.kind), (seed, failure))
    gathered = []
    for (world, _), (seed, failure) in list(firsts.items())[: EVIDENCE_MAX if options.shrink_runs else 0]:
        kind = kinds[world]
        plan = kind.draw_plan(seed, campaign.order.draw)
        say(f"shrinking seed {seed} of the {world} world, in at most {options.shrink_runs} runs")
        try:
            out = options.out or OUT_DEFAULT
            gathered.append(
                gather(
                    kind,
                    plan,
                    failure,
                    out,
                    runs_max=options.shrink_runs,
                    is_bare=options.is_bare,
                    on_run=_show_shrinking,
                )
            )
        except NotRepeatableError as error:
            say(f"{error}: something in it is not decided by its seed")
        except OSError as error:
            say(f"nothing is kept of it: {explain_os_error(error, options.out or OUT_DEFAULT)}")
    return gathered


def _show_shrinking(runs: int, plan: Plan) -> None:
    if runs % SHRINKING_TOLD_EVERY == 0:
        say(f"{runs} runs, {len(plan.faults)} faults left")


def _run_file(options: SimOptions, path: Path) -> int:
    if options.seeds is not None:
        raise UsageError("--plan and --seeds can't go together: a plan has its seed")
    try:
        file = read_plan(path.read_text())
    except OSError as error:
        raise UsageError(explain_os_error(error, path)) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no plan that can be run: it is not text") from error
    except BadPlanError as error:
        raise UsageError(f"{path} is no plan that can be run: {error}") from error
    kind = _world_kind(file.world)
    _check_modes(options, {kind.name: kind})
    return _run_plan(options, kind, file.plan)


def _run_plan(options: SimOptions, kind: WorldKind, plan: Plan) -> int:
    """Run one plan here, and show what happens."""
    text = None
    result: Result | Failure
    if options.trace is None:
        result = attempt(kind, plan, print if options.is_verbose else None, is_bare=options.is_bare)
    else:
        text, result = _run_traced(options, kind, plan, options.trace)
    text_hash = "" if text is None else text.digest()
    verdict = Verdict.VIOLATION if isinstance(result, Failure) else Verdict.VALID
    code = _code(verdict, is_written=text is None or text.loss is None)
    if options.output == "json":
        members = {"verdict": verdict.name.lower(), "world": kind.name, "seed": plan.seed}
        if isinstance(result, Failure):
            members["failure"] = result
        else:
            members["figures"] = attrs.evolve(result, text_hash=text_hash)
        print(msgspec.json.encode(members).decode())
        return code
    if text is not None and text.loss is None:
        print(f"{text_hash}  {options.trace}")
    if isinstance(result, Failure):
        print(f"seed {plan.seed} of the {kind.name} world failed: {result.text}\n{result.frames}", end="")
    else:
        print(
            f"seed {plan.seed} of the {kind.name} world: valid, trace {result.trace_hash},"
            f" {result.events:,} events, {result.operations:,} operations, {result.crashes:,} crashes"
        )
    return code


def _run_traced(
    options: SimOptions, kind: WorldKind, plan: Plan, path: Path
) -> tuple[TraceText, Result | Failure]:
    """Run one plan, and write all that happens into a file."""
    try:
        file = path.open("wb")
    except OSError as error:
        raise UsageError(explain_os_error(error, path)) from error
    text = TraceText(file)
    result = attempt(kind, plan, text.tell, is_bare=options.is_bare)
    try:
        file.close()
    except OSError as error:
        text.loss = text.loss or error
    if text.loss is not None:
        say(f"the trace is not whole: {explain_os_error(text.loss, path)}")
    return text, result


def _only(kinds: dict[str, WorldKind], options: SimOptions) -> list[WorldKind]:
    if len(kinds) > 1:
        raise UsageError(f"one seed is shown of one world: name it, instead of --world {options.world}")
    return list(kinds.values())


def _seeds(options: SimOptions) -> Seeds:
    if options.seeds is None:
        return Seeds(1, None if options.minutes else 100)
    try:
        return parse_seeds(options.seeds)
    except ValueError as error:
        raise UsageError(f"--seeds: {error}") from error


def _world_kind(name: str) -> WorldKind:
    try:
        return world_kind(name)
    except LookupError as error:
        raise UsageError(f"--world: {error.args[0]}") from error


def _check_modes(options: SimOptions, kinds: dict[str, WorldKind]) -> None:
    asked = {"beyond-budget": options.is_beyond_budget, "bare": options.is_bare}
    for world in kinds.values():
        for mode in [mode for mode, is_asked in asked.items() if is_asked and mode not in world.modes]:
            raise UsageError(f"--{mode}: the {world.name} world can't do that")


def _fault_kinds(options: SimOptions, kinds: dict[str, WorldKind]) -> tuple[str, ...] | None:
    if options.kinds is None:
        return None
    chosen = tuple(each.strip() for each in options.kinds.split(","))
    for world in kinds.values():
        for each in chosen:
            if each not in world.kinds:
                known = ", ".join(world.kinds)
                raise UsageError(f"--kinds: the {world.name} world has no {each!r}: it has {known}")
    return chosen
