"""A history as one HTML page: the verdict in words, the window of each violation, and the whole run over time.

The page stands for itself: no script, no font, no other resource. What was asked and answered is not trusted, and is
escaped wherever it is told.
"""

import re
from collections import Counter
from collections.abc import Sequence

from trio_kv.check.history import Drawn, History, Operation
from trio_kv.check.linearizability import BrokenKey, Verdict
from trio_kv.check.picture_density import draw_density, left_out, longest_wait
from trio_kv.check.picture_lanes import draw_lanes, draw_window
from trio_kv.check.picture_style import STYLE
from trio_kv.check.picture_svg import tag, text
from trio_kv.check.reasons import describe_operation, describe_text, moments
from trio_kv.check.replay import Accusation, Replayed

OPERATIONS_DRAWN_MAX = 120
"""A longer history is drawn as density and not one by one."""
CLIENTS_DRAWN_MAX = 24
CONTEXT_OPERATIONS_MAX = 30
"""Operations drawn around a violation, beside those that have no order."""
WRITERS_DRAWN_MAX = 4
"""Writers of the value that the illegal step met."""
VIOLATIONS_DRAWN_MAX = 8

_HEADLINES = {
    "valid": "Linearizable: all operations have an order.",
    "violation": "Not linearizable.",
    "unknown": "Not decided: some keys have too many orders to try.",
}


def draw_history(
    history: History, verdict: Verdict | None = None, title: str = "History", replayed: Replayed | None = None
) -> str:
    """Return a page about a history.

    Args:
        history: of a run.
        verdict: about that history; its violations are drawn first.
        title: of the page.
        replayed: the verdict about its exchanges.

    """
    parts = [_head(history, verdict, title, replayed)]
    if verdict is not None:
        broken = verdict.violations
        parts += [_violation(history, each) for each in broken[:VIOLATIONS_DRAWN_MAX]]
        if len(broken) > VIOLATIONS_DRAWN_MAX:
            rest = ", ".join(describe_text(each.key) for each in broken[VIOLATIONS_DRAWN_MAX:])
            parts.append(tag("section", tag("p", text(f"Not drawn: the violations of {rest}."))))
        if verdict.undecided:
            keys = ", ".join(describe_text(key) for key in verdict.undecided)
            parts.append(tag("section", tag("p", text(f"Not decided: {keys}."))))
    if replayed is not None:
        parts += [_accusation(history, each) for each in replayed.accusations[:VIOLATIONS_DRAWN_MAX]]
    parts.append(_overview(history))
    head = tag(
        "head",
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        tag("title", text(title)),
        tag("style", STYLE),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', tag('main', *parts)), lang='en')}\n"


def _head(history: History, verdict: Verdict | None, title: str, replayed: Replayed | None) -> str:
    operations: list[Drawn] = [*history.operations, *history.exchanges]
    outcomes = Counter(operation.outcome for operation in operations)
    facts = [
        f"{len(operations):,} operations",
        f"{len({operation.client for operation in operations}):,} clients",
        f"{len({operation.key for operation in operations}):,} keys",
        *(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items())),
    ]
    if history.faults:
        facts.append(f"{len(history.faults):,} faults")
    parts = [tag("h1", text(title))]
    if verdict is not None:
        outcomes_of = {verdict.outcome, replayed.outcome if replayed is not None else "valid"}
        outcome = next(each for each in ("violation", "unknown", "valid") if each in outcomes_of)
        badge = tag("span", text(outcome), class_=f"badge {outcome}")
        parts.append(tag("p", badge, text(_HEADLINES[outcome])))
    parts.append(tag("p", text(" · ".join(facts)), class_="soft"))
    return tag("header", *parts)


def _violation(history: History, broken: BrokenKey) -> str:
    chosen, count = _choose_context(history.operations, broken)
    drawn: list[Drawn] = [*chosen]
    note = "Time is stretched so that the order can be seen. The strong bars have no order; pale ones are others on "
    note += "the same key."
    if count:
        note += f" {count:,} more of these between the first call and the last return are not drawn."
    return tag(
        "section",
        tag("h2", text(f"{broken.kind.capitalize()} of key {describe_text(broken.key)}")),
        tag("p", re.sub(r"(?<=\d) s\b", "&nbsp;s", text(broken.words)), class_="words"),
        draw_window(drawn, history.faults, broken.operations, broken.illegal),
        tag("p", text(note), class_="soft"),
        _legend(is_density=False),
        _table(broken),
        class_="broken",
    )


