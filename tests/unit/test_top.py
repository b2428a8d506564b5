"""Claims about `top`: what is shown of a frame on wide and narrow terminals, and how the dashboard is opened."""

import io
import stat
import sys
import webbrowser
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.console import Console

from trio_kv.cli import browser
from trio_kv.cli.top_view import Look, show_look

TIME = "2026-01-02T03:04:05.678901Z"


def node(number: int, **members: object) -> dict[str, Any]:
    disk = {"delay_ms": 0.0, "is_full": False, "is_stalled": False, "will_fail": False, "is_failed": False}
    usual: dict[str, Any] = {
        "node": number,
        "state": "up",
        "detail": "",
        "role": "follower",
        "term": 7,
        "last": 123_456,
        "commit": 123_450,
        "applied": 123_450,
        "snapshot": 100_000,
        "digest": "0123456789abcdef",
        "election_ms": 180,
        "election_of_ms": 400,
        "disk": disk,
    }
    return {**usual, **members}


def frame(**members: object) -> dict[str, Any]:
    rates = {"writes_per_s": 1234.4, "reads_per_s": 0.0, "failed_per_s": 2.0}
    rates |= {"write_p50_ms": 1.5, "write_p99_ms": 12.0, "read_p50_ms": None, "read_p99_ms": None}  # type: ignore[dict-item]
    full = {"delay_ms": 50.0, "is_full": True, "is_stalled": False, "will_fail": False, "is_failed": False}
    usual: dict[str, Any] = {
        "time": TIME,
        "leader": 2,
        "term": 7,
        "rates": rates,
        "faults": [{"fault": "cut", "link": [1, 3]}],
        "clients": {"connections": 3, "watches": 1, "list": []},
        "nodes": [
            node(1, state="crashed", role=None, snapshot=None, election_ms=None, detail="asked to crash"),
            node(2, role="leader", election_ms=None, disk=full),
            node(3),
        ],
    }
    return {**usual, **members}


def event(number: int, **members: object) -> dict[str, Any]:
    return {
        "time": TIME,
        "mono": 1.0,
        "seq": number,
        "level": "info",
        "event": "leader.elected",
        "node": 2,
        "term": 7,
        "role": "leader",
        "votes": [1, 2, number],
        **members,
    }


def shown(look: Look, width: int = 100, height: int | None = None) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, height=height or 100, highlight=False).print(
        show_look(look, width, height)
    )
    return [line.rstrip() for line in out.getvalue().splitlines()]


def test_a_look_says_who_leads_how_fast_it_is_and_what_is_wrong() -> None:
    """A person who reads it from the top knows the state of the cluster."""
    lines = shown(Look(frame(), [event(1)], missed=4))
    text = "\n".join(lines)
    assert lines[0] == "trio_kv 03:04:05  n2 leads in term 7, 2 of 3 nodes up"
    assert lines[1] == "1,234 writes/s (p50 1.5 ms, p99 12 ms), 0 reads/s, 2 failed/s, 3 clients, 1 watch"
    (leader,) = [line for line in lines if line.startswith("n2*")]
    assert "leader" in leader
    assert leader.endswith("full, +50 ms")
    assert any(line.startswith("n1 ") and "crashed" in line for line in lines)
    assert any(line.startswith("n3 ") and "180/400" in line for line in lines)
    assert "n1: asked to crash" in lines
    assert "cut, 1-3: no message passes between these two; `trio-kv ctl heal 1-3` ends it" in lines
    assert "4 events came too fast to be shown" in text
    assert "03:04:05.678 n2 leader.elected votes=[1, 2, 1]" in lines


@pytest.mark.parametrize("width", [26, 34, 60, 80, 120, 200])
def test_it_fits_the_terminal(width: int) -> None:
    """Each row of a node stays one line, with what matters most in it; nothing is wider than the terminal."""
    lines = shown(Look(frame(), [event(number) for number in range(50)]), width, 24)
    assert all(len(line) <= width for line in lines)
    rows = [line for line in lines if line.startswith(("n1 ", "n2*", "n3 "))]
    assert len(rows) == 3
    if width >= 34:
        assert all("7" in row and "123450" in row for row in rows)


def test_the_latest_events_fill_what_is_left() -> None:
    """On a screen of 24 lines there are no more than these; the latest event is the last one."""
    lines = shown(Look(frame(), [event(number) for number in range(50)]), 100, 24)
    assert len(lines) <= 24
    assert lines[-2].endswith("votes=[1, 2, 49]")
    assert lines[-1] == "q ends this"


def test_words_of_others_speak_to_no_terminal() -> None:
    """A reason may hold a file's name, and an event a client's address: escapes are shown, and not obeyed."""
    hostile = frame(nodes=[node(1, detail="no \x1b[2J"), node(2), node(3)])
    text = "\n".join(shown(Look(hostile, [event(1, reason="\x1b]0;title\x07\n")], gone="gone \x9b2J")))
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "gone" in text


# --- --open -----------------------------------------------------------------------------------------------------


async def test_a_browser_is_started_without_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery
) -> None:
    """It is given a file that its owner alone can read, which leads to the page and goes when the server does."""
    opened: list[str] = []

    def start(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", start)
    monkeypatch.setenv("BROWSER", "some-browser")
    (tmp_path / browser.FILE_NAME).symlink_to(tmp_path / "elsewhere")
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            inner.start_soon(browser.open_page, "http://127.0.0.1:3002/#token=SECRET&x", tmp_path)
            with trio.fail_after(10):
                while not opened:  # noqa: ASYNC110 - what a thread does is polled
                    await trio.sleep(0.01)
            path = tmp_path / browser.FILE_NAME
            assert opened == [path.as_uri()]
            assert stat.S_IMODE(path.lstat().st_mode) == 0o600
            assert 'content="0; url=http://127.0.0.1:3002/#token=SECRET&amp;x"' in path.read_text()
            scope.cancel()
    assert not path.exists()


async def test_without_a_display_nothing_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A browser for terminals would take the one on which the server tells what it does."""
    for name in browser.DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    await browser.open_page("http://127.0.0.1:3002/#token=SECRET", tmp_path)
    told = capsys.readouterr().err
    assert "no display" in told
    assert "SECRET" not in told
