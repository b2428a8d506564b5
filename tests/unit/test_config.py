"""Options from a file, from variables and from the command line: what counts, and what is told of it."""

import json
from pathlib import Path

import pytest

from trio_kv.cli.main import main
from trio_kv.cli.output import ExitCode

Values = dict[str, tuple[object, str]]


def in_force(capsys: pytest.CaptureFixture[str], *words: object) -> Values:
    """Return what `config` tells, by option."""
    assert main(["config", *map(str, words), "--json"]) == ExitCode.OK
    return {name: (each["value"], each["from"]) for name, each in json.loads(capsys.readouterr().out).items()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "store.toml"
    path.write_text(
        'port = 4001\nnodes = 3\nno-fsync = true\nidle-timeout = 2.5\nlog-level = "debug"\ndata-dir = "data"\n'
    )
    return path


def test_the_command_line_counts_more_than_variables_and_these_more_than_the_file(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the file more than a default; each value is told with the place that it comes from."""
    monkeypatch.setenv("TRIO_KV_NODES", "7")
    monkeypatch.setenv("TRIO_KV_PORT", "4002")
    values = in_force(capsys, "--config", file, "--port", 4003)
    assert values["port"] == (4003, "command line")
    assert values["nodes"] == (7, "TRIO_KV_NODES")
    assert values["no-fsync"] == (True, str(file))
    assert values["idle-timeout"] == (2.5, str(file))
    assert values["log-level"] == ("debug", str(file))
    assert values["control-port"] == (3002, "default")
    assert values["config"] == (str(file), "command line")


def test_the_file_may_be_named_by_a_variable(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As everything else."""
    monkeypatch.setenv("TRIO_KV_CONFIG", str(file))
    values = in_force(capsys)
    assert values["config"] == (str(file), "TRIO_KV_CONFIG")
    assert values["port"] == (4001, str(file))


def test_an_empty_variable_leaves_the_word_to_the_file(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is one that is not set."""
    monkeypatch.setenv("TRIO_KV_PORT", "")
    assert in_force(capsys, "--config", file)["port"] == (4001, str(file))


def test_what_excludes_an_option_of_the_file_wins_over_it(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--ephemeral` and `data-dir` can't go together: the one from the place that counts more holds."""
    monkeypatch.setenv("TRIO_KV_EPHEMERAL", "1")
    values = in_force(capsys, "--config", file)
    assert values["ephemeral"] == (True, "TRIO_KV_EPHEMERAL")
    assert values["data-dir"][1] == "default"
    monkeypatch.delenv("TRIO_KV_EPHEMERAL")
    file.write_text('ephemeral = true\ndata-dir = "data"\n')
    assert main(["config", "--config", str(file)]) == ExitCode.USAGE
    assert "can't go together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", "there is no option 'prot': did you mean port?"),
        ("no_fsync = true", "there is no option 'no_fsync': did you mean no-fsync?"),
        ("zzz = 1", "there is no option 'zzz': there are cluster, connections-max, "),
        ('config = "x"', "leave config out"),
        ('output = "json"', "there is no option 'output'"),
        ("port = [1]", "port is a list; right would be one value"),
        ("[port]\na = 1", "port is a table; right would be one value"),
        ("port = 2020-01-01", "port is a date or a time"),
        ('port = "x"', "port: 'x' is no whole number"),
        ("port = 1.5", "port: '1.5' is no whole number"),
        ("port = 70000", "port 70000: must be <= 65535"),
        ("no-fsync = 3", "no-fsync: '3' is neither 1 nor 0"),
        ("port = ", "is not TOML"),
        ("port = 1\nport = 2", "is not TOML"),
        ('idle-timeout = "nan"', "idle-timeout: 'nan' is no number"),
    ],
)
def test_a_bad_file_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    """The message names the file, the key, and what would be right; nothing is started."""
    path = tmp_path / "bad.toml"
    path.write_text(text)
    for command in ("serve", "config"):
        assert main([command, "--config", str(path)]) == ExitCode.USAGE
        told = capsys.readouterr().err
        assert words in told
        assert str(path) in told


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was asked for, so the server does not start without it."""
    assert main(["serve", "--config", str(tmp_path / "none")]) == ExitCode.USAGE
    assert "none: no such file" in capsys.readouterr().err


def test_options_that_can_not_be_are_told_and_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """`config` shows them all the same: that is what it is for."""
    assert main(["config", "--host", "0.0.0.0"]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert "host\t0.0.0.0\tcommand line" in shown.out.splitlines()
    assert "lacks TLS (--tls-cert, --tls-key) and tokens or client certificates" in shown.err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--host", "0.0.0.0", "--tls-cert", "c", "--tls-key", "k"], "lacks tokens or client certificates"),
        (["--host", "0.0.0.0", "--token-file", "t"], "lacks TLS (--tls-cert, --tls-key):"),
        (["--tls-cert", "c"], "--tls-cert and --tls-key go together"),
        (["--tls-client-ca", "c"], "add --tls-cert and --tls-key"),
        (["--control-host", "0.0.0.0"], "without TLS its token can be read"),
    ],
)
def test_what_others_can_reach_needs_both(
    words: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """TLS, and something that tells clients apart; the word says what is missing, and the way around it."""
    assert main(["serve", *words]) == ExitCode.USAGE
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["--host", "0.0.0.0", "--insecure"],
        ["--host", "0.0.0.0", "--tls-cert", "c", "--tls-key", "k", "--token-file", "t"],
        ["--host", "::", "--tls-cert", "c", "--tls-key", "k", "--tls-client-ca", "a"],
        ["--control-host", "0.0.0.0", "--tls-cert", "c", "--tls-key", "k"],
        ["--control-host", "0.0.0.0", "--insecure"],
    ],
)
def test_what_is_safe_or_meant_is_taken(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Both, or `--insecure`."""
    in_force(capsys, *words)
