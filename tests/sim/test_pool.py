"""Worker processes: every seed has an outcome, and no process is left behind."""

import os
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from trio_kv.sim.attempt import Task
from trio_kv.sim.campaign import run_here
from trio_kv.sim.pool import Worker, run_in_processes

Patch = pytest.MonkeyPatch


def tasks_of(*seeds: int) -> Iterator[Task]:
    return (Task(world="core", seed=seed) for seed in seeds)


def test_processes_give_what_one_process_gives() -> None:
    """Seeds have the same outcomes in workers as here, but for the time they take."""
    with closing(run_in_processes(tasks_of(*range(1, 6)), 2)) as outcomes:
        found = {each.task.seed: each.figures for each in outcomes}
    assert found == {each.task.seed: each.figures for each in run_here(tasks_of(*range(1, 6)))}


DYING = """
import os, signal, trio_kv.sim.worker as worker
real = worker.run_task
def run_task(task):
    if task.seed == 3: os.kill(os.getpid(), signal.SIGKILL)
    if task.seed == 4: raise RuntimeError("no such day")
    if task.seed == 5: signal.pause()
    return real(task)
worker.run_task = run_task
worker.main()
"""


def test_a_worker_that_dies_is_told_and_never_lost() -> None:
    """A killed or broken process takes its own seed with it, which is told, and no other."""
    command = (sys.executable, "-c", DYING)
    with closing(run_in_processes(tasks_of(1, 2, 3, 4, 6, 7), 2, command=command)) as outcomes:
        found = {each.task.seed: each for each in outcomes}
    assert sorted(found) == [1, 2, 3, 4, 6, 7]
    assert found[3].lost is not None
    assert "killed by SIGKILL" in found[3].lost
    assert found[4].lost is not None
    assert "no such day" in found[4].lost
    assert all(found[seed].figures is not None for seed in (1, 2, 6, 7))


def test_a_seed_without_end_is_given_up() -> None:
    """A process that hangs is ended, and its seed told; the next one gets another process."""
    command = (sys.executable, "-c", DYING)
    with closing(run_in_processes(tasks_of(5, 5, 5), 1, command=command, within_s=0.0)) as outcomes:
        assert [each.lost for each in outcomes] == ["it did not end within 0 s"] * 3


def test_closing_ends_all_processes(monkeypatch: Patch) -> None:
    """Whoever stops listening leaves no process behind."""
    started: list[int] = []
    real = Worker.give

    def give(self: Worker, task: Task) -> None:
        started.append(self._process.pid)
        real(self, task)

    monkeypatch.setattr(Worker, "give", give)
    with closing(run_in_processes(tasks_of(*range(1, 99)), 2)) as outcomes:
        next(outcomes)
    assert len(set(started)) == 2
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_is_replaced_before_it_grows_old(monkeypatch: Patch) -> None:
    """After a number of seeds a worker gives way to another, and no seed is lost by it."""
    monkeypatch.setattr("trio_kv.sim.pool.TASKS_MAX", 2)
    started: list[Worker] = []
    real = Worker.__init__

    def init(self: Worker, *arguments: object) -> None:
        started.append(self)
        real(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Worker, "__init__", init)
    with closing(run_in_processes(tasks_of(*range(1, 6)), 1)) as outcomes:
        assert [each.task.seed for each in outcomes] == [1, 2, 3, 4, 5]
    assert len(started) == 3
