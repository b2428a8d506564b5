"""The oracle against a brute force that tries all orders, on histories with and without an order."""

import math
import random
from collections import Counter

import attrs
import pytest

from trio_kv.check import blocks, search
from trio_kv.check.effects import prepare
from trio_kv.check.history import Operation
from trio_kv.check.linearizability import check_history

SEEDS_A_TEST = 500
KINDS = ("get", "set", "delete", "cas")
KIND_WEIGHTS = ((4, 3, 1, 2), (2, 3, 3, 1), (2, 1, 3, 4))


@attrs.frozen
class Asked:
    client: int
    op: str
    call_s: float
    return_s: float
    effect_s: float
    fate: str


def ask(rng: random.Random, clients: int, count: int, unknown: float) -> list[Asked]:
    """Return what clients ask for one after the other, in the order in which it takes effect; math.inf is never."""
    free_s = [0.0] * clients
    weights = rng.choice(KIND_WEIGHTS)
    requests = []
    for _ in range(count):
        client = min(range(clients), key=lambda each: free_s[each])
        call_s = free_s[client] + rng.random() / 2
        free_s[client] = return_s = call_s + rng.expovariate(1) + 1e-6
        effect_s, fate = rng.uniform(call_s, return_s), "known"
        if rng.random() < unknown:
            fate = "unknown"
            effect_s = call_s + rng.expovariate(0.3) if rng.random() < 0.6 else math.inf
        elif rng.random() < 0.05:
            effect_s, fate = math.inf, "failed"
        op = rng.choices(KINDS, weights)[0]
        requests.append(Asked(client, op, call_s, return_s, effect_s, fate))
    return sorted(requests, key=lambda each: each.effect_s)


def run(rng: random.Random, requests: list[Asked], values: int | None) -> list[Operation]:
    """Return what the clients are told by one register; each value is new, or one of a few."""
    held: bytes | None = None
    history = []
    for number, asked in enumerate(requests):
        new = b'"c%d-%d"' % (asked.client, number) if values is None else b"%d" % rng.randrange(values)
        value = new if asked.op in ("set", "cas") else None
        expected = rng.choice([held, held, None, b"0", b"1"]) if asked.op == "cas" else None
        outcome, result = "ok", None
        if asked.effect_s == math.inf:
            outcome = asked.fate
        else:
            if asked.op in ("get", "delete"):
                outcome, result = ("missing", None) if held is None else ("ok", held)
            elif asked.op == "cas" and held != expected:
                outcome, result = "conflict", held
            if asked.op == "delete":
                held = None
            elif outcome == "ok" and value is not None:
                held = value
            if asked.fate == "unknown":
                outcome, result = "unknown", None
        return_s = None if outcome == "unknown" else asked.return_s
        history.append(
            Operation(
                asked.client,
                asked.op,
                "k",
                asked.call_s,
                return_s,
                outcome,
                value=value,
                expected=expected,
                result=result,
            )
        )
    return sorted(history, key=lambda each: each.call_s)


def spoil(rng: random.Random, history: list[Operation]) -> list[Operation]:
    """Return the history with one answer changed; it may happen to have an order still."""
    values = [*sorted({each.value for each in history if each.value is not None}), None]
    spoilt = list(history)
    for number in rng.sample(range(len(history)), len(history)):
        each, other = history[number], rng.choice(values)
        if each.outcome in ("ok", "missing") and each.op in ("get", "delete"):
            outcome = "missing" if other is None else "ok"
            spoilt[number] = attrs.evolve(each, outcome=outcome, result=other)
        elif each.outcome == "conflict":
            spoilt[number] = attrs.evolve(each, result=other)
        elif each.outcome == "ok":
            spoilt[number] = attrs.evolve(each, outcome="failed")
        elif each.op == "set":
            spoilt[number] = attrs.evolve(each, outcome="ok", return_s=each.call_s + 1)
        else:
            continue
        break
    return spoilt


def generate(seed: int) -> list[Operation]:
    rng = random.Random(seed)
    values = None if rng.random() < 0.6 else rng.randint(1, 4)
    requests = ask(rng, rng.randint(2, 4), rng.randint(3, 9), rng.choice([0, 0.1, 0.4]))
    history = run(rng, requests, values)
    for _ in range(rng.randint(0, 5)):
        history = spoil(rng, history)
    return history


