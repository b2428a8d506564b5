"""`python -m trio_kv.sim.worker`: runs the tasks that come as lines on stdin, and answers each by a line.

It ends when stdin does: a worker whose campaign died runs its last seed to the end and is gone.
"""

import os
import sys
from typing import BinaryIO

import msgspec

from trio_kv.sim.attempt import Task, run_task


def serve(tasks: BinaryIO, outcomes: BinaryIO) -> None:
    """Answer every task."""
    decoder, encoder = msgspec.json.Decoder(Task), msgspec.json.Encoder()
    for line in tasks:
        outcomes.write(encoder.encode(run_task(decoder.decode(line))) + b"\n")
        outcomes.flush()


def main() -> None:
    """Serve this process' stdin and stdout."""
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as outcomes:
        # Whatever else the code under test prints must not come between the answers.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        serve(sys.stdin.buffer, outcomes)


if __name__ == "__main__":
    main()