def _accusation(history: History, accusation: Accusation) -> str:
    """Return what a reply can't be, and what else was under way."""
    words = tag("p", re.sub(r"(?<=\d) s\b", "&nbsp;s", text(accusation.words)), class_="words")
    guilty = accusation.exchange
    heading = tag("h2", text("No one history"))
    if guilty is None:
        return tag("section", heading, words, class_="broken")
    around = [
        each
        for each in history.exchanges
        if each is not guilty and each.call_s <= guilty.end_s and guilty.call_s <= each.end_s
    ]
    around.sort(key=lambda each: abs(each.call_s - guilty.call_s))
    drawn: list[Drawn] = [guilty, *around[:CONTEXT_OPERATIONS_MAX]]
    return tag(
        "section",
        heading,
        words,
        draw_window(drawn, history.faults, [guilty], guilty),
        tag(
            "p",
            text("The strong bar is the reply that can't be; pale ones were under way at the time."),
            class_="soft",
        ),
        _legend(is_density=False),
        class_="broken",
    )


def _choose_context(operations: Sequence[Operation], broken: BrokenKey) -> tuple[list[Operation], int]:
    """Return what is drawn around a violation, and how many more there are in its window.

    Beside what overlaps with it, that is who wrote what the illegal step met.
    """
    shown = {id(operation) for operation in broken.operations}
    illegal = broken.illegal
    met = illegal.expected if illegal.result is None else illegal.result
    from_s = min(operation.call_s for operation in broken.operations)
    to_s = max(operation.end_s for operation in broken.operations)
    others = [each for each in operations if each.key == broken.key and id(each) not in shown]
    writers = [each for each in others if met is not None and each.value == met][:WRITERS_DRAWN_MAX]
    known = {id(each) for each in writers}
    around = [
        each for each in others if id(each) not in known and each.call_s <= to_s and from_s <= each.end_s
    ]
    around.sort(key=lambda operation: abs(operation.call_s - illegal.call_s))
    drawn = around[:CONTEXT_OPERATIONS_MAX]
    return [*broken.operations, *writers, *drawn], len(around) - len(drawn)


def _table(broken: BrokenKey) -> str:
    moment = moments(broken.operations)
    names = ("client", "operation", "asked", "answered", "node")
    rows = [tag("tr", *(tag("th", name) for name in names))]
    for operation in broken.operations:
        cells = (
            str(operation.client),
            describe_operation(operation),
            moment(operation.call_s),
            "never" if operation.return_s is None else moment(operation.return_s),
            str(operation.node or ""),
        )
        kind = "worst" if operation is broken.illegal else "other"
        rows.append(tag("tr", *(tag("td", text(cell)) for cell in cells), class_=kind))
    return tag("table", *rows)


def _overview(history: History) -> str:
    operations: list[Drawn] = [*history.operations, *history.exchanges]
    if not operations:
        return tag("section", tag("p", "There are no operations."))
    clients = {operation.client for operation in operations}
    is_small = len(operations) <= OPERATIONS_DRAWN_MAX and len(clients) <= CLIENTS_DRAWN_MAX
    parts = [tag("h2", "All operations")]
    if is_small:
        parts += [draw_lanes(operations, history.faults), _legend(is_density=False)]
    else:
        wait_s, since_s = longest_wait(operations)
        note = (
            f"Longest time without an answer: {wait_s:.3f} s, from {since_s:.3f} s on. {left_out(operations)}"
        )
        parts += [draw_density(operations, history.faults), _legend(is_density=True)]
        parts.append(tag("p", text(note), class_="soft"))
    return tag("section", *parts)


def _legend(*, is_density: bool) -> str:
    if is_density:
        names = {"get": "answered", "worse": "unknown or failed, at its call", "fault": "fault"}
    else:
        kinds = ("get", "set", "cas", "delete", "incr", "scan", "txn", "fault")
        names = {kind: kind for kind in kinds}
    parts = [tag("span", tag("i", class_=kind), text(name)) for kind, name in names.items()]
    if not is_density:
        parts.append(tag("span", "arrow and dashes: outcome unknown, open-ended"))
        parts.append(tag("span", "pale with dashes: failed"))
    return tag("p", *parts, class_="legend soft")
