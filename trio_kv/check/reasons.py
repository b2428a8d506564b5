"""Names the first illegal step of a history in words, and what makes it illegal.

The steps are those of a smallest part that has no order, see `counterexample`. The illegal step needs a state that the
key can't have had. The reasons below are tried in turn, from what is wrong whenever it happens to what is wrong
because of what happened before. Where none of them tells it all, the sentence lists the other steps.
"""

import math
from collections.abc import Callable, Iterable, Sequence

from trio_kv.check.effects import IMPOSSIBLE, MISSING, Step
from trio_kv.check.exchange import Exchange
from trio_kv.check.history import Operation

VALUE_CHARACTERS_MAX = 40
"""Of a value that is told; the rest is left out."""

OTHERS_TOLD_MAX = 4
"""Of the operations that have no order together."""

DIGITS_MIN, DIGITS_MAX = 3, 6
"""Of moments in seconds, after the point: as few as tell them apart."""

KINDS = (
    "unfounded conflict",
    "phantom value",
    "effect of a failed write",
    "value from the future",
    "value used twice",
    "stale read",
    "lost update",
    "lost write",
    "no order",
)


def explain(illegal: Step, steps: Sequence[Step], operations: Sequence[Operation]) -> tuple[str, str]:
    """Return what kind of violation it is, one of `KINDS`, and a sentence about it.

    Args:
        illegal: the step after whose return no order is left.
        steps: the smallest part that has no order; `illegal` is one of them.
        operations: all of the key, for what became of writes that are no steps.

    """
    words = _Words(illegal, steps, operations)
    for reason in (_of_conflict, _of_writers, _of_second_use, _of_what_came_after, _of_missing):
        found = reason(words)
        if found is not None:
            kind, because = found
            return kind, f"{words.subject}, {because}"
    others = [words.span(step) for step in words.others[-OTHERS_TOLD_MAX:]]
    if len(words.others) > len(others):
        others.append(f"{len(words.others) - len(others)} more")
    return "no order", f"{words.subject}, which has no place in any order with {' and '.join(others)}"


def describe_value(value: bytes | None) -> str:
    """Return a value as people are told it."""
    return "no key" if value is None else describe_text(value.decode(errors="replace"))


def describe_text(text: str) -> str:
    """Return a text that came from outside, not too long, and without characters that can't be seen."""
    if len(text) > VALUE_CHARACTERS_MAX:
        text = text[: VALUE_CHARACTERS_MAX - 1] + "…"
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


def describe_operation(operation: Operation | Exchange) -> str:
    """Return what was asked and what came of it, like `cas "a" → "b": conflict, "c"`."""
    if isinstance(operation, Exchange):
        return _describe_exchange(operation)
    match operation.op:
        case "set":
            asked = f"set {describe_value(operation.value)}"
        case "cas":
            asked = f"cas {describe_value(operation.expected)} → {describe_value(operation.value)}"
        case _:
            asked = operation.op
    match operation.outcome:
        case "ok":
            return asked if operation.result is None else f"{asked}: {describe_value(operation.result)}"
        case "conflict":
            return f"{asked}: conflict, {describe_value(operation.result)}"
        case "missing":
            return f"{asked}: no key"
        case outcome:
            return f"{asked}: {outcome}"


def _describe_exchange(exchange: Exchange) -> str:
    members = " ".join(
        f"{name} {describe_text(bytes(text).decode(errors='replace'))}"
        for name, text in exchange.asked.items()
        if name not in ("op", "key", "prefix", "meta", "id", "timeout")
    )
    asked = f"{exchange.op} {members}".strip()
    revision = "" if exchange.revision is None else f" @{exchange.revision}"
    if exchange.outcome != "ok":
        return f"{asked}: {exchange.outcome}{revision}"
    told = next(
        (exchange.told[name] for name in ("value", "items", "count", "results") if name in exchange.told), b""
    )
    return f"{asked}: {describe_text(bytes(told).decode(errors='replace'))}{revision}"


Reason = tuple[str, str]


class _Words:
    """The steps, and phrases for them."""

    def __init__(self, illegal: Step, steps: Sequence[Step], operations: Sequence[Operation]) -> None:
        self.illegal = illegal
        self.others = [step for step in steps if step is not illegal]
        self.operations = operations
        self._moment = moments(step.operation for step in steps)
        self.subject = self._subject()

    def moment(self, moment_s: float) -> str:
        return self._moment(moment_s)

    @property
    def state(self) -> str:
        """What the illegal step met."""
        operation = self.illegal.operation
        is_expected = operation.op == "cas" and operation.outcome == "ok"
        return describe_value(operation.expected if is_expected else operation.result)

    def deed(self, step: Step) -> str:
        """Return a step as a noun, like `client 3's set of "c3-1"`."""
        operation = step.operation
        own = operation.client == self.illegal.operation.client and step is not self.illegal
        who = "its own" if own else f"client {operation.client}'s"
        who = f"{who} {_noun(operation)}"
        return f"{who} (outcome unknown)" if operation.outcome == "unknown" else who

    def returned(self, step: Step) -> str:
        return f"{self.deed(step)} had returned at {self.moment(step.return_s)}"

    def span(self, step: Step) -> str:
        if step.return_s == math.inf:
            return f"{self.deed(step)} from {self.moment(step.call_s)} on"
        return f"{self.deed(step)} ({self.moment(step.call_s)} to {self.moment(step.return_s)})"

    def _subject(self) -> str:
        operation = self.illegal.operation
        match operation.op:
            case "get":
                did = (
                    "found no key" if operation.result is None else f"read {describe_value(operation.result)}"
                )
            case "delete" if operation.result is None:
                did = "found no key to delete"
            case "delete":
                did = f"deleted {describe_value(operation.result)}"
            case "cas" if operation.outcome == "conflict":
                did = f"met {describe_value(operation.result)} with a {_noun(operation)}"
            case _:
                did = f"succeeded with a {_noun(operation)}"
        asked = self.moment(operation.call_s)
        return f"client {operation.client} {did} at {self.moment(self.illegal.return_s)} (asked at {asked})"


