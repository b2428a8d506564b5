"""File systems in files, whose power can be cut; and servers on them. For bench/power_cuts.py; Linux, root.

What a copy of a mounted image holds is what a disk would hold if the power failed then: what the kernel has not
written to it yet is missing. (A disk that reorders what it was given, and was not told to flush, is not imitated.)
"""

import contextlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

from trio_kv.client import control

KINDS = {
    "ext4": (96, ("mkfs.ext4", "-q", "-F"), "loop,noatime"),
    "xfs": (320, ("mkfs.xfs", "-q", "-f"), "loop,noatime,nouuid"),
    "btrfs": (160, ("mkfs.btrfs", "-q", "-f"), "loop,noatime"),
}
"""Of each file system its size in MiB, what makes one, and how it is mounted."""
MANIFEST_NAME = "manifest.json"
REBUILDING_NAME = "rebuilding"
WAIT_S = 30.0
"""How long a busy machine may take for anything."""
NODES = 3
_TICK_S = 0.01
_HERE = pathlib.Path(__file__).parent
_SERVE = (
    "--log-json",
    "--port",
    "0",
    "--control-port",
    "0",
    "--idle-timeout",
    "0",
    "--nodes",
    str(NODES),
    "--segment-bytes",
    "65536",
)
_FAST = ("--election-timeout-ms", "100", "--heartbeat-ms", "30")


class NotStartedError(Exception):
    """A server ended, or stayed silent, instead of getting ready; the message is the end of its log."""

    def __init__(self, message: str, code: int | None) -> None:
        """Take the end of its log, and its exit code if it ended."""
        super().__init__(message)
        self.code = code


def run_tool(*words: object) -> None:
    """Run a tool of the system.

    Raises:
        SystemExit: there is none, or it failed.

    """
    try:
        subprocess.run([*map(str, words)], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise SystemExit(f"there is no {words[0]}") from error
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{words[0]} failed: {error.stderr[-300:]}") from error


def make_image(kind: str, image: pathlib.Path) -> None:
    """Make an empty file system in a file."""
    megabytes, mkfs, _ = KINDS[kind]
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    run_tool(*mkfs, image)


def copy_image(image: pathlib.Path, target: pathlib.Path) -> None:
    """Copy an image that is not mounted, or of which nothing changes meanwhile."""
    run_tool("cp", "--sparse=always", image, target)


@contextlib.contextmanager
def mounted(kind: str, image: pathlib.Path) -> Iterator[pathlib.Path]:
    """Mount an image beside itself as long as the block runs; after it, all of it is on the disk."""
    path = image.with_suffix(".mounted")
    path.mkdir(exist_ok=True)
    run_tool("mount", "-o", KINDS[kind][2], image, path)
    try:
        yield path
    finally:
        # A process that was killed a moment ago may still be on its way out.
        words = ("umount", path)
        wait_for(lambda: subprocess.run(words, capture_output=True, check=False).returncode == 0)


def cut_power(path: pathlib.Path, image: pathlib.Path, target: pathlib.Path) -> None:
    """Copy the image mounted at `path` as it is. Whoever writes there has been stopped."""
    source = next(line.split()[0] for line in _lines("/proc/self/mounts") if line.split()[1] == str(path))
    statistics = f"/sys/block/{pathlib.Path(source).name}/stat"
    while True:
        # The kernel writes on its own, too: a copy made meanwhile would be of no one moment.
        before = _writes(statistics)
        copy_image(image, target)
        if _writes(statistics) == before:
            return


def _writes(statistics: str) -> tuple[str, ...]:
    """Return how much a device was made to write, once it is done with it."""
    while True:
        fields = _lines(statistics)[0].split()
        if fields[8] == "0":  # nothing under way
            return (fields[4], fields[6], fields[11], fields[13])
        time.sleep(_TICK_S)


def _lines(path: str) -> list[str]:
    return pathlib.Path(path).read_text().splitlines()


def wait_for(condition: Any, seconds: float = WAIT_S) -> Any:
    """Call `condition` until what it returns is true, or time is over; return what it returned last."""
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(_TICK_S)
    return found


def run_command(
    *arguments: object, steps: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a trio_kv command to its end; with `steps`, under kill_at_step.py, which is told so."""
    return subprocess.run(
        _words(arguments, steps),
        env={**os.environ, **(steps or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=2 * WAIT_S,
    )


def _words(arguments: tuple[object, ...], steps: Mapping[str, str] | None) -> list[str]:
    # -P: the trio_kv that we import, and not what lies in the directory where we were started.
    program = ["-P", "-m", "trio_kv"] if steps is None else [str(_HERE / "kill_at_step.py")]
    return [sys.executable, *program, *map(str, arguments)]


class Server:
    """A server of three nodes, and a connection to it.

    Args:
        data: its data directory.
        steps: for kill_at_step.py, if it is to run under it.

    Raises:
        NotStartedError: it was not ready in time.

    """

    def __init__(self, data: pathlib.Path, steps: Mapping[str, str] | None = None) -> None:
        """Start it, and wait until it is ready."""
        self.data = data
        self._log = data.parent.with_suffix(".log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                _words(("serve", "--data-dir", data, *_SERVE, *_FAST), steps),
                env={**os.environ, **(steps or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        wait_for(lambda: self._started() or self.process.poll() is not None)
        try:
            port = (self._started() or {})["port"]
            self._connection = socket.create_connection(("127.0.0.1", port), WAIT_S)
        except (KeyError, ConnectionRefusedError) as error:  # the second one: killed the moment after
            code = self.process.poll()
            self.kill()
            how = f"not ready after {WAIT_S:g} s" if code is None else f"exit {code}"
            raise NotStartedError(f"{how}: {self._log.read_text()[-500:]}", code) from error
        self._lines = self._connection.makefile("rb")

    def _started(self) -> dict[str, Any] | None:
        for line in self._log.read_text().splitlines():
            if '"server.started"' in line:
                with contextlib.suppress(ValueError):  # half of it
                    event: dict[str, Any] = json.loads(line)
                    return event
        return None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request; return its reply. Raises OSError where the server is gone."""
        self._connection.sendall(json.dumps(request).encode() + b"\n")
        line = self._lines.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the server is gone")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def nodes(self) -> list[dict[str, Any]]:
        """Return the rows of `status`."""
        rows: list[dict[str, Any]] = self.ask({"op": "status"})["nodes"]
        return rows

    def control(self, command: str, node: int) -> dict[str, Any]:
        """Send a command through the control door; return the reply. Raises OSError where the server is gone."""
        return control.command(control.find_door(self.data, None), command, {"node": node}, timeout_s=WAIT_S)

    def is_up(self) -> bool:
        """Return whether all nodes run, and none is being rebuilt."""
        is_rebuilding = any(self.data.glob(f"node-[1-9]/{REBUILDING_NAME}"))
        return not is_rebuilding and all(row["state"] == "up" for row in self.nodes())

    def was_killed(self) -> bool:
        """Return whether it died of kill -9."""
        return self.process.poll() == -signal.SIGKILL

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it do nothing from now on."""
        self.process.send_signal(signal.SIGSTOP)

    def _end(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(WAIT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._lines.close()
        self._connection.close()
