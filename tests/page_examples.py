"""The examples of a page, carried out in their order as a reader would: by bash, beside a server that runs.

A block of `console` has commands behind `$`, and what they show. `...` in it stands for anything. A command that starts
a server is not left to bash: the server runs in this process, with the options that stand there, and on other ports. It
is stopped for commands that look at what a server leaves.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from subprocess import PIPE

import attrs
import trio

from tests import quick_commands
from trio_kv.cli.command_line import reorder
from trio_kv.cli.house import House, open_house
from trio_kv.cli.main import app
from trio_kv.cli.options import ServeOptions
from trio_kv.cli.serve import open_output

ROOT = Path(__file__).parents[1]
SERVER = re.compile(r"(?:pip install \. && )?(?:python -m trio_kv|trio-kv)(?: serve)?((?: --?[a-z].*)?)")
"""What starts one: no word stands there but `serve`."""
WITHOUT_SERVER = re.compile(r"\btrio-kv (wal|trace|rebuild)\b")
NOT_RUN = {
    r"pip install |^nox|^pytest|^\.|^python3? (-m venv|bench/)": "it installs, or is what `nox` runs",
    r"trio-kv (bench|sim|chaos|top)\b": "it takes long: it has tests of its own",
    r"\btrial\b": "three servers make it: `test_hosts.py` carries it out",
    r"^systemctl|^journalctl|^sudo|^docker|^install": "it changes the machine",
}
"""Commands that are not carried out, and why."""
TOOLS = ("curl", "jq", "openssl")
"""What not every machine has. Where it is missing, what needs it is not carried out."""


@attrs.frozen
class Example:
    """A command of a page, or a Python program."""

    line: int
    text: str
    shown: str
    is_python: bool = False

    @property
    def is_run(self) -> bool:
        """Whether it is carried out at all."""
        is_possible = all(shutil.which(tool) for tool in TOOLS if re.search(rf"\b{tool}\b", self.text))
        return is_possible and not any(re.search(pattern, self.text) for pattern in NOT_RUN)

    def matches(self, out: str) -> bool:
        """Return whether that is what the page shows, if it shows anything."""
        pattern = ".*".join(re.escape(part) for part in self.shown.strip().split("..."))
        return not self.shown or re.fullmatch(pattern, out.strip(), re.DOTALL) is not None


def examples(page: Path) -> list[Example]:
    """Return the examples of a page, in their order."""
    found: list[Example] = []
    content = page.read_text()
    for block in re.finditer(r"^```(\w+)\n(.*?)^```", content, re.DOTALL | re.MULTILINE):
        line = content.count("\n", 0, block.start()) + 2
        if block[1] == "python":
            found.append(Example(line, block[2], "", is_python=True))
        elif block[1] == "console":
            commands = re.finditer(r"^\$ (.*\n(?:> .*\n)*)((?:(?!\$ ).*\n)*)", block[2], re.MULTILINE)
            for each in commands:
                text = each[1].rstrip("\n").replace("\n> ", "\n")
                found.append(Example(line + block[2].count("\n", 0, each.start()), text, each[2]))
    return found


@attrs.define
class Bash:
    """A bash that carries out one command after the other in a directory."""

    _process: trio.Process
    _directory: Path

    async def run(self, command: str) -> tuple[int, str]:
        """Return the exit code of a command, and all that it said."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        out = self._directory / "out"
        out.write_text("")
        (self._directory / "command").write_text(command)
        line = f'eval "$(<{self._directory}/command)" </dev/null >>{out} 2>&1; echo "$?"\n'
        await self._process.stdin.send_all(line.encode())
        code = b""
        while not code.endswith(b"\n"):
            more = await self._process.stdout.receive_some()
            assert more, f"bash ended in {command}: {out.read_text()}"
            code += more
        return int(code), out.read_text()


