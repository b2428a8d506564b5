"""Every state in which a power cut may leave a data directory, after a process that died at any step of making one.

A name is durable when its directory was synced, and not before. So each of these is tried: a first start, a rebuild, a
restore or the making of a host's directory dies at one of its steps; a start follows, and writes are acknowledged on
top of what it found; then the power fails, and each directory comes back as it was at its last sync or at any moment
since.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

import pytest

from trio_kv.raft.entry import make_entry
from trio_kv.raft.ready import HardState, Ticket, Write
from trio_kv.storage.data_directory import DataDirectory, open_folder
from trio_kv.storage.errors import LostError, ManifestError, StorageError
from trio_kv.storage.host import make_host_folder, open_host_folder
from trio_kv.storage.making import make_in_folder
from trio_kv.storage.memory import MemoryFiles, PowerLossError
from trio_kv.storage.memory_folder import MemoryFolder, all_directories
from trio_kv.storage.node_directory import NodeDirectory
from trio_kv.storage.rebuild import end_rebuild, rebuild_node

SEGMENT_BYTES = 4096
NODES = 3

HOST: dict[str, Any] = {
    "cluster": "c0ffee" * 5 + "42",
    "nodes": NODES,
    "node": 2,
    "segment_bytes": SEGMENT_BYTES,
}

Operation = Callable[[MemoryFiles], object]


def start(content: MemoryFiles) -> DataDirectory:
    """Do what a server does at its start, up to where its nodes would run."""
    directory = open_folder(MemoryFolder(content), random=Random(7), nodes=NODES, segment_bytes=SEGMENT_BYTES)
    for node in directory.nodes:
        directory.settle(node)
    return directory


def first_start(content: MemoryFiles) -> None:
    start(content).close()


def rebuild(content: MemoryFiles) -> None:
    with start(content) as directory:
        rebuild_node(directory, 3, Random(8))


def restore(content: MemoryFiles) -> None:
    def fill(directories: Sequence[NodeDirectory]) -> None:
        for each in directories:
            with contextlib.closing(each.open()) as opened:
                writer = opened.snapshots.begin(5, 1)
                writer.add(0, b"what was restored")
                writer.finish()
                opened.wal.reset(5, 1)

    folder = MemoryFolder(content)
    make_in_folder(folder, nodes=NODES, random=Random(9), fill=fill, segment_bytes=SEGMENT_BYTES).close()


def start_host(content: MemoryFiles) -> DataDirectory:
    """Do what the server of a host does at its start."""
    directory = open_host_folder(MemoryFolder(content), **HOST)
    directory.settle(HOST["node"])
    return directory


def make_host(content: MemoryFiles) -> None:
    make_host_folder(MemoryFolder(content), **HOST, random=Random(7)).close()


def replace_host(content: MemoryFiles) -> None:
    make_host_folder(MemoryFolder(content), **HOST, random=Random(7), replaces=5).close()


def acknowledge(directory: DataDirectory) -> dict[int, int]:
    """Write something to the log of each node; return which entry is its last one."""
    last = {}
    for node in directory.nodes_here:
        with contextlib.closing(directory.node(node).open()) as opened:
            index, term = opened.wal.last_index + 1, opened.wal.hard_state.term + 1
            new = make_entry(index, term, 0, None)
            opened.wal.append([Write(Ticket(0, 0, 0), HardState(term, 1), None, (new,))])
            last[node] = index
    return last


def kept(directory: DataDirectory) -> dict[int, int]:
    """Return the last entry of each node, and raise what keeps one from starting."""
    last = {}
    for node in directory.nodes_here:
        found = directory.node(node)
        assert found.state == "ok", found.reason
        with contextlib.closing(found.open()) as opened:
            last[node] = opened.wal.last_index
    return last


def killed_at_each_step(before: MemoryFiles, operation: Operation) -> Iterator[tuple[int, MemoryFiles]]:
    """Yield what a process leaves that dies before one of its steps, and at last what it leaves when it lives."""
    for step in itertools.count():
        content = before.copy()
        left = step

        def count() -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise PowerLossError

        for each in all_directories(content):
            each.before_step = count
        is_killed = True
        # Tidying up after a failure ends at once as well, and a start that meets that says so in its own words.
        with contextlib.suppress(PowerLossError, StorageError):
            operation(content)
            is_killed = False
        for each in all_directories(content):
            each.before_step = None
        content.is_locked = False
        yield step, content
        if not is_killed:
            return


def power_cuts(content: MemoryFiles) -> Iterator[MemoryFiles]:
    """Yield what the disk may hold after a power cut: each directory as any of its images, the newest writes lost."""
    counts = [range(each.name_images) for each in all_directories(content)]
    for images in itertools.product(*counts):
        twin = content.copy()
        for each, image in zip(all_directories(twin), images, strict=True):
            each.crash_keeping((), image=image)
        twin.is_locked = False
        yield twin


def made() -> MemoryFiles:
    """A cluster that runs, with something acknowledged; all of it is durable."""
    content = MemoryFiles("data")
    with start(content) as directory:
        acknowledge(directory)
    (durable,) = power_cuts(content)
    return durable


def unfinished() -> MemoryFiles:
    """What a restore left that died, and all of it is durable."""
    content = next(
        content for step, content in killed_at_each_step(MemoryFiles("data"), restore) if step == 70
    )
    *_, durable = power_cuts(content)
    return durable


REPEATED = (restore, make_host, replace_host)
"""What is asked for again after it was interrupted: no start does it."""
CASES: dict[str, tuple[Callable[[], MemoryFiles], Operation]] = {
    "first start": (lambda: MemoryFiles("data"), first_start),
    "restore": (lambda: MemoryFiles("data"), restore),
    "restore after one that was killed": (unfinished, restore),
    "rebuild": (made, rebuild),
    "making of a host's": (lambda: MemoryFiles("data"), make_host),
    "replacing of a host's": (lambda: MemoryFiles("data"), replace_host),
}


def start_after_all(content: MemoryFiles, operation: Operation, where: str) -> tuple[DataDirectory, bool]:
    """Start, if need be after what was interrupted is asked for again; return whether it was."""
    is_host = operation in {make_host, replace_host}
    start_it = start_host if is_host else start
    try:
        return start_it(content), False
    except ManifestError as error:
        if operation not in REPEATED or "interrupted" not in error.message:
            raise AssertionError(where) from error
    except LostError as error:
        if not is_host:
            raise AssertionError(where) from error
    operation(content)
    return start_it(content), True


@pytest.mark.parametrize("name", CASES)
def test_what_is_acknowledged_after_a_kill_survives_a_power_cut(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a start finds after a kill at any step, what is acknowledged on top of it is there after a power cut."""
    before, operation = CASES[name]
    states = repeated = 0
    for step, content in killed_at_each_step(before(), operation):
        where = f"killed before step {step} of the {name}"
        directory, is_repeated = start_after_all(content, operation, where)
        repeated += is_repeated
        with directory:
            last = acknowledge(directory)
            for node in directory.nodes_here:
                assert directory.node(node).is_rebuilding or operation is not replace_host, where
                if directory.node(node).is_rebuilding:
                    end_rebuild(directory.node(node))
        for twin in power_cuts(content):
            again, is_repeated = start_after_all(twin, operation, where)
            with again:
                assert not is_repeated, where
                assert kept(again) == last, where
                assert not any(again.node(node).is_rebuilding for node in again.nodes_here), where
            states += 1
    with capsys.disabled():
        print(f" {states} states", end="")  # noqa: T201 - how much was tried is part of the claim
    assert states > 20
    assert (repeated > 20) == (operation in REPEATED)


