"""The unit for systemd and the file for containers that the page on operations shows: what they start is ours."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from trio_kv.cli.command_line import reorder
from trio_kv.cli.main import app

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
UNITS = dict(re.findall(r"^```ini\n# /etc/systemd/system/(\S+)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE))
CONTAINERS = re.findall(r"^```dockerfile\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def check_words(words: list[str]) -> None:
    """Check that a command line can be read."""
    assert words[0] == "/opt/trio_kv/bin/trio-kv"
    tokens = [os.devnull if word.startswith("/etc/") else word for word in words[1:]]
    app.parse_args(reorder(app, tokens), exit_on_error=False, print_error=False)


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_is_one(name: str, tmp_path: Path) -> None:
    """What it starts is a command of ours with options that there are, and systemd finds nothing to say of it."""
    (command,) = re.findall(r"^ExecStart=(.*)$", UNITS[name], re.MULTILINE)
    check_words(shlex.split(command))
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    unit = tmp_path / name
    unit.write_text(UNITS[name].replace("/opt/trio_kv/bin/trio-kv", shutil.which("true") or "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False, timeout=60
    )
    # It also looks at the units of this machine that this one needs, and may have to say something of those.
    assert (done.returncode, name in done.stdout + done.stderr) == (0, False), done.stderr


def test_the_container_starts_a_command_of_ours() -> None:
    """Its first process is the store itself, not a shell, so that it hears what the runtime sends."""
    (text,) = CONTAINERS
    words = [json.loads(each) for each in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", text, re.MULTILINE)]
    assert len(words) == 2
    check_words([*words[0], *words[1]])
