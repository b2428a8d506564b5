#!/usr/bin/env python3
"""Make the tables and the plot of docs/performance.md from what `bench/run.py` has written.

    python bench/tables.py --json build/bench.json --page docs/performance.md

Each table stands between two marks in the page, and is replaced there: `<!-- figures: speed -->`, `<!-- end -->`.
"""

import argparse
import html
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

END_MARK = "<!-- end -->"
PLOT_NAME = "speed.svg"
COLORS = {
    "trio_kv": "#3b6fb6",
    "base": "#9db9dc",
    "floor": "#b0b0b0",
    "etcd": "#c8743c",
    "pysyncobj": "#6a9a52",
}
UNITS = {
    "per_second": "/s",
    "p50_ms": "ms",
    "longest_gap_ms": "ms",
    "mib_per_second": "MiB/s",
    "restarted_mib": "MiB",
}
Row = dict[str, Any]


def table(head: list[str], lines: list[list[str]]) -> str:
    """Return a table of Markdown."""
    if not lines:
        return "(not measured)\n"
    return "".join(f"| {' | '.join(cells)} |\n" for cells in [head, ["---"] * len(head), *lines])


def number(value: float) -> str:
    """Return a figure with three digits or more.

    >>> number(12345.6), number(12.345), number(0.5)
    ('12,346', '12.3', '0.50')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio_words(row: Row) -> str:
    """Return the ratios of a row with their spread."""
    words = []
    for each in row["ratios"]:
        values = each["values"]
        words.append(
            f"{each['of']} / {each['to']} **{each['median']:.2f}** ({min(values):.2f}-{max(values):.2f})"
        )
    return "<br>".join(words)


def speed_table(rows: list[Row]) -> str:
    """Return the medians of each subject in a row, and the ratios."""
    labels: list[str] = []
    for row in rows:
        labels += [label for label in row["subjects"] if label not in labels]
    lines = []
    for row in rows:
        medians = [row["subjects"].get(label, {}).get("median", {}).get(row["metric"]) for label in labels]
        cells = ["-" if median is None else number(median) for median in medians]
        lines.append([f"{row['title']} ({UNITS[row['metric']]})", *cells, ratio_words(row)])
    return table(["load", *labels, "ratio, pair by pair (lowest-highest)"], lines)


def latency_table(rows: list[Row]) -> str:
    """Return p50 and p99 of each subject in a row, in milliseconds."""
    labels = list(dict.fromkeys(label for row in rows for label in row["subjects"]))
    lines = []
    for row in rows:
        medians = [row["subjects"].get(label, {}).get("median", {}) for label in labels]
        cells = [
            f"{each['p50_ms']:.2f}, {each['p99_ms']:.2f}" if "p99_ms" in each else "-" for each in medians
        ]
        lines.append([row["title"], *cells])
    return table(["load: p50, p99 in ms", *labels], lines)


def growth_table(rows: list[Row]) -> str:
    """Return the two figures of each row, and their ratio."""
    lines = []
    for row in rows:
        figures = "; ".join(
            f"{label}: {number(each['median'][row['metric']])} {UNITS[row['metric']]}"
            for label, each in row["subjects"].items()
        )
        lines.append([row["title"], figures, ratio_words(row)])
    return table(["what grows", "medians", "ratio, pair by pair (lowest-highest)"], lines)


def memory_table(rows: list[Row]) -> str:
    """Return what large.py measured."""
    lines = []
    for row in rows:
        for label, each in row["subjects"].items():
            median = each["median"]
            words = [f"{median[f'{name}_mib']:,.0f}" for name in ("filled", "overwritten", "restarted")]
            lines.append(
                [
                    row["title"].partition(" of ")[0] + f", {label}",
                    *words,
                    f"{median['ready_s']:.1f} / {median['answers_s']:.1f}",
                ]
            )
    head = [
        "store",
        "filled, MiB",
        "after overwrites, MiB",
        "after a restart, MiB",
        "restart: ready / answers, s",
    ]
    return table(head, lines)


def durability_table(rows: list[Row]) -> str:
    """Return what a write that is answered has survived, for each store."""
    found: dict[str, str] = {}
    for row in rows:
        for label, each in row["subjects"].items():
            found.setdefault(label.partition(" ")[0], each["durability"])
    return table(
        ["store", "what an answered write has survived"],
        [[label, each] for label, each in sorted(found.items())],
    )


def machine_words(report: dict[str, Any]) -> str:
    """Return what the figures depend on."""
    machine, rows = report["machine"], report["rows"]
    etcd = f", etcd {machine['etcd']}" if machine["etcd"] else ""
    stores = {label.partition(" ")[0] for row in rows for label in row["subjects"]}
    missing = {
        store: why for store, why in report["missing"].items() if store not in stores and "base" not in store
    }
    turns = [len(slices["slices"]) for row in rows for slices in row["subjects"].values()]
    seconds = spread(row["seconds"] for row in rows)
    return (
        f"{spread(turns)} turns of {seconds} s slices; {machine['processors']} processors"
        f" ({machine['processor']}) shared by servers and load, {machine['file_system']},"
        f" Python {machine['python']}{etcd}, {machine['system']}; measured from {rows[0]['at']} on,"
        f" at a load average of {spread(row['load_average'] for row in rows)}."
        + "".join(f" Without {store}: {why}." for store, why in missing.items())
        + "\n"
    )


def spread(values: Iterable[float]) -> str:
    """Return the lowest and the highest of some values.

    >>> spread([3, 3]), spread([2, 6.5])
    ('3', '2 to 6.5')
    """
    found = list(values)
    low, high = min(found, default=0), max(found, default=0)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def plot(rows: list[Row]) -> str:
    """Return bars of requests a second, row by row, each row by its own scale."""
    height, parts, at = 16, list[str](), 10
    for row in rows:
        medians = {label: each["median"][row["metric"]] for label, each in row["subjects"].items()}
        parts.append(f'<text x="10" y="{at + 12}" font-weight="bold">{html.escape(row["title"])}</text>')
        at += height + 4
        for label, median in medians.items():
            width = 420 * median / (max(medians.values()) or 1)
            color = COLORS[label.partition(" ")[0].rpartition("-")[0]]
            parts.append(f'<text x="190" y="{at + 12}" text-anchor="end">{html.escape(label)}</text>')
            parts.append(
                f'<rect x="200" y="{at + 2}" width="{width:.1f}" height="{height - 4}" fill="{color}"/>'
            )
            parts.append(
                f'<text x="{206 + width:.1f}" y="{at + 12}">{number(median)} {UNITS[row["metric"]]}</text>'
            )
            at += height
        at += 12
    style = "font-family='sans-serif' font-size='12'"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {at}" {style}>'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>"]) + "\n"


def texts(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what stands between each pair of marks, of what was measured: the rest of the page stays as it is."""
    groups: dict[str, list[Row]] = {}
    for row in report["rows"]:
        groups.setdefault(row["group"], []).append(row)
    if speed := groups.get("speed"):
        yield "machine", machine_words(report)
        yield "durability", durability_table(speed)
        yield "speed", speed_table(speed)
        yield "latency", latency_table([row for row in speed if row["metric"] == "per_second"])
    if "processes" in groups:
        yield "processes-machine", machine_words(report)
    for name, draw in (("growth", growth_table), ("memory", memory_table), ("processes", growth_table)):
        if name in groups:
            yield name, draw(groups[name])


def fill_page(report: dict[str, Any], page: pathlib.Path) -> None:
    """Replace what stands between the marks of a page, and the plot beside it."""
    text = page.read_text()
    for name, new in texts(report):
        before, mark, rest = text.partition(f"<!-- figures: {name} -->\n")
        _, end, after = rest.partition(END_MARK)
        if not end:
            raise SystemExit(
                f"{page} has no place for {name}: between <!-- figures: {name} --> and {END_MARK}"
            )
        text = before + mark + new + end + after
    page.write_text(text)
    rows = [row for row in report["rows"] if row["group"] == "speed" and row["metric"] == "per_second"]
    if rows:
        (page.parent / PLOT_NAME).write_text(plot(rows))


def main() -> None:
    """Fill the page with the figures of a file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=pathlib.Path, default=pathlib.Path("build/bench.json"))
    parser.add_argument("--page", type=pathlib.Path, default=pathlib.Path("docs/performance.md"))
    args = parser.parse_args()
    fill_page(json.loads(args.json.read_text()), args.page)


if __name__ == "__main__":
    main()
