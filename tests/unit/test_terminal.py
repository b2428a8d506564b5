"""The standard streams, and what is shown on them."""

import errno
import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from trio_kv.cli import output
from trio_kv.cli.line_stream import LineStream, unblock_output
from trio_kv.cli.terminal import has_color, open_console
from trio_kv.trace.lines import BUFFER_LINES_MAX, close_writers
from trio_kv.trace.text import ESCAPED, encodable, encode_json, printable, printable_json, printable_lines

# A letter, DEL, C1 (begins a sequence), right-to-left override, line separator, a tag outside the basic plane.
HOSTILE = "a\x7f\x9b31m\u202e\u2028\U000e0041"


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    with os.fdopen(theirs, "w") as stream:
        yield stream
    os.close(ours)


# --- texts --------------------------------------------------------------------------------------------------


def test_what_a_terminal_would_obey_is_shown_as_an_escape_of_json() -> None:
    """Printable text is itself; all else is escaped, so that a JSON text says the same as before."""
    assert printable("žluť 🐎") == "žluť 🐎"
    shown = printable(HOSTILE)
    assert shown == r"a\u007f\u009b31m\u202e\u2028\udb40\udc41"
    assert json.loads(f'"{shown}"') == HOSTILE
    assert printable("a\n\x1b[2J") == r"a\n\u001b[2J"


def test_white_space_between_json_values_stays_white_space() -> None:
    """A stored value may have tabs between its members: escaped, it would be no JSON any more."""
    assert printable_json('{"a":\t1,\r"b": "\x9b"}') == '{"a":\t1,\r"b": "\\u009b"}'
    assert printable_lines('{"a":\t1,\n\r"b": "\x9b"}') == '{"a": 1,\n "b": "\\u009b"}'


def test_names_that_are_not_utf_8_can_be_written() -> None:
    """Bytes of a file name that are no text are escaped; so are they in members of JSON, wherever they stand."""
    assert encodable("caf\udce9") == r"caf\udce9"
    members = {"caf\udce9": [("\udc80", 1, None)], "path": Path("\udcff"), "ok": HOSTILE}
    data = encode_json(members)
    assert json.loads(data) == {r"caf\udce9": [[r"\udc80", 1, None]], "path": r"\udcff", "ok": HOSTILE}
    assert data.decode().isprintable()
    assert encode_json({"a": [1, "é"]}) == '{"a":[1,"é"]}'.encode()


def test_what_an_encoding_lacks_is_escaped() -> None:
    """With ASCII or Latin-1 output, JSON stays JSON."""
    assert json.loads('"žé🐎"'.encode("latin-1", ESCAPED).decode("latin-1")) == "žé🐎"
    assert "žé🐎".encode("ascii", ESCAPED) == rb"\u017e\u00e9\ud83d\udc0e"


# --- conventions --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, True),
        ({"TERM": "xterm"}, True),
        ({"TERM": "dumb"}, False),
        ({"CLICOLOR": "0"}, False),
        ({"CLICOLOR": "1"}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, True),
    ],
    ids=str,
)
def test_colours_follow_the_conventions(terminal: TextIO, environ: dict[str, str], expected: bool) -> None:
    """NO_COLOR, else FORCE_COLOR, else what the terminal is; elsewhere only FORCE_COLOR."""
    assert has_color(terminal, environ) is expected
    is_forced = "FORCE_COLOR" in environ and expected
    assert has_color(io.StringIO(), environ) is is_forced


def test_tables_and_messages_keep_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What Rich draws has no sequence into a pipe, and colours but no animation where they are forced."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    stream = io.StringIO()
    open_console(stream).print("x", style="bold red")
    assert stream.getvalue() == "x\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = open_console(stream)
    console.print("x", style="bold red")
    assert "\x1b[1;31m" in stream.getvalue()
    assert not console.is_terminal
    stream.seek(0)
    stream.truncate()
    monkeypatch.setenv("NO_COLOR", "1")
    open_console(stream).print("x", style="bold red")
    assert stream.getvalue() == "x\n"


# --- printing -----------------------------------------------------------------------------------------------


