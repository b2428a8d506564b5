"""What a run has found: for programs as `summary.json`, for people in words.

The verdict is *violation* if anything happened that must not; else *unknown* if something that the run is there for
was not looked at; else *valid*.
"""

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import attrs

from trio_kv.sim.chaos.cards import KILL_KINDS, PAUSE_KINDS, Fault

Verdict = Literal["valid", "violation", "unknown"]

REASONS_MAX = 10
"""More are not printed."""


@attrs.define
class Findings:
    """What speaks against a run, while it goes on."""

    violations: list[str] = attrs.field(factory=list)
    doubts: list[str] = attrs.field(factory=list)

    @property
    def verdict(self) -> Verdict:
        """The verdict so far."""
        return "violation" if self.violations else "unknown" if self.doubts else "valid"


@attrs.frozen(kw_only=True)
class Summary:
    """A run that is over."""

    verdict: Verdict
    violations: list[str]
    doubts: list[str]
    """Why it is unknown."""
    seed: int
    command: str
    """What repeats it."""
    folder: Path
    nodes: int
    """0: not known."""
    clients: int
    seconds: float
    """For how long there were load and faults."""
    checked: int
    """Operations that a checker has seen."""
    keys: int
    stale_reads: int
    """Those that gave a value; each was judged when it came."""
    chains: int
    """Runs of pipelined requests for a key of a connection's own, the same."""
    retried: int = 0
    """Writes in a session of their client that were asked again until there was an answer."""
    repeated: int = 0
    """Answers to such writes that were told a second time."""
    watched: dict[str, int] = attrs.field(factory=dict)
    """What watches were told, and what became of them."""
    operations: dict[str, dict[str, int]]
    """By what was asked, and what became of it."""
    replies: dict[str, int]
    """By their code."""
    faults: dict[str, int]
    """By kind."""
    situations: dict[str, int]
    """How often each was met that the run must have met."""
    refusals: int
    """Faults that made no sense when they came up."""
    longest_gap_s: float
    """The longest time without an acknowledged write."""
    longest_gap_from_s: float
    recovery_s: float | None
    """How long the store took to be whole after the last fault."""

    @property
    def kills(self) -> int:
        """Nodes and processes that were killed."""
        return sum(count for kind, count in self.faults.items() if kind in KILL_KINDS)

    @property
    def pauses(self) -> int:
        """Nodes and processes that were paused."""
        return sum(count for kind, count in self.faults.items() if kind in PAUSE_KINDS)

    @property
    def partitions(self) -> int:
        """Partitions and cut links."""
        return self.faults.get("partition", 0) + self.faults.get("cut", 0)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        members = attrs.asdict(self)
        totals = {"kills": self.kills, "pauses": self.pauses, "partitions": self.partitions}
        return {**members, **totals, "folder": str(self.folder)}

    def _faults_in_words(self) -> str:
        totals = {"kill": self.kills, "pause": self.pauses, "partition": self.partitions}
        return ", ".join(f"{count:,} {kind}{'' if count == 1 else 's'}" for kind, count in totals.items())

    def in_words(self) -> str:
        """Return it as a person wants to read it."""
        rows = [
            (
                "checked",
                f"{self.checked:,} operations of {self.clients} clients on {self.keys:,} keys in {self.seconds:.0f} s",
            ),
            *(("", f"{op:<11}{_counts(outcomes)}") for op, outcomes in sorted(self.operations.items())),
            (
                "judged",
                f"{self.stale_reads:,} stale reads, {self.chains:,} chains of requests for a connection's own key",
            ),
            (
                "",
                f"{self.retried:,} writes asked again under their seq, {self.repeated:,} answers told twice",
            ),
            ("watched", _counts(self.watched) or "nothing"),
            ("faults", self._faults_in_words()),
            ("by kind", _counts(self.faults) or "none"),
            (
                "gap",
                f"{self.longest_gap_s:.1f} s without an acknowledged write, from {self.longest_gap_from_s:.1f} s on",
            ),
            (
                "recovery",
                "not reached" if self.recovery_s is None else f"{self.recovery_s:.1f} s after the last fault",
            ),
            *(("met", f"{count} x {name}") for name, count in sorted(self.situations.items())),
            ("folder", f"{self.folder}"),
            ("picture", f"{self.folder / 'timeline.html'}"),
            ("again", self.command),
        ]
        head = {
            "valid": "valid: what the clients saw can be explained by one copy of the data",
            "violation": "violation: something happened that must not",
            "unknown": "unknown: nothing wrong was seen, but not enough was seen to tell",
        }[self.verdict]
        all_reasons = [*self.violations, *self.doubts]
        reasons = [f"  - {reason}" for reason in all_reasons[:REASONS_MAX]]
        if len(all_reasons) > REASONS_MAX:
            reasons.append(f"  - and {len(all_reasons) - REASONS_MAX} more, see summary.json")
        return "\n".join([head, *reasons, *(f"  {label:<9}{text}" for label, text in rows)])


def count_situations(faults: list[Fault], required: list[str]) -> dict[str, int]:
    """Return how often each required situation was met."""
    met = Counter(fault.situation for fault in faults)
    return {situation: met[situation] for situation in required}


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
