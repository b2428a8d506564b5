"""Claims of docs/security.md, beside its commands, which `test_readme` carries out: what they make is what is said."""

import os
import re
import subprocess
import sys
from pathlib import Path

from trio_kv.cli.access import read_token_file

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
COMMANDS = re.findall(r"^\$ (.*)$", PAGE.read_text(), re.MULTILINE)


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