def moments(operations: Iterable[Operation | Exchange]) -> Callable[[float], str]:
    """Return what writes moments with as many digits as tell those of the operations apart."""
    times = {
        moment_s for each in operations for moment_s in (each.call_s, each.return_s) if moment_s is not None
    }
    digits = DIGITS_MIN
    while digits < DIGITS_MAX and len({f"{moment_s:.{digits}f}" for moment_s in times}) < len(times):
        digits += 1
    return lambda moment_s: f"{moment_s:.{digits}f} s"


def _noun(operation: Operation) -> str:
    match operation.op:
        case "get":
            return (
                "read that found no key"
                if operation.result is None
                else f"read of {describe_value(operation.result)}"
            )
        case "set":
            return f"set of {describe_value(operation.value)}"
        case "delete":
            return "delete" if operation.result is None else f"delete of {describe_value(operation.result)}"
        case _:
            return f"cas from {describe_value(operation.expected)} to {describe_value(operation.value)}"


def _of_conflict(words: _Words) -> Reason | None:
    if words.illegal.needs != IMPOSSIBLE:
        return None
    return "unfounded conflict", "which is just what it expected"


def _of_writers(words: _Words) -> Reason | None:
    """Find fault with where its value comes from."""
    illegal = words.illegal
    if illegal.needs <= MISSING:
        return None
    operation = illegal.operation
    value = operation.expected if operation.op == "cas" and operation.outcome == "ok" else operation.result
    written = [each for each in words.operations if each.value == value and each is not operation]
    able = [each for each in written if each.outcome not in ("failed", "conflict")]
    if not written:
        return "phantom value", "but nobody ever wrote it"
    if not able:
        writer = min(written, key=lambda each: each.call_s)
        fate = "had failed" if writer.outcome == "failed" else "met a conflict"
        return "effect of a failed write", (
            f"but client {writer.client}'s {writer.op} of it {fate}, so it must never take effect"
        )
    first = min(able, key=lambda each: each.call_s)
    if first.call_s > illegal.return_s:
        return "value from the future", (
            f"but client {first.client}'s {first.op} of it was asked for only at {words.moment(first.call_s)}"
        )
    return None


def _of_second_use(words: _Words) -> Reason | None:
    """Find another step that used up a value that was written once."""
    illegal = words.illegal
    if illegal.needs <= MISSING or not illegal.is_write:
        return None
    rivals = [step for step in words.others if step.needs == illegal.needs and step.is_write]
    if not rivals or sum(step.leaves == illegal.needs for step in words.others) > 1:
        return None
    return "value used twice", (
        f"but {words.span(rivals[0])} used up the same {words.state}, which was written only once"
    )


def _of_what_came_after(words: _Words) -> Reason | None:
    """Find what shows that its value was over before it was asked."""
    illegal, state = words.illegal, words.illegal.needs
    if state <= MISSING:
        return None
    kind = "lost update" if illegal.is_write else "stale read"
    kin = [step for step in words.others if state in (step.leaves, step.needs)]
    writers = [step for step in kin if step.leaves == state]
    finders = [_after_its_writers, _after_its_like] if len(writers) <= 1 else [_after_its_writers]
    for find in finders:
        for later in _shown_before(illegal, words.others):
            because = find(words, later, kin) if _shown(later) != state else None
            if because is not None:
                return kind, because
    return None


def _after_its_writers(words: _Words, later: Step, kin: Sequence[Step]) -> str | None:
    if all(step.return_s < later.call_s for step in kin if step.leaves == words.illegal.needs):
        return f"but {words.returned(later)} and nothing wrote {words.state} afterwards"
    return None


def _after_its_like(words: _Words, later: Step, kin: Sequence[Step]) -> str | None:
    """Find a step that shows the value, which has one writer, to be over: it met another value that came later."""
    is_unique = _shown(later) > MISSING
    if any(step.leaves == _shown(later) and (step is later or is_unique) for step in kin):
        return f"but {words.returned(later)}, after {words.state}, and nothing wrote it again"
    for before in kin:
        if before.return_s < later.call_s:
            return (
                f"but {words.returned(before)}, then {words.returned(later)}, "
                f"and nothing wrote {words.state} again"
            )
        for other in words.others if is_unique else ():
            if before.return_s < other.call_s and _shown(later) in (other.leaves, other.needs):
                return (
                    f"but {words.returned(later)}, and its value came after {words.state}: "
                    f"{words.deed(other)} was asked for at {words.moment(other.call_s)}, when "
                    f"{words.returned(before)}"
                )
    return None


def _of_missing(words: _Words) -> Reason | None:
    """Find what shows that the key was there and was not deleted."""
    illegal = words.illegal
    if illegal.needs != MISSING:
        return None
    deletes = [step for step in words.others if step.leaves == MISSING]
    for step in _shown_before(illegal, words.others):
        if _shown(step) > MISSING and all(delete.return_s < step.call_s for delete in deletes):
            return "lost write", f"but {words.returned(step)} and nothing deleted the key afterwards"
    return None


def _shown_before(illegal: Step, others: Sequence[Step]) -> list[Step]:
    """Return the steps that had returned before it was asked, writes first."""
    before = [step for step in others if step.return_s < illegal.call_s]
    return sorted(before, key=lambda step: (not step.is_write, step.call_s))


def _shown(step: Step) -> int:
    """Return the state that the key had once the step had taken effect."""
    return step.leaves if step.is_write else step.needs