def answer(operation: Operation, state: bytes | None) -> tuple[str, bytes | None, bytes | None]:
    """Return outcome, result and next state, as the protocol has them."""
    match operation.op:
        case "get":
            return ("missing", None, None) if state is None else ("ok", state, state)
        case "set":
            return "ok", None, operation.value
        case "delete":
            return ("missing", None, None) if state is None else ("ok", state, None)
        case _:
            if state == operation.expected:
                return "ok", None, operation.value
            return "conflict", state, state


def has_order(history: list[Operation]) -> bool:
    """Try all orders."""
    operations = [each for each in history if each.outcome != "failed"]
    returns = [
        math.inf if each.return_s is None or each.outcome == "unknown" else each.return_s
        for each in operations
    ]

    def goes_on(rest: frozenset[int], state: bytes | None) -> bool:
        if all(operations[number].outcome == "unknown" for number in rest):
            return True
        for number in sorted(rest):
            operation = operations[number]
            if any(returns[other] < operation.call_s for other in rest if other != number):
                continue
            outcome, result, after = answer(operation, state)
            is_told_so = operation.outcome == "unknown" or (outcome, result) == (
                operation.outcome,
                operation.result,
            )
            if is_told_so and goes_on(rest - {number}, after):
                return True
        return False

    return goes_on(frozenset(range(len(operations))), None)


@pytest.mark.parametrize("part", range(6))
def test_same_verdict_as_all_orders(part: int) -> None:
    """On 3,000 histories with unknown and failed outcomes, each way to judge agrees with trying all orders."""
    counts: Counter[bool] = Counter()
    by_blocks = 0
    for seed in range(part * SEEDS_A_TEST, (part + 1) * SEEDS_A_TEST):
        history = generate(seed)
        due = has_order(history)
        counts[due] += 1
        steps = prepare(history)
        assert search.find_order(steps, 10**6) is due, seed
        if blocks.has_unique_values(steps):
            by_blocks += 1
            assert blocks.is_in_order(steps) is due, seed
        assert check_history(history).is_valid is due, seed
    assert min(counts.values()) > SEEDS_A_TEST * 0.4, f"neither kind may be rare: {counts}"
    assert SEEDS_A_TEST * 0.5 < by_blocks < SEEDS_A_TEST * 0.95, "nor unique values, nor others"


def test_both_judges_agree_on_longer_histories() -> None:
    """Blocks and search agree where there are too many orders to try them all."""
    outcomes: Counter[bool] = Counter()
    for seed in range(300):
        rng = random.Random(seed)
        history = run(rng, ask(rng, rng.randint(2, 8), 60, rng.choice([0, 0.05, 0.2])), None)
        steps = prepare(spoil(rng, history) if seed % 3 else history)
        if blocks.has_unique_values(steps):
            verdict = blocks.is_in_order(steps)
            assert search.find_order(steps, 10**6) is verdict, seed
            outcomes[verdict] += 1
    assert min(outcomes.values()) > 80, outcomes


def test_smallest_part_has_no_order_and_is_needed() -> None:
    """What is shown of a violation has no order by itself, and needs its illegal step."""
    seen = 0
    for seed in range(10_000, 11_200):
        for broken in check_history(generate(seed)).violations:
            seen += 1
            part = list(broken.operations)
            assert not has_order(part), seed
            assert broken.illegal in part, seed
            assert broken.words.startswith(f"client {broken.illegal.client} "), seed
    assert seen > 400


def test_illegal_step_is_the_first() -> None:
    """Up to the moment before the illegal step's return, the history has an order; with it, none."""
    seen = 0
    for seed in range(20_000, 21_000):
        history = generate(seed)
        for broken in check_history(history).violations:
            seen += 1
            assert broken.illegal.return_s is not None
            assert has_order(known_until(history, math.nextafter(broken.illegal.return_s, 0))), seed
            assert not has_order(known_until(history, broken.illegal.return_s)), seed
    assert seen > 300


def known_until(history: list[Operation], end_s: float) -> list[Operation]:
    """Return what was known at a moment, and in hindsight what had no effect."""
    known = []
    for each in history:
        if each.call_s > end_s:
            continue
        if each.return_s is None or each.return_s <= end_s:
            known.append(each)
        elif each.op != "get" and each.outcome == "ok":
            known.append(attrs.evolve(each, outcome="unknown", return_s=None, result=None))
    return known
