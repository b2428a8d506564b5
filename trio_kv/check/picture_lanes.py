"""Operations one by one: a lane for each client, a bar from call to return, what it was and what came of it."""

from collections import defaultdict
from collections.abc import Sequence

from trio_kv.check.history import Drawn, Fault
from trio_kv.check.picture_svg import (
    CHARACTER,
    LEFT,
    RIGHT,
    Axis,
    even_axis,
    fault_rows,
    fit,
    grid,
    round_moments,
    stretched_axis,
    svg,
    tag,
    text,
)
from trio_kv.check.reasons import describe_operation, describe_text, moments

LANE = 40
BAR = 14
BAR_WIDTH_MIN = 4
OPEN_WIDTH_MIN = 26
LABELS_MAX = 16
"""With more operations, only those that have no order get a label."""


def draw_lanes(operations: Sequence[Drawn], faults: Sequence[Fault]) -> str:
    """Return all operations, to scale."""
    ends = [operation.end_s for operation in operations]
    axis = even_axis(min(operation.call_s for operation in operations), max(ends))
    return _Lanes(operations, axis).draw(faults, round_moments(axis))


def draw_window(
    operations: Sequence[Drawn], faults: Sequence[Fault], shown: Sequence[Drawn], illegal: Drawn
) -> str:
    """Return the operations around a violation, out of scale, so that their order can be seen.

    Args:
        operations: to draw.
        faults: of the whole history.
        shown: those that have no order; they are drawn strongly.
        illegal: the one of them that is marked.

    """
    times = {each for operation in operations for each in (operation.call_s, operation.end_s)}
    axis = stretched_axis(times)
    marks = [illegal.end_s, illegal.call_s]
    marks += [each for operation in shown for each in (operation.end_s, operation.call_s)]
    return _Lanes(operations, axis, shown, illegal).draw(faults, [*marks, *sorted(times)])


class _Lanes:
    """Draws operations along an axis."""

    def __init__(
        self,
        operations: Sequence[Drawn],
        axis: Axis,
        shown: Sequence[Drawn] = (),
        illegal: Drawn | None = None,
    ) -> None:
        self._axis = axis
        self._illegal = illegal
        self._moment = moments(shown or operations)
        self._strong = {id(operation) for operation in shown or operations}
        self._is_all_labelled = len(operations) <= LABELS_MAX
        self._is_one_key = len({operation.key for operation in operations}) == 1
        self._by_client: dict[int, list[Drawn]] = defaultdict(list)
        for operation in sorted(operations, key=lambda each: each.call_s):
            self._by_client[operation.client].append(operation)

    def draw(self, faults: Sequence[Fault], marks: Sequence[float]) -> str:
        """Return the lanes, below the faults, with moments marked as far as there is room."""
        height = len(self._by_client) * LANE
        bands, top = fault_rows(faults, self._axis, height)
        backs, bars = [], []
        for row, client in enumerate(sorted(self._by_client)):
            y = top + row * LANE
            backs.append(
                tag("rect", x=LEFT, y=y + 2, width=RIGHT - LEFT, height=LANE - 4, rx=3, class_="lane")
            )
            backs.append(tag("text", f"client {client}", x=LEFT - 8, y=y + LANE / 2 + 4, text_anchor="end"))
            bars += self._lane(self._by_client[client], y)
        lines = grid(self._axis, marks, self._moment, top, top + height)
        if self._illegal is not None:
            place = self._axis.at(self._illegal.end_s)
            lines += tag("line", x1=place, x2=place, y1=top, y2=top + height, class_="moment")
        count = sum(len(lane) for lane in self._by_client.values())
        label = f"{count} operations of {len(self._by_client)} clients over time"
        return svg(top + height + 24, *backs, bands, lines, *bars, label=label)

    def _lane(self, lane: Sequence[Drawn], y: float) -> list[str]:
        """Return bars and labels, from right to left, as a label has room up to the next one."""
        parts = []
        bar_limit: float = RIGHT
        label_limit: float = RIGHT
        for operation in reversed(lane):
            is_strong = id(operation) in self._strong
            label = ""
            left = self._axis.at(operation.call_s)
            if is_strong or self._is_all_labelled:
                label, label_limit = self._label(operation, left, label_limit, y + LANE - BAR - 11)
            bar = self._bar(operation, left, bar_limit, y + LANE - BAR - 5)
            title = tag("title", text(_title(operation)))
            parts.append(tag("g", title, bar, label, class_="strong" if is_strong else "aside"))
            bar_limit = left
        return parts

    def _bar(self, operation: Drawn, left: float, limit: float, top: float) -> str:
        right = self._axis.at(operation.end_s)
        is_open = operation.outcome == "unknown" or operation.return_s is None
        if is_open:
            right = max(min(limit - 3, RIGHT - 2), left + OPEN_WIDTH_MIN)
        width = max(right - left, BAR_WIDTH_MIN)
        kinds = ["bar", operation.op] + [operation.outcome] * (operation.outcome in ("failed", "unknown"))
        parts = [tag("rect", x=left, y=top, width=width, height=BAR, rx=2, class_=" ".join(kinds))]
        if is_open:
            middle, tip = top + BAR / 2, left + width - 3
            arrow = f"M{tip - 6:.1f} {middle - 4:.1f}L{tip:.1f} {middle:.1f}L{tip - 6:.1f} {middle + 4:.1f}"
            parts.append(tag("path", d=arrow, class_=f"open {operation.op}"))
        if operation is self._illegal:
            box = tag("rect", x=left - 3, y=top - 3, width=width + 6, height=BAR + 6, rx=4, class_="illegal")
            parts.append(box)
        return "".join(parts)

    def _label(self, operation: Drawn, left: float, limit: float, y: float) -> tuple[str, float]:
        """Return what was done, and where that begins: at the bar, or further left if it would pass the edge."""
        words = describe_operation(operation)
        if not self._is_one_key:
            words = f"{describe_text(operation.key)}: {words}"
        kind = "bad" if operation is self._illegal else "label"
        if limit == RIGHT:
            left = max(LEFT, min(left, RIGHT - 5 - (len(words) + 0.5) * CHARACTER))
        words = fit(words, limit - left - 4)
        return tag("text", text(words), x=left, y=y, class_=kind) if words else "", min(left, limit)


def _title(operation: Drawn) -> str:
    end = "never answered" if operation.return_s is None else f"answered at {operation.return_s:.6f} s"
    node = f" by node {operation.node}" if operation.node else ""
    late = (
        "\nit may take effect at any time after its call, or never" if operation.outcome == "unknown" else ""
    )
    return (
        f"client {operation.client}, key {describe_text(operation.key)}\n{describe_operation(operation)}\n"
        f"asked at {operation.call_s:.6f} s, {end}{node}{late}"
    )