@contextmanager
def open_commands(folder: Path) -> Iterator[Path]:
    """Let our commands be had without a start-up each; see `quick_commands`. Give the directory by which they are."""
    with subprocess.Popen(
        [sys.executable, quick_commands.__file__, str(folder)], stdout=PIPE, cwd=ROOT, env=os.environ
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield folder
        process.kill()


@asynccontextmanager
async def open_bash(directory: Path, place: Path, commands: Path) -> AsyncIterator[Bash]:
    """Run a bash in a directory, which has our commands; the place is for us alone."""
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("TRIO_KV_")},
        "TRIO_KV_QUICK": str(commands),
        "TRIO_KV_PYTHON": sys.executable,
        "NO_COLOR": "1",
    }
    bash = await trio.lowlevel.open_process(
        ["bash", "--noprofile", "--norc"], stdin=PIPE, stdout=PIPE, cwd=directory, env=environ
    )
    try:
        assert bash.stdin is not None
        await bash.stdin.send_all(quick_commands.FUNCTIONS.encode())
        yield Bash(bash, place)
    finally:
        bash.kill()
        with trio.CancelScope(shield=True):
            await bash.wait()


@attrs.define
class Reader:
    """Carries out the examples of a page."""

    _bash: Bash
    directory: Path
    _options: ServeOptions = attrs.Factory(ServeOptions)
    _server: AsyncExitStack | None = None
    _house: House | None = None

    async def carry_out(self, example: Example) -> None:
        """Carry it out, and look whether it shows what stands there."""
        server = SERVER.fullmatch(example.text.partition("  #")[0].strip())
        if server is not None and example.is_run:
            await self.stop()
            self._options = _read_options(server[1])
            await self._start()
        elif example.is_run:
            await (self.stop() if WITHOUT_SERVER.search(example.text) else self._start())
            code, out = await self._bash.run(self._moved(example))
            assert code == 0 or example.shown, f"line {example.line}: {example.text}: exit code {code}: {out}"
            assert example.matches(out), (
                f"line {example.line}: {example.text} shows\n{out}\nand not\n{example.shown}"
            )

    async def stop(self) -> None:
        """Stop the server, if one runs."""
        if self._server is not None:
            await self._server.aclose()
            self._server = self._house = None

    async def _start(self) -> None:
        if self._server is None:
            self._server = AsyncExitStack()
            trace, _ = self._server.enter_context(open_output(self._options))
            options = attrs.evolve(
                self._options,
                host="127.0.0.1",
                port=0,
                control_port=0,
                has_no_fsync=True,
                nodes=self._options.nodes,
            )
            self._house = await self._server.enter_async_context(open_house(options, trace))
            await self._house.wait_leader()
            # It answers once something of its term is committed: only then it is sure that it leads.
            await self._bash.run(f"trio-kv get nothing --port {self._house.port}")
        assert self._house is not None
        # Whoever types is slower than an election.
        await self._house.wait_leader()

    def _moved(self, example: Example) -> str:
        """Return an example as it is for the ports of the server."""
        port, control_port = (0, 0) if self._house is None else (self._house.port, self._house.control_port)
        text = example.text.replace("127.0.0.1:3002", f"127.0.0.1:{control_port}").replace("3001", str(port))
        if example.is_python:
            text = re.sub(r"\b(Client|open_client)\(\)", rf"\1(port={port})", text)
            (self.directory / "example.py").write_text(text)
            return "python example.py"
        text = text.replace("--host store.example.org", "--host 127.0.0.1 --server-name store.example.org")
        return f"export TRIO_KV_PORT={port}\n{text}" if port else text


def _read_options(words: str) -> ServeOptions:
    tokens = ["serve", *shlex.split(words)]
    _, bound, _ = app.parse_args(reorder(app, tokens), exit_on_error=False, print_error=False)
    options = bound.arguments.get("options", ServeOptions())
    assert isinstance(options, ServeOptions)
    options.check()
    return options


@asynccontextmanager
async def open_reader(directory: Path, commands: Path) -> AsyncIterator[Reader]:
    """Give who carries out the examples of a page, in a directory of their own, by these commands."""
    place, here = directory / "quick", directory / "here"
    place.mkdir()
    here.mkdir()
    async with open_bash(here, place, commands) as bash:
        reader = Reader(bash, here)
        try:
            yield reader
        finally:
            await reader.stop()  # noqa: ASYNC102 - a server that is cancelled stops at once
