"""Claims of docs/protocol.md: what it shows is what a client sees."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.real_store import open_store

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"

LINES = re.compile(r"```text\n((?:[<>] .*\n)+)```")
"""An example: lines that are sent begin with `> `, lines that come back with `< `."""

EXAMPLES = [found[1].splitlines() for found in LINES.finditer(PAGE.read_text())]


class Revisions:
    """Which revisions, and ids of sessions, stand for those of the page: the former rise as these do."""

    def __init__(self) -> None:
        self.known: dict[int, int] = {0: 0}
        self.sessions: dict[str, str] = {}

    def are_alike(self, shown: object, came: object) -> bool:
        """Return whether a reply is what is shown, apart from how high its revisions are."""
        if isinstance(shown, dict) and isinstance(came, dict):
            return list(shown) == list(came) and all(
                self.is_known(shown[name], came[name])
                if name == "revision"
                else self.sessions.setdefault(shown[name], came[name]) == came[name]
                if name == "session"
                else self.are_alike(shown[name], came[name])
                for name in shown
            )
        if isinstance(shown, list) and isinstance(came, list):
            return len(shown) == len(came) and all(map(self.are_alike, shown, came))
        return type(shown) is type(came) and shown == came

    def is_known(self, shown: int, came: int) -> bool:
        """Return whether a revision fits to those before."""
        self.known.setdefault(shown, came)
        numbers = sorted(self.known.items())
        return self.known[shown] == came and numbers == sorted(numbers, key=lambda each: each[1])

    def fill_in(self, request: Any) -> Any:
        """Return a request with the revisions that there are in the place of those that are shown."""
        if isinstance(request, list):
            return list(map(self.fill_in, request))
        if not isinstance(request, dict):
            return request
        return {
            name: self.known[value]
            if name in ("revision", "if_revision")
            else self.sessions[value]
            if name == "session"
            else self.fill_in(value)
            for name, value in request.items()
        }


async def receive_line(stream: trio.SocketStream, buffer: bytearray) -> str:
    """Return the next line."""
    while b"\n" not in buffer:
        chunk = await stream.receive_some()
        assert chunk, "the server closed the connection"
        buffer += chunk
    line, _, rest = buffer.partition(b"\n")
    buffer[:] = rest
    return line.decode()


@pytest.mark.parametrize("lines", EXAMPLES, ids=lambda lines: lines[0][:40])
async def test_the_examples_of_the_protocol_are_answered_as_shown(lines: list[str], tmp_path: Path) -> None:
    """Each of them on a connection of its own, to an empty store."""
    revisions, buffer = Revisions(), bytearray()
    async with open_store(tmp_path) as (_, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        with trio.fail_after(20):
            for line in lines:
                if line.startswith(">"):
                    request = json.dumps(revisions.fill_in(json.loads(line[2:])))
                    await stream.send_all(request.encode() + b"\n")
                    continue
                came = await receive_line(stream, buffer)
                assert revisions.are_alike(json.loads(line[2:]), json.loads(came)), f"{line}\n{came}"
        await stream.aclose()


def test_there_are_examples() -> None:
    """The page is read as it is written."""
    assert EXAMPLES
