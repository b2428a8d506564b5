"""Keys and sessions end when they may, and because something is due (scenario C6).

What an `Expire` entry takes away is judged with every other entry (`check.reference`): by it nothing ends before its
time, in cluster time. Here it is judged that cluster time is no faster than time itself, and that nothing is written
while nothing is due. That what is due does end is asked for in the end, when all is healed.
"""

import math
from collections.abc import Callable, Sequence

from trio_kv.check.reference import Reference
from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.kv.commands import Expire
from trio_kv.raft.entry import Entry, LogPosition

NEVER_US = 1 << 62
ROUNDING_S = 1e-3
"""What times may differ by because they are rounded."""


class ExpiryRules(Judge):
    """Judges cluster time, and each proposal to let something end.

    Let an entry stand at the cluster time *c*, and be appended by its leader when *t* could have passed by the fastest
    of all clocks. From no entry of a log to a later one may *c* grow by more than *t*: a key that the first one has set
    would lose some of its time. So *c - t* never rises along the committed log.

    Args:
        now: the world's time, in seconds.
        leap_s: what cluster time may take of a leader's clock that leaps, whatever it leaps by.

    """

    def __init__(self, now: Callable[[], float], leap_s: float) -> None:
        """Have seen nothing; see the class."""
        self._now = now
        self._leap_s = leap_s
        self._rate = 1.0
        self._has_leapt = False
        self._passed_s = self._seen_s = 0.0
        self._appended: dict[LogPosition, float] = {}
        self._least_lead_s = float("inf")
        self._reference = Reference()
        self._first_due_us = [NEVER_US]
        """After each committed entry, when something is due next."""
        self.proposals = 0
        """How often it was proposed that something ends."""

    @property
    def rate(self) -> float:
        """How much faster than time that of the cluster may have passed; without a bound if a clock leapt."""
        return math.inf if self._has_leapt else self._rate

    def clock_may_run(self, rate: float) -> None:
        """Note that a clock runs at this rate from now on; it may do so to the end."""
        self._passed()
        self._rate = max(self._rate, rate)

    def clock_leapt(self) -> None:
        """Note that a clock was put forward."""
        self._passed_s += self._leap_s
        self._has_leapt = True

    def _passed(self) -> float:
        """Return how much time can have passed by the fastest of all clocks."""
        now = self._now()
        self._passed_s += (now - self._seen_s) * self._rate
        self._seen_s = now
        return self._passed_s

    def log_changed(self, view: View, kept: int, dropped: Sequence[Entry], added: Sequence[Entry]) -> None:
        """See entries appended, by their leader first."""
        del kept, dropped
        raft = view.raft
        for entry in added:
            place = LogPosition(entry.index, entry.term)
            if place in self._appended:
                continue
            self._appended[place] = self._passed()
            if raft.is_leader and entry.term == raft.term and isinstance(entry.command, Expire):
                self._judge_proposal(view, entry)

    def _judge_proposal(self, view: View, entry: Entry) -> None:
        self.proposals += 1
        due_us = self._first_due_us[view.applied]
        if due_us > entry.time_us:
            when = "nothing ever ends" if due_us == NEVER_US else f"the first thing is due at {due_us}"
            raise Violation(
                f"{view} lets end what is due at cluster time {entry.time_us}, but after entry {view.applied} {when}"
            )

    def committed(self, view: View, first: int, last: int) -> None:
        """Compare cluster time with time."""
        for entry in view.entries[first - 1 : last]:
            if entry.index == len(self._first_due_us):
                self._go_on(entry)

    def _go_on(self, entry: Entry) -> None:
        self._reference.apply(entry)
        self._first_due_us.append(self._reference.first_due_us(NEVER_US))
        appended_s = self._appended.get(LogPosition(entry.index, entry.term))
        if appended_s is None:
            return  # It stood in the log of a cluster that was begun elsewhere.
        lead_s = entry.time_us / 1_000_000 - appended_s
        if lead_s > self._least_lead_s + ROUNDING_S:
            ahead_s = lead_s - self._least_lead_s
            raise Violation(
                f"entry {entry} stands at cluster time {entry.time_us}: {ahead_s:.6f} s more than can have passed"
                " since one before it"
            )
        self._least_lead_s = min(self._least_lead_s, lead_s)