@pytest.mark.parametrize("name", CASES)
def test_a_power_cut_at_any_step_leaves_what_was_or_what_is_to_be(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine that dies in the middle of it starts again, or says that a restore was interrupted."""
    before, operation = CASES[name]
    states = 0
    for step, content in killed_at_each_step(before(), operation):
        for twin in power_cuts(content):
            where = f"power cut before step {step} of the {name}"
            directory, _ = start_after_all(twin, operation, where)
            with directory:
                last = kept(directory)
                if name == "rebuild":
                    assert last == {1: 1, 2: 1, 3: 0 if directory.node(3).is_rebuilding else 1}, where
            states += 1
    with capsys.disabled():
        print(f" {states} states", end="")  # noqa: T201 - how much was tried is part of the claim
    assert states > 50


def test_what_was_never_synced_is_synced_before_it_is_believed() -> None:
    """A run without syncs leaves files whose renames may be durable and their content not: the next run sees to it."""
    content = made()
    with start(content) as directory:
        writer = directory.node(2).open().snapshots.begin(1, 1)
        writer.add(0, b"the state")
        writer.finish()
    for each in all_directories(content):
        for name in each.names():
            data = each.read(name)
            each.begin(name)
            each.append(name, data)
        each.sync_directory()
    lost = next(power_cuts(content))
    with pytest.raises(ManifestError, match="can't be read"):
        start(lost)
    with start(content) as directory:
        last = acknowledge(directory)
    for twin in power_cuts(content):
        with start(twin) as again:
            assert kept(again) == last
            with contextlib.closing(again.node(2).open()) as opened:
                assert opened.recovered.snapshot is not None


def test_nothing_is_left_behind() -> None:
    """Files with temporary names, and directories that were to become a node's, are gone after the next start."""
    seen = set()
    for _, content in killed_at_each_step(made(), rebuild):
        names = {name for each in all_directories(content) for name in (*each.names(), *each.folders)}
        seen |= {name for name in names if name.endswith((".tmp", ".new"))}
        with start(content) as directory:
            acknowledge(directory)
        for each in all_directories(content):
            assert not [name for name in (*each.names(), *each.folders) if name.endswith((".tmp", ".new"))]
    assert {"manifest.json.tmp", "identity.json.tmp", "node-3.new"} <= seen
