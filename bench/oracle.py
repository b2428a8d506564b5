#!/usr/bin/env python3
"""How long the oracle takes for a history, and whether it sees one stale read in it.

    python bench/oracle.py --operations 100000 --clients 32 --keys 10 --unknown 0.01

The history is made up from a seed: clients without pause, each operation takes effect at one moment between its
call and its return, an unknown one at any later moment, or never. Each value is written once.
"""

import argparse
import random
import time
from collections.abc import Iterator

import attrs

from trio_kv.check.history import Operation, decode_history, encode_history
from trio_kv.check.linearizability import Verdict, check_history

KINDS = ("get", "set", "cas", "delete")
KIND_WEIGHTS = (50, 25, 20, 5)
LATENCY_MEAN_S = 0.005
UNKNOWN_DELAY_MEAN_S = 0.5


@attrs.frozen
class Asked:
    """A request, before anybody knows its outcome."""

    client: int
    op: str
    key: str
    call_s: float
    return_s: float
    is_unknown: bool
    effect_s: float
    """When it takes effect; an unknown one may be so late that the run is over."""


def ask(rng: random.Random, arguments: argparse.Namespace) -> Iterator[Asked]:
    """Yield the requests of all clients."""
    for client in range(arguments.clients):
        now_s = rng.random() * LATENCY_MEAN_S
        for _ in range(arguments.operations // arguments.clients):
            call_s, now_s = now_s, now_s + rng.expovariate(1 / LATENCY_MEAN_S)
            is_unknown = rng.random() < arguments.unknown
            effect_s = rng.uniform(call_s, now_s)
            if is_unknown:
                effect_s = call_s + rng.expovariate(1 / UNKNOWN_DELAY_MEAN_S)
            op = rng.choices(KINDS, KIND_WEIGHTS)[0]
            key = f"key-{rng.randrange(arguments.keys)}"
            yield Asked(client + 1, op, key, call_s, now_s, is_unknown, effect_s)
            now_s += 1e-6


def run(rng: random.Random, requests: list[Asked]) -> list[Operation]:
    """Let all requests take effect, one after the other, and note what the clients are told."""
    store: dict[str, bytes] = {}
    history = []
    for number, asked in enumerate(sorted(requests, key=lambda each: each.effect_s)):
        held = store.get(asked.key)
        value = b'"c%d-%d"' % (asked.client, number) if asked.op in ("set", "cas") else None
        expected = held if asked.op == "cas" and rng.random() < 0.7 else None
        outcome, result = "ok", None
        if asked.op in ("get", "delete"):
            outcome, result = ("missing", None) if held is None else ("ok", held)
        elif asked.op == "cas" and held != expected:
            outcome, result = "conflict", held
        if outcome == "ok" and value is not None:
            store[asked.key] = value
        elif asked.op == "delete":
            store.pop(asked.key, None)
        if asked.is_unknown:
            outcome, result = "unknown", None
        history.append(
            Operation(
                client=asked.client,
                op=asked.op,
                key=asked.key,
                call_s=asked.call_s,
                return_s=None if asked.is_unknown else asked.return_s,
                outcome=outcome,
                value=value,
                expected=expected,
                result=result,
            )
        )
    return sorted(history, key=lambda each: each.call_s)


def make_stale(history: list[Operation]) -> list[Operation]:
    """Return the history with one read, late in it, of what another one on the same key read long before."""
    reads = [number for number, each in enumerate(history) if each.op == "get" and each.outcome == "ok"]
    late = reads[len(reads) * 9 // 10]
    early = next(number for number in reads[len(reads) // 2 :] if history[number].key == history[late].key)
    changed = list(history)
    changed[late] = attrs.evolve(history[late], result=history[early].result)
    return changed


def measure(name: str, history: list[Operation]) -> Verdict:
    """Judge a history and print how long it took."""
    begin, begin_cpu = time.perf_counter(), time.process_time()
    verdict = check_history(history)
    took_s, took_cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
    print(f"{name}: {verdict.outcome} in {took_s:.2f} s, {took_cpu_s:.2f} s of CPU time")
    return verdict


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--keys", type=int, default=10)
    parser.add_argument("--unknown", type=float, default=0.01, help="the share of unknown outcomes")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    history = run(rng, list(ask(rng, arguments)))
    unknown = sum(each.outcome == "unknown" for each in history)
    print(
        f"{len(history):,} operations by {arguments.clients} clients over {arguments.keys} keys in "
        f"{history[-1].call_s:.1f} s, {unknown:,} of unknown outcome, seed {arguments.seed}"
    )
    begin = time.perf_counter()
    lines = list(encode_history(history))
    assert decode_history(lines).operations == tuple(history)
    print(f"written and read back: {sum(map(len, lines)):,} bytes in {time.perf_counter() - begin:.2f} s")
    sound = measure("as it was", history)
    stale = measure("with one stale read", make_stale(history))
    print(stale.words)
    if not sound.is_valid or stale.is_valid:
        raise SystemExit("the verdict is wrong")


if __name__ == "__main__":
    main()
