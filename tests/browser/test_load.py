"""Claims about the page when much happens: 1,000 events and 400 messages a second, which are made for it."""

import faulthandler
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.browser.page import Page


FRAMES_A_SECOND = 50
TRIES = 5
"""A machine that does something else meanwhile is asked again."""
BUSY_LOAD = 1.0
"""Where more tasks than processors want to run no picture comes in time, and its cost is judged instead."""
HEAP_MB = 40
GROWTH_MB = 3
"""How much larger the page's memory may be at the end: what is kept of ten minutes, and no more."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Give the address of made frames."""
    command = [sys.executable, "-m", "tests.browser.made_frames", "--events", "1000", "--messages", "400"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


@pytest.fixture
def measured(page: "Page") -> "Page":
    """Return the page with its figures on, those of time in that of its processor."""
    page.driver.execute_cdp_cmd("Performance.disable", {})
    page.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    return page


def pictures_a_second(page: "Page", seconds: float) -> float:
    """Return how many pictures the page draws."""
    script = """
        const [ms, done] = arguments;
        let count = 0, begin = null;
        const next = (now) => {
            begin ??= now;
            if (now - begin >= ms) return done((1000 * count) / (now - begin));
            count += 1;
            requestAnimationFrame(next);
        };
        requestAnimationFrame(next);
    """
    return float(page.driver.execute_async_script(script, 1000 * seconds))


def is_busy() -> bool:
    """Return whether others want so much of the processors that pictures can't come in time."""
    return os.getloadavg()[0] > BUSY_LOAD * (os.cpu_count() or 1)


def processor_s(page: "Page") -> float:
    """Return how much of a processor the page's main thread had so far."""
    metrics = page.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return float({each["name"]: each["value"] for each in metrics}["TaskDuration"])


def memory(page: "Page") -> dict[str, float]:
    """Return how much there is after what is not needed was thrown away: megabytes, and elements."""
    page.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
    metrics = page.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    found = {each["name"]: each["value"] for each in metrics}
    return {
        "mb": found["JSHeapUsedSize"] / 1e6,
        "nodes": found["Nodes"],
        "listeners": found["JSEventListeners"],
    }


def test_fifty_pictures_a_second(measured: "Page", address: str) -> None:
    """With 1,000 events a second the page draws 50 pictures a second, and misses no frame."""
    page = measured
    page.size(1280, 800)
    page.open(address)
    page.wait_leader()
    first, begin = page.frame(), time.monotonic()
    page.driver.set_script_timeout(60)
    best, cost_ms = 0.0, float("inf")
    for _ in range(TRIES):
        busy_s = processor_s(page)
        drawn = pictures_a_second(page, 2.0)
        best, cost_ms = max(best, drawn), min(cost_ms, 500 * (processor_s(page) - busy_s) / drawn)
        if best >= FRAMES_A_SECOND:
            break
    print(f"{best:.0f} pictures a second, {cost_ms:.1f} ms of a processor each")  # noqa: T201 - for the figures
    assert best >= FRAMES_A_SECOND or (is_busy() and cost_ms <= 1000 / FRAMES_A_SECOND), (best, cost_ms)
    page.wait("all frames", lambda: page.frame() >= first + 8 * (time.monotonic() - begin))


def test_memory_stays_flat(measured: "Page", address: str, pytestconfig: pytest.Config) -> None:
    """What the page holds has a limit, however long it is open: no element is added, and no megabytes.

    Who looks for a minute or more sees whether it also draws as much at the end as at the beginning.
    """
    page = measured
    page.open(address)
    page.wait_leader()
    minutes = pytestconfig.getoption("page_minutes")
    samples: list[dict[str, float]] = []
    drawn: list[float] = []
    if minutes >= 1:
        faulthandler.cancel_dump_traceback_later()  # it does not hang, it was told to take this long
    deadline = time.monotonic() + 60 * minutes
    while time.monotonic() < deadline or len(samples) < 6:
        time.sleep(max(1.0, 60 * minutes / 30))
        if minutes >= 1:
            drawn.append(pictures_a_second(page, 2.0))
        samples.append(memory(page))
    if drawn:
        held = [round(sample["mb"], 1) for sample in samples]
        print(f"{min(drawn):.0f} to {max(drawn):.0f} pictures a second; megabytes: {held}")  # noqa: T201 - for the figures
    middle = samples[len(samples) // 2 :]
    assert len({sample["nodes"] for sample in middle}) <= 2, samples
    assert len({sample["listeners"] for sample in middle}) == 1, samples
    assert statistics.median(sample["mb"] for sample in samples[-3:]) < HEAP_MB, samples
    # The tape fills for ten minutes; after that there is nothing left to grow.
    after = [sample["mb"] for place, sample in enumerate(samples) if place * minutes / len(samples) > 11]
    assert not after or after[-1] - after[0] < GROWTH_MB, samples
    assert not drawn or statistics.median(drawn) >= FRAMES_A_SECOND or is_busy(), drawn
