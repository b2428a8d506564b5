"""Claims of docs/security.md: its commands are commands, and those that need no server do what is said."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from trio_kv.cli.access import read_token_file
from trio_kv.cli.main import app, main
from trio_kv.cli.output import ExitCode

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
COMMANDS = re.findall(r"^\$ (.*)$", PAGE.read_text(), re.MULTILINE)
SERVERS = [shlex.split(each)[4:] for each in COMMANDS if each.startswith("python -m trio_kv serve ")]
CLIENTS = [shlex.split(each)[1:] for each in COMMANDS if each.startswith("trio-kv ")]


def test_the_page_has_commands() -> None:
    """What is checked below is there."""
    assert len(SERVERS) == 3
    assert len(CLIENTS) >= 3


@pytest.mark.parametrize("words", SERVERS, ids=" ".join)
def test_servers_may_be_started_so(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The options are there, and go together."""
    assert main(["config", *words]) == ExitCode.OK


@pytest.mark.parametrize("words", CLIENTS, ids=" ".join)
def test_commands_of_clients_are_understood(words: list[str]) -> None:
    """Each word is a command, an option or its value."""
    _, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert bound.arguments


def test_tokens_are_made_as_shown(tmp_path: Path) -> None:
    """The file is the owner's alone, and has a writer and a reader; the client's has the token alone."""
    lines = [each for each in COMMANDS if each.startswith(("umask", "echo", "awk"))]
    assert len(lines) == 4
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-ec", "\n".join(lines)],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        check=True,
        timeout=60,
    )
    tokens = read_token_file(tmp_path / "tokens")
    assert [(each.name, each.is_reader) for each in tokens.values()] == [("app", False), ("report", True)]
    assert (tmp_path / "app.token").read_text().split()[0] in (tmp_path / "tokens").read_text()
