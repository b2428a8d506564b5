"""How the first process keeps the others going."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from trio_kv.cli import processes
from trio_kv.cli.worker import Spec
from trio_kv.raft.config import RaftConfig
from trio_kv.trace.processes import ProcessEnded
from trio_kv.trace.trace import Record, Trace


class Told:
    """A sink that keeps what it is told."""

    level = 0

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, record: Record) -> None:
        self.records.append(record)


def open_files() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def spec(path: Path) -> Spec:
    return Spec(
        data_dir=str(path),
        directory=0,
        listener=0,
        process=1,
        nodes={0: (1,), 1: (2,)},
        addresses={},
        secret="",
        raft=RaftConfig(),
        segment_bytes=1,
        is_synced=True,
        level=20,
        trace=None,
        processor=None,
    )


async def test_a_process_that_cannot_be_started_is_tried_again_and_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """Out of memory or of descriptors, just now: the nodes of the first process go on, and no pipe is left open."""

    async def refuse(*_: Any, **__: Any) -> trio.Process:
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(trio.lowlevel, "open_process", refuse)
    told, before = Told(), open_files()
    with trio.move_on_after(1.0):
        await processes._keep(spec(tmp_path), Trace([told]))
    reasons = [each.event.reason for each in told.records if isinstance(each.event, ProcessEnded)]
    assert len(reasons) > 2
    assert set(reasons) == {"it can't be started: resource temporarily unavailable"}
    assert open_files() == before


async def test_a_process_that_dies_at_once_is_one_that_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it was to do was told before anybody could be gone who reads it."""
    started = trio.lowlevel.open_process

    async def die(*_: Any, **__: Any) -> trio.Process:
        child = await started(["/bin/false"])
        await child.wait()
        return child

    monkeypatch.setattr(trio.lowlevel, "open_process", die)
    assert await processes._live(spec(tmp_path), Trace([])) == "exit code 1"
