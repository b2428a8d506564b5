#!/usr/bin/env python3
"""Kill a server again and again under the client on Trio, and see what its calls end in.

    python bench/kill_client.py --kills 100 --dir build/kills

A server of three nodes, with all syncs, is killed by SIGKILL at random moments and started again on its data. Meanwhile
sixteen tasks share one client: each adds to a counter of its own, and half of them cancel their calls. Every call must
end in a result, in an error that says that nothing happened, or in one that says that it is not known; and each counter
must be where these say: not below what was answered, and not above what was asked for and not refused. A result must be
higher than the last one of its task.
"""

import argparse
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import trio

from trio_kv import NotConnectedError, OutcomeUnknownError, RefusedError, TrioClient, open_client

TASKS = 16
ALIVE_S = (0.3, 1.2)
"""How long a server lives once it answers."""
READY_S = 600.0


class Tally:
    """What became of the calls of one task."""

    def __init__(self, number: int) -> None:
        """Have asked for nothing."""
        self.key = f"counter/{number}"
        self._patiences_s = (0.01, 30.0, 30.0) if number % 2 else (60.0,)
        self.low = self.high = 0
        self.ends = {"counted": 0, "refused": 0, "not connected": 0, "unknown": 0, "cancelled": 0}

    async def count(self, kv: TrioClient, source: random.Random) -> None:
        """Add one, and see whether what is told can be."""
        self.high += 1
        with trio.move_on_after(source.choice(self._patiences_s)) as patience:
            try:
                total = (await kv.incr(self.key)).data
            except (RefusedError, NotConnectedError) as error:
                # It says that nothing happened.
                self.high -= 1
                self.ends["refused" if isinstance(error, RefusedError) else "not connected"] += 1
            except OutcomeUnknownError:
                self.ends["unknown"] += 1
            else:
                if not self.low < total <= self.high:
                    raise SystemExit(f"{self.key} is {total}, which must be in ({self.low}, {self.high}]")
                self.low = total
                self.ends["counted"] += 1
        self.ends["cancelled"] += patience.cancelled_caught


def start(port: int, data_dir: pathlib.Path) -> subprocess.Popen[bytes]:
    """Start a server; it may take a moment until it answers."""
    command = [sys.executable, "-m", "trio_kv", "serve", "--nodes", "3", "--data-dir", str(data_dir)]
    command += ["--port", str(port), "--control-port", "0"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def wait_answer(port: int, server: "subprocess.Popen[bytes]") -> None:
    """Wait until a write is answered."""
    with trio.fail_after(READY_S):
        while True:
            if server.poll() is not None:
                raise SystemExit(f"the server ended by itself, with {server.returncode}")
            try:
                async with open_client(port=port, timeout_s=2.0) as kv:
                    await kv.set("ready", 1)
            except (OutcomeUnknownError, RefusedError, NotConnectedError):
                await trio.sleep(0.05)
            else:
                return


async def run(kills: int, data_dir: pathlib.Path, seed: int) -> dict[str, int]:
    """Kill so many servers under a client; return what its calls ended in."""
    source = random.Random(seed)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    tallies = [Tally(number) for number in range(TASKS)]
    server = start(port, data_dir)
    try:
        await wait_answer(port, server)
        is_over = trio.Event()

        async def use(tally: Tally) -> None:
            while not is_over.is_set():
                await tally.count(kv, source)

        async with open_client(port=port, timeout_s=30.0) as kv:
            async with trio.open_nursery() as nursery:
                for tally in tallies:
                    nursery.start_soon(use, tally)
                for _ in range(kills):
                    await trio.sleep(source.uniform(*ALIVE_S))
                    server.kill()
                    server.wait()
                    server = start(port, data_dir)
                    await wait_answer(port, server)
                is_over.set()
            for tally in tallies:
                total = await kv.get(tally.key, int) or 0
                if not tally.low <= total <= tally.high:
                    raise SystemExit(f"{tally.key} is {total}, which must be in [{tally.low}, {tally.high}]")
            told = kv.statistics()
    finally:
        server.kill()
        server.wait()
    ends = {name: sum(tally.ends[name] for tally in tallies) for name in tallies[0].ends}
    return {**ends, "connections": told.connections, "repetitions": told.repetitions}


def main() -> int:
    """Kill, and tell what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument(
        "--dir", type=pathlib.Path, help="where the server keeps its data; default: a new one"
    )
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kill_client-", dir=arguments.dir))
    began_s = time.monotonic()
    try:
        told = trio.run(run, arguments.kills, folder / "data", arguments.seed)
    finally:
        shutil.rmtree(folder)
    print(f"{arguments.kills} kills in {time.monotonic() - began_s:.0f} s:", told)
    print("every call ended in a result, in an error or in `unknown`, and nothing was counted twice")
    return 0


if __name__ == "__main__":
    sys.exit(main())
