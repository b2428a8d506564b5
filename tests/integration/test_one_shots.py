"""One-shot commands at a real store: what they print where, and the exit codes that scripts go by."""

import io
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import attrs
import pytest
import trio

from tests.real_store import open_store
from trio_kv.cli.main import main
from trio_kv.client.client import Client
from trio_kv.client.following import Event, Revision
from trio_kv.proxy.config import ProxyConfig


@attrs.frozen
class Done:
    """What came of a command."""

    code: int
    out: str
    err: str


@attrs.define
class CommandLine:
    """Carries out commands against a store, in a thread of this process."""

    port: int
    capsys: pytest.CaptureFixture[str]

    async def run(self, *words: str, stdin: str = "") -> Done:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            code = await trio.to_thread.run_sync(main, [*words, "--port", str(self.port)])
        return Done(code, *self.capsys.readouterr())


@pytest.fixture
async def command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[CommandLine]:
    monkeypatch.chdir(tmp_path)
    # A short limit, so that lines that are too long need no megabytes.
    async with open_store(tmp_path / "data", nodes=1, config=ProxyConfig(port=0, line_bytes_max=4096)) as (
        _,
        port,
    ):
        yield CommandLine(port, capsys)


async def test_values_come_from_words_files_and_stdin_and_go_out_in_three_forms(
    command_line: CommandLine, tmp_path: Path
) -> None:
    """Text is the same everywhere, a table has columns, JSON is what the server said; quiet leaves data alone."""
    run = command_line.run
    assert await run("set", "snack", "chips") == Done(0, "ok\n", "")
    assert await run("set", "snack", "nuts", "--quiet") == Done(0, "", "")
    assert await run("get", "snack", "-q") == Done(0, "nuts\n", "")
    table = (await run("get", "snack", "-o", "table")).out.splitlines()
    assert [line.split() for line in (table[0], table[2])] == [
        ["key", "value", "revision", "node", "term"],
        ["snack", "nuts", table[2].split()[2], "1", "1"],
    ]
    (tmp_path / "v.json").write_text('{\n"a": 1.10}\n')
    assert (await run("set", "--file", "v.json", "doc")).code == 0
    assert await run("get", "doc") == Done(0, '{ "a": 1.10}\n', "")
    assert (await run("set", "text", "--file", "-", stdin="two\nlines\n")).code == 0
    assert await run("get", "text", "--raw") == Done(0, "two\nlines\n", "")
    assert await run("incr", "n") == Done(0, "1\n", "")
    assert await run("incr", "n", "-3", "--ttl", "60") == Done(0, "-2\n", "")
    assert " ttl " in (await run("get", "n", "-o", "table")).out
    lost = await run("cas", "snack", "figs", "-q")
    assert lost == Done(1, "", "")
    assert "(the value is nuts)" in (await run("cas", "snack", "figs")).err
    assert await run("get", "none", "-q") == Done(1, "", "")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["set", "k"], "VALUE is missing: type it, or name a --file; - is stdin"),
        (["set", "k", "v", "--file", "f"], "VALUE stands there, and --file, too"),
        (["cas", "k", "--file", "none"], "none: no such file"),
        (["txn"], "TXN is missing"),
        (["txn", "[]"], "a transaction is a JSON object"),
        (["txn", '{"them": []}'], "has if, then and else, and no 'them'"),
        (["txn", '{"then": [{"op": "cas", "key": "a", "value": 1}]}'], '"then"[0] is a "cas"'),
        (["watch", "a", "--key", "b"], "leave out one"),
        (["get", "k", "--raw", "-o", "table"], "--raw prints the value alone"),
        (["import", "none.jsonl"], "none.jsonl: no such file"),
        (["completion", "tcsh"], "choose from bash, zsh, fish"),
    ],
)
def test_what_can_not_be_asked_is_told(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2, before anything is sent."""
    assert main(words) == 2
    assert hint in capsys.readouterr().err


async def test_ranges_and_transactions(command_line: CommandLine) -> None:
    """Keys come page by page in order, however many; a transaction tells of each operation, and by its code."""
    run = command_line.run
    lines = "".join(f'{{"key": "k{number:04}", "value": {number}}}\n' for number in range(1100))
    assert await run("import", stdin=lines) == Done(0, "1,100 keys\n", "")
    assert await run("scan", "--count") == Done(0, "1100\n", "")
    shown = await run("scan", "k", "--limit", "2")
    assert shown.out == "k0000  0\nk0001  1\n"
    assert "--limit 0 shows all, --after k0001 what comes next" in shown.err
    assert await run("scan", "--after", "k0001", "--limit", "1", "-q") == Done(0, "k0002  2\n", "")
    assert await run("scan", "--reverse", "--limit", "1", "--keys-only", "-q") == Done(0, "k1099\n", "")
    every = (await run("scan", "--limit", "0", "-o", "json")).out.splitlines()
    assert len(every) == 1100
    assert every[7].startswith('{"key":"k0007","value":7,"revision":')
    assert "revision" in (await run("scan", "k000", "-o", "table")).out
    txn = """{"if": [{"key": "k0001", "equals": 1}],
        "then": [{"op": "get", "key": "k0002"}, {"key": "x", "value": [\n1]}, {"op": "delete", "key": "none"}],
        "else": [{"op": "get", "key": "x"}]}"""
    assert await run("txn", txn) == Done(0, "get  k0002  2\nset  x  ok\ndelete  none  missing\n", "")
    again = await run("txn", "-", stdin=txn.replace('"equals": 1', '"equals": 2'))
    assert again == Done(1, "get  x  [ 1]\n", "trio-kv: a condition did not hold: else was carried out\n")
    assert (await run("txn", txn, "-o", "json")).out.startswith('{"succeeded": true, "results": [')


async def test_a_watch_ends_after_so_many_revisions(command_line: CommandLine) -> None:
    """It begins where it is told to, and prints a line a change, or a JSON object a revision."""
    run = command_line.run
    await run("set", "a", "1")
    await run("set", "b", "2")
    await run("delete", "a")
    lines = (await run("watch", "--from", "1", "--count", "3")).out.splitlines()
    assert [line.split("  ")[1:] for line in lines] == [["set", "a", "1"], ["set", "b", "2"], ["delete", "a"]]
    told = await run("watch", "--key", "b", "--from", "1", "--count", "1", "-o", "json")
    assert told.out.endswith('"events":[{"event":"set","key":"b","value":2}]}\n')
    beyond = await run("watch", "--from", "1000000")
    assert beyond.code == 1
    assert "bad_request" in beyond.err


def test_ctrl_c_is_how_a_watch_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was told stays told, and the exit code is 0."""

    def changes(*_: object, **__: object) -> Iterator[Revision]:
        yield Revision(7, (Event("expire", "lock"),))
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "watch", changes)
    assert main(["watch"]) == 0
    assert capsys.readouterr() == ("7  expire  lock\n", "")


