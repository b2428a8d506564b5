"""Runs tasks in worker processes, as many at a time as there are cores.

A task is never lost without a word: if its worker dies or does not come to an end, that is its outcome. Workers are in
a process group of their own, so that Ctrl-C reaches the campaign alone, which then ends them.
"""

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import IO

import msgspec

from trio_kv.same_code import same_code
from trio_kv.sim.attempt import Outcome, Task

TASK_WITHIN_S = 300.0
"""A seed takes fractions of a second, or some seconds; one that takes this long goes round in circles."""
TASKS_MAX = 200
"""A worker that did so many is replaced: whatever a long-lived process gathers must not add up."""
_LOOK_S = 1.0
"""How often is looked for workers that do not come to an end."""
LAST_WORDS_BYTES = 2000
"""How much of what a dead worker wrote to stderr is told."""
WORKER = same_code("trio_kv.sim.worker")
"""The command that starts a worker."""


class Worker:
    """A process that runs one task at a time."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the process.

        Args:
            command: starts a worker.
            environment: variables that differ from ours.

        """
        self.task: Task | None = None
        self.began_s = 0.0
        self.done = 0
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._process = subprocess.Popen(  # noqa: S603 - the command is our own, or a test's
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **environment},
            process_group=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._tasks, self.outcomes = self._process.stdin, self._process.stdout

    def give(self, task: Task) -> None:
        """Let it run a task; if it died meanwhile, `take` will say so."""
        assert self.task is None
        self.task, self.began_s = task, time.monotonic()
        try:
            self._tasks.write(msgspec.json.encode(task) + b"\n")
            self._tasks.flush()
        except BrokenPipeError:
            return

    def take(self) -> Outcome:
        """Return the outcome of its task, once `outcomes` can be read; after a loss the worker must be ended."""
        assert self.task is not None
        line = self.outcomes.readline()
        if not line.endswith(b"\n"):
            return self.lose(self._last_words())
        outcome = _OUTCOME.decode(line)
        assert outcome.task == self.task
        self.task = None
        self.done += 1
        return outcome

    def lose(self, why: str) -> Outcome:
        """Return what is told of the task that it did not finish."""
        assert self.task is not None
        return Outcome(task=self.task, took_s=time.monotonic() - self.began_s, lost=why)

    def _last_words(self) -> str:
        code = self._process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        self._errors.seek(0)
        words = self._errors.read()[-LAST_WORDS_BYTES:].decode(errors="replace").strip()
        return f"its process was {how}\n{words}" if code < 0 else f"its process {how}\n{words}"

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._tasks, self.outcomes, self._errors):
            _close(pipe)


_OUTCOME = msgspec.json.Decoder(Outcome)


def _close(pipe: IO[bytes]) -> None:
    try:
        pipe.close()
    except BrokenPipeError:  # a task that nobody will read any more
        return


def run_in_processes(
    tasks: Iterator[Task],
    jobs: int,
    *,
    command: Sequence[str] = WORKER,
    environment: Mapping[str, str] | None = None,
    within_s: float = TASK_WITHIN_S,
) -> Generator[Outcome, None, None]:
    """Run tasks in processes and yield their outcomes, in the order in which they come.

    A task is taken from `tasks` when a worker is free for it, not before. Closing the generator ends all processes.

    Args:
        tasks: what is to be run.
        jobs: how many processes.
        command: starts a worker.
        environment: variables that differ from ours.
        within_s: a task that takes longer is given up.

    """
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        workers: dict[Worker, ExitStack] = {}

        def retire(worker: Worker) -> None:
            selector.unregister(worker.outcomes)
            workers.pop(worker).close()

        def hand_out() -> None:
            idle = [worker for worker in workers if worker.task is None]
            while idle or len(workers) < jobs:
                task = next(tasks, None)
                if task is None:
                    return
                if idle:
                    worker = idle.pop()
                else:
                    worker = Worker(command, environment or {})
                    workers[worker] = stack.enter_context(ExitStack())
                    workers[worker].callback(worker.end)
                    selector.register(worker.outcomes, selectors.EVENT_READ, worker)
                worker.give(task)

        hand_out()
        while any(worker.task is not None for worker in workers):
            ready = [key.data for key, _ in selector.select(timeout=min(within_s, _LOOK_S))]
            for worker in ready:
                if worker.task is None:  # it died while it had nothing to do
                    retire(worker)
                    continue
                outcome = worker.take()
                if outcome.lost is not None or worker.done >= TASKS_MAX:
                    retire(worker)
                yield outcome
            late_s = time.monotonic() - within_s
            for worker in [each for each in workers if each.task is not None and each.began_s < late_s]:
                outcome = worker.lose(f"it did not end within {within_s:g} s")
                retire(worker)
                yield outcome
            hand_out()
