"""Parts of a picture: elements, axes of time, and faults as bands.

All text and all attributes go through `tag` and `text`, which escape them: keys, values and names of faults come from
outside.
"""

import html
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import attrs

from trio_kv.check.history import Fault
from trio_kv.check.reasons import describe_text

WIDTH = 1160
LEFT = 96
"""Where time begins; to the left of it stand the names of the lanes."""
RIGHT = WIDTH - 16
CHARACTER = 6.7
"""Width of a character of 11 px in a fixed-width font, and a little more."""
TICK_GAP_MIN = 84
FAULT_ROW = 20


def tag(tag_name: str, *content: str, **attributes: str | float) -> str:
    """Return an element; its content is markup already. `class_` is class, `text_anchor` text-anchor."""
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{html.escape(_number(value))}"'
        for name, value in attributes.items()
    )
    return f"<{tag_name}{written}>{''.join(content)}</{tag_name}>"


def text(words: str) -> str:
    """Return words as markup."""
    return html.escape("".join(each if each.isprintable() or each == "\n" else "�" for each in words))


def svg(height: float, *content: str, label: str) -> str:
    """Return a picture as wide as all others."""
    box = f"0 0 {WIDTH} {_number(height)}"
    return tag("div", tag("svg", *content, viewBox=box, role="img", aria_label=label), class_="scroll")


def fit(words: str, width: float) -> str:
    """Return as much of the words as fits into a width; nothing if that is too little to read."""
    room = int(width / CHARACTER)
    if len(words) <= room:
        return words
    return words[: room - 1] + "…" if room >= 4 else ""


@attrs.frozen
class Axis:
    """Time from left to right, in pieces that are linear."""

    stops: Sequence[tuple[float, float]]
    """(moment, place), rising."""

    def at(self, moment_s: float) -> float:
        """Return the place of a moment; moments out of sight go to the edge."""
        first_s, place = self.stops[0]
        if moment_s <= first_s:
            return place
        for (from_s, left), (to_s, right) in pairwise(self.stops):
            if moment_s <= to_s:
                return left + (right - left) * (moment_s - from_s) / (to_s - from_s)
        return self.stops[-1][1]

    @property
    def from_s(self) -> float:
        """Where it begins."""
        return self.stops[0][0]

    @property
    def to_s(self) -> float:
        """Where it ends."""
        return self.stops[-1][0]


def even_axis(from_s: float, to_s: float) -> Axis:
    """Return an axis on which all seconds are equally long."""
    return Axis([(from_s, LEFT), (to_s if to_s > from_s else from_s + 1, RIGHT)])


def stretched_axis(moments: Iterable[float]) -> Axis:
    """Return an axis on which moments close together are told apart, and long waits are short."""
    known = sorted(set(moments))
    gaps = [after - before for before, after in pairwise(known)]
    if not gaps:
        return even_axis(known[0], known[0])
    middle = sorted(gaps)[len(gaps) // 2]
    widths = [min(max(gap / middle, 0.6), 2.5) for gap in gaps]
    # A little room on both sides, so that the first and the last bar are not on the edge.
    left, right = LEFT + 12, RIGHT - 40
    scale = (right - left) / sum(widths)
    stops = [(known[0] - middle, float(LEFT)), (known[0], float(left))]
    for moment_s, width in zip(known[1:], widths, strict=True):
        stops.append((moment_s, stops[-1][1] + width * scale))
    return Axis([*stops, (known[-1] + middle, float(RIGHT))])


def grid(
    axis: Axis, moments: Iterable[float], moment: Callable[[float], str], top: float, bottom: float
) -> str:
    """Return lines with their moments below, as many as can be read; the first ones of `moments` go first."""
    drawn: list[float] = []
    parts = []
    for moment_s in moments:
        place = axis.at(moment_s)
        if any(abs(place - other) < TICK_GAP_MIN for other in drawn):
            continue
        drawn.append(place)
        parts.append(tag("line", x1=place, x2=place, y1=top, y2=bottom, class_="grid"))
        anchor = "end" if place > RIGHT - 30 else "middle"
        parts.append(
            tag("text", text(moment(moment_s)), x=place, y=bottom + 15, class_="soft", text_anchor=anchor)
        )
    return "".join(parts)


def round_moments(axis: Axis) -> list[float]:
    """Return moments to mark, at round numbers of seconds."""
    span_s = axis.to_s - axis.from_s
    step_s = 10.0**-6
    while span_s / step_s > 10:
        step_s *= 10
    for finer in (5, 4, 2):
        if span_s / (step_s / finer) <= 12:
            step_s /= finer
            break
    first = int(axis.from_s // step_s)
    marks = [number * step_s for number in range(first, first + 14)]
    return [mark for mark in marks if axis.from_s <= mark <= axis.to_s]


def fault_rows(faults: Iterable[Fault], axis: Axis, bottom: float) -> tuple[str, float]:
    """Return the faults, a row for each kind (the first word) and a band down to `bottom`; and their height."""
    kinds: dict[str, list[Fault]] = defaultdict(list)
    for fault in faults:
        if fault.from_s <= axis.to_s and (fault.to_s is None or fault.to_s >= axis.from_s):
            kinds[(fault.fault.split() or ["?"])[0]].append(fault)
    height = len(kinds) * FAULT_ROW
    parts = []
    for row, kind in enumerate(sorted(kinds)):
        top = row * FAULT_ROW
        name = tag(
            "text", text(fit(describe_text(kind), LEFT - 14)), x=LEFT - 8, y=top + 14, text_anchor="end"
        )
        parts.append(name)
        ordered = sorted(kinds[kind], key=lambda fault: fault.from_s)
        for fault, after in zip(ordered, [*ordered[1:], None], strict=True):
            left = axis.at(fault.from_s)
            right = RIGHT if fault.to_s is None else axis.at(fault.to_s)
            width = max(right - left, 2)
            limit = axis.at(after.from_s) if after is not None else RIGHT
            until = "the end" if fault.to_s is None else f"{fault.to_s:.3f} s"
            title = tag("title", text(f"{fault.fault}\n{fault.from_s:.3f} s to {until}"))
            band = {
                "x": left,
                "width": width,
                "y": top + FAULT_ROW - 4,
                "height": bottom + height - top - FAULT_ROW + 4,
            }
            parts.append(tag("rect", class_="band", **band))
            parts.append(tag("rect", title, x=left, y=top + 2, width=width, height=14, rx=2, class_="fault"))
            words = fit(describe_text(fault.fault), width - 6)
            if words:
                parts.append(tag("text", title, text(words), x=left + 4, y=top + 13, class_="onfault"))
            else:
                words = fit(describe_text(fault.fault), limit - left - width - 8)
                parts.append(tag("text", text(words), x=left + width + 3, y=top + 13, class_="soft"))
    return "".join(parts), height


def _number(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