async def test_an_import_says_how_far_it_came(command_line: CommandLine) -> None:
    """Lines that don't fit into one request go in several; a line that can't be ends it, and those before are there."""
    run = command_line.run
    long = "".join(f'{{"key": "long{number}", "value": "{"x" * 900}"}}\n' for number in range(9))
    assert await run("import", "-", "-q", stdin=long) == Done(0, "", "")
    assert (await run("scan", "long", "--count")).out == "9\n"
    twice = '{"key": "a", "value": 1}\n\n{"key": "a", "value": 2, "revision": 7, "ttl": 60}\n'
    assert (await run("import", "-o", "json", stdin=twice)).out == '{"keys":2}\n'
    assert (await run("get", "a")).out == "2\n"
    bad = await run("import", stdin='{"key": "b", "value": 1}\n{"key": "c"}\n{"key": "d", "value": 1}\n')
    assert (bad.code, bad.out) == (1, "")
    assert 'line 2: it is not {"key": "a", "value": 1}: Object missing required field `value`' in bad.err
    assert "1 key before are written" in bad.err
    assert (await run("scan", "b", "--limit", "0")).out == "b  1\n"
    assert (await run("get", "d")).code == 1
    for line, hint in (
        ('{"key": "", "value": 1}', "a key has 1 to 4096 bytes"),
        ('{"key": "a", "value": 1, "ttl": 0}', '"ttl" is 0'),
        (f'{{"key": "a", "value": {"[" * 129}{"]" * 129}}}', "can't be kept"),
        (f'{{"key": "a", "value": "{"x" * 5000}"}}', "line 1: too_large"),
    ):
        refused = await run("import", stdin=line)
        assert refused.code == 1
        assert hint in refused.err
        assert "Nothing was written before" in refused.err
    assert main(["import", "--port", "1", "none"]) == 2


def test_bash_completes_commands_options_and_choices(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The script is what bash takes, and what it offers are our words."""
    for shell in ("zsh", "fish", "bash"):
        assert main(["completion", shell]) == 0
        (tmp_path / shell).write_text(capsys.readouterr().out)
    script = """
    source "$1"
    complete_words() {
        COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
        $(complete -p trio-kv | sed 's/.*-F //; s/ .*//')
        echo "${COMPREPLY[*]}"
    }
    complete_words trio-kv sc
    complete_words trio-kv get k --ou
    complete_words trio-kv get k --output ""
    complete_words trio-kv ctl pa
    """
    done = subprocess.run(
        ["bash", "-c", script, "bash", str(tmp_path / "bash")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["scan", "--output", "text table json", "pause partition"]
