"""A server for one run: a process of its own on a temporary directory, which is removed at the end."""

import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import msgspec

from trio_kv.client.errors import NotConnectedError
from trio_kv.same_code import same_code

START_S = 60.0
STOP_S = 10.0
LINES_MAX = 20
"""So many lines of a server that does not start are told."""


@contextmanager
def open_own_server(nodes: int) -> Iterator[int]:
    """Start a server; give its port for clients, and end it when the block ends.

    Args:
        nodes: how many.

    Raises:
        NotConnectedError: it does not get ready; the message has what it said.

    """
    with tempfile.TemporaryDirectory(prefix="trio_kv-bench-", ignore_cleanup_errors=True) as folder:
        command = [
            *same_code("trio_kv", "serve", "--log-json", "--port", "0", "--control-port", "0"),
            *("--nodes", str(nodes), "--data-dir", str(Path(folder) / "data")),
        ]
        # A session of its own: a Ctrl-C is for the load, which then ends the server.
        with subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            try:
                yield _wait_ready(process)
            finally:
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_S)
                process.kill()


def _wait_ready(process: subprocess.Popen[bytes]) -> int:
    """Return the port, once the server says that it is ready; go on reading, for the pipe must not fill."""
    assert process.stderr is not None
    timer = threading.Timer(START_S, process.kill)
    timer.start()
    lines = []
    try:
        for line in process.stderr:
            with suppress(msgspec.DecodeError):
                event = msgspec.json.decode(line, type=dict[str, object])
                if event.get("event") == "server.started":
                    threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
                    return int(str(event["port"]))
            lines.append(line.decode(errors="replace"))
    finally:
        # Also after a Ctrl-C: this process ends with the last of its threads.
        timer.cancel()
    raise NotConnectedError(f"the server did not start: {''.join(lines[-LINES_MAX:]).strip()}")


def _drain(stream: IO[bytes]) -> None:
    with suppress(ValueError):  # it is closed
        for _ in stream:
            pass
