"""Many operations at once: how many were answered when, in all and by client, and where they were not."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from trio_kv.check.history import Drawn, Fault
from trio_kv.check.picture_svg import (
    LEFT,
    RIGHT,
    Axis,
    even_axis,
    fault_rows,
    grid,
    round_moments,
    svg,
    tag,
    text,
)

SLICES = 120
"""Columns of the picture."""
LANES_MAX = 48
"""Clients that get a lane of their own."""
CHART = 110
LANE = 13
GAP = 14
"""Between chart and lanes."""

Cell = tuple[int, int]
"""(client, slice)"""


def draw_density(operations: Sequence[Drawn], faults: Sequence[Fault]) -> str:
    """Return a chart of answers a second, and below it a lane for each client."""
    return _Density(operations, faults).draw(faults)


def longest_wait(operations: Sequence[Drawn]) -> tuple[float, float]:
    """Return the longest time without an answer of known outcome to anybody: how long, and since when, in seconds."""
    answers = sorted(
        operation.return_s
        for operation in operations
        if operation.return_s is not None and operation.outcome in ("ok", "missing", "conflict")
    )
    waits = [(after - before, before) for before, after in pairwise(answers)]
    return max(waits, default=(0.0, 0.0))


def left_out(operations: Sequence[Drawn]) -> str:
    """Return a note about clients that are not drawn; empty if all are."""
    count = len({operation.client for operation in operations}) - LANES_MAX
    return f"The lanes of {count} more clients are not drawn." if count > 0 else ""


class _Density:
    """Counts operations by client and slice of time, and draws the counts."""

    def __init__(self, operations: Sequence[Drawn], faults: Sequence[Fault]) -> None:
        self._axis = _axis(operations, faults)
        self._slice_s = (self._axis.to_s - self._axis.from_s) / SLICES
        self._good: Counter[Cell] = Counter()
        self._bad: Counter[Cell] = Counter()
        for operation in operations:
            is_bad = operation.outcome in ("unknown", "failed")
            moment_s = operation.call_s if is_bad else operation.end_s
            place = min(SLICES - 1, int((moment_s - self._axis.from_s) / self._slice_s))
            (self._bad if is_bad else self._good)[operation.client, place] += 1
        self._clients = sorted({operation.client for operation in operations})
        self._count = len(operations)

    def draw(self, faults: Sequence[Fault]) -> str:
        """Return chart and lanes, below the faults."""
        lanes = self._clients[:LANES_MAX]
        height = CHART + GAP + len(lanes) * LANE
        bands, top = fault_rows(faults, self._axis, height)
        lines = grid(
            self._axis, round_moments(self._axis), lambda moment_s: f"{moment_s:g} s", top, top + height
        )
        label = f"{self._count} operations of {len(self._clients)} clients over time"
        parts = [self._lane(client, top + CHART + GAP + row * LANE) for row, client in enumerate(lanes)]
        return svg(top + height + 24, lines, bands, self._chart(top), *parts, label=label)

    def _title(self, place: int, words: str) -> str:
        from_s = self._axis.from_s + place * self._slice_s
        return tag("title", text(f"{from_s:.2f} s to {from_s + self._slice_s:.2f} s\n{words}"))

    def _chart(self, top: float) -> str:
        good, bad = _by_slice(self._good), _by_slice(self._bad)
        most = max(good[place] + bad[place] for place in range(SLICES)) or 1
        bottom = top + CHART
        parts = []
        for place in range(SLICES):
            rate = f"{good[place] / self._slice_s:,.0f} answers a second, {bad[place]} unknown or failed"
            title = self._title(place, rate)
            y = bottom
            for count, kind, height_min in ((good[place], "area", 1.5), (bad[place], "worse", 3)):
                if count:
                    # What went wrong can be seen, however little it is.
                    height = max(count / most * (CHART - 14), height_min)
                    y -= height
                    parts.append(_box(title, place, y, height, class_=kind))
        for words, y in (
            (f"{most / self._slice_s:,.0f}/s", top + 20),
            ("answers", top + CHART / 2 + 8),
            ("0", bottom),
        ):
            parts.append(tag("text", words, x=LEFT - 8, y=y, class_="soft", text_anchor="end"))
        parts.append(tag("line", x1=LEFT, x2=RIGHT, y1=bottom, y2=bottom, class_="grid"))
        return "".join(parts)

    def _lane(self, client: int, y: float) -> str:
        most = max([1, *self._good.values()])
        name = f"client {client}"
        parts = [tag("text", name, x=LEFT - 8, y=y + LANE - 3, class_="soft", text_anchor="end")]
        for place in range(SLICES):
            good, bad = self._good[client, place], self._bad[client, place]
            if good or bad:
                title = self._title(place, f"{name}: {good} answered, {bad} unknown or failed")
                depth = f"{0.15 + 0.85 * good / most:.2f}" if good else "0"
                parts.append(_box(title, place, y + 1, LANE - 2, class_="cell", fill_opacity=depth))
                if bad:
                    parts.append(_box(title, place, y + LANE - 5, 4, class_="mark"))
        return "".join(parts)


def _axis(operations: Sequence[Drawn], faults: Sequence[Fault]) -> Axis:
    from_s = min([*(each.call_s for each in operations), *(fault.from_s for fault in faults)])
    ends = [each.end_s for each in operations]
    return even_axis(from_s, max([*ends, *(fault.to_s for fault in faults if fault.to_s is not None)]))


def _by_slice(cells: Counter[Cell]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for (_, place), count in cells.items():
        counts[place] += count
    return counts


def _box(title: str, place: int, y: float, height: float, **attributes: str) -> str:
    width = (RIGHT - LEFT) / SLICES
    return tag("rect", title, x=LEFT + place * width, y=y, width=width - 0.6, height=height, **attributes)