def test_messages_speak_to_people_and_not_to_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    """A key or a path in a message is shown escaped; its lines stay lines."""
    output.say(f"no {HOSTILE}\nat all")
    assert capsys.readouterr().err == "trio-kv: no a\\u007f\\u009b31m\\u202e\\u2028\\udb40\\udc41\nat all\n"


def test_data_is_exact_in_a_pipe_and_harmless_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON goes into a pipe to the byte; on a terminal it says the same in printable characters."""
    line = f'{{"key": "{HOSTILE}",\t"value": 1}}'
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stdout", pipe)
    output.show(line)
    assert pipe.getvalue() == f"{line}\n"
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        output.show(line)
        stream.flush()
        shown = screen.read(1 << 16).decode()
    assert shown.removesuffix("\n").isprintable()
    assert json.loads(shown) == json.loads(line)


def test_a_message_that_can_not_be_written_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reader of stderr may be gone, or stderr be closed: the command goes on."""

    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    broken = Broken()
    monkeypatch.setattr(sys, "stderr", broken)
    output.say("hello")
    broken.close()
    output.say("hello")


# --- a process that waits for nobody ------------------------------------------------------------------------


@pytest.fixture
def _signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTTOU)
    yield
    signal.signal(signal.SIGTTOU, before)


@pytest.mark.usefixtures("_signals")
def test_what_a_server_prints_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """`print` into a pipe that nobody reads comes back, and what was printed arrives when somebody does."""
    reader, write_end = os.pipe()
    with os.fdopen(write_end, "w", encoding="ascii") as pipe, os.fdopen(reader, "rb") as reading:
        monkeypatch.setattr(sys, "stdout", pipe)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        long = "x" * 100_000
        unblock_output()
        assert signal.getsignal(signal.SIGTTOU) is signal.SIG_IGN, (
            "`stty tostop` would stop a store in the background"
        )
        stream = sys.stdout
        assert isinstance(stream, LineStream)
        assert not stream.isatty()
        assert stream.fileno() == write_end
        print(long, "ž")  # noqa: T201
        print("no end", end="")  # noqa: T201
        stream.flush()
        expected = f"{long} \\u017e\nno end".encode()
        assert reading.read(len(expected)) == expected
        stream.end()
        assert isinstance(sys.stderr, io.StringIO), "what has no descriptor can't block, and stays as it is"


def test_lines_that_were_dropped_are_told() -> None:
    """A person reads how many lines are missing, in their place; all others are there."""
    reader, write_end = os.pipe()
    with os.fdopen(write_end, "w") as pipe, os.fdopen(reader) as reading:
        stream = LineStream(pipe)
        count = BUFFER_LINES_MAX + 20_000
        for number in range(count):
            stream.write(f"{number}\n")
        expected = 0
        while expected < count:
            line = reading.readline()
            lost = re.fullmatch(r"trio-kv: (\d+) lines? w(?:as|ere) lost here\n", line)
            assert lost or line == f"{expected}\n"
            expected += int(lost[1]) if lost else 1
        assert stream.writer.statistics().lost > 0
        assert close_writers(stream.writer, wait_s=30.0)


CLOSED = """
import os, sys
for descriptor in {closed}:
    os.close(descriptor)
os.execv(sys.executable, [sys.executable, "-c", '''
import os, sys
from trio_kv.cli.streams import StandardStreams
StandardStreams()
inodes = [os.fstat(descriptor).st_rdev for descriptor in range(3)]
null = os.stat(os.devnull).st_rdev
print("lost", flush=True)
print("lost", file=sys.stderr, flush=True)
assert sys.stdin.read() == ""
with open({report!r}, "w") as report:
    print(report.fileno(), [inode == null for inode in inodes], file=report)
'''])
"""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_closed_stream_is_taken_by_nobody_else(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """The next file that is opened does not get its number, in which messages would be written."""
    report = tmp_path / "report"
    script = CLOSED.format(closed=closed, report=str(report))
    subprocess.run(
        [sys.executable, "-c", script], check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=30
    )
    number, rest = report.read_text().split(maxsplit=1)
    assert int(number) >= 3
    expected = [descriptor in closed or descriptor == 0 for descriptor in range(3)]
    assert rest.strip() == str(expected)
