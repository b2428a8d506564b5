"""The data directory of the whole world: the real code of a first start, a start and a rebuild, on a disk in memory.

It dies at any of their steps, as a process that is killed does, or together with the power: then names come back as
they were at their last sync, or at any moment since. Whatever that leaves, the next start must find the cluster that
was there, with each node's directory in its place.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from random import Random

from trio_kv.check.violation import Violation
from trio_kv.sim.host import Host
from trio_kv.storage.data_directory import DataDirectory, open_folder
from trio_kv.storage.errors import StorageError
from trio_kv.storage.making import make_in_folder
from trio_kv.storage.manifest import MANIFEST_NAME
from trio_kv.storage.memory import MemoryFiles, PowerLossError
from trio_kv.storage.memory_folder import MemoryFolder, all_directories, crash_all
from trio_kv.storage.node_directory import NEW_SUFFIX, node_name
from trio_kv.storage.rebuild import rebuild_node

STEPS_OF_A_NODE = 15
"""About so many steps has the making of one node's directory."""


class Root:
    """An open data directory that outlives all lives of its nodes, and processes that die."""

    def __init__(self, host: Host, nodes: tuple[int, ...]) -> None:
        """Make the cluster; that may take some attempts.

        Raises:
            Violation: what an attempt left behind keeps the next one from starting.

        """
        self._host = host
        self._nodes = nodes
        self._random = Random(host.random.getrandbits(64))
        self._content = MemoryFiles("data")
        is_restored = self._random.random() < 0.3
        for _ in range(self._random.choice((0, 0, 1, 2))):
            first = self._first(is_restored=is_restored)
            if self._is_killed_in(lambda: first().close(), len(nodes) * STEPS_OF_A_NODE):  # noqa: B023 - called here
                host.coverage.reach("first start interrupted")
            if self._random.random() < 0.5:
                crash_all(self._content, self._random)
        self.directory = self._start(self._first(is_restored=is_restored))

    def content(self, node: int) -> MemoryFiles:
        """Return what stands in a node's directory."""
        return self._content.folders[node_name(node)]

    def cut_power(self) -> None:
        """Lose what is not durable of the directory's own names, and start again. No node runs.

        Raises:
            Violation: that can't be started.

        """
        before = {node: self._content.folders.get(node_name(node)) for node in self._nodes}
        self._content.crash(self._random)
        self._restart()
        for node, content in before.items():
            if self._content.folders.get(node_name(node)) is not content:
                raise Violation(f"n{node} had a directory, and after a power cut another one or none")

    def rebuild(self, node: int, running: Collection[int]) -> Path | None:
        """Put a new directory in the place of a node's; the process may die of it, and be started again.

        Raises:
            StorageError: it can't be done now, or was not.
            Violation: what is left can't be started.

        """
        before, content = self.directory.manifest.incarnations[node], self.content(node)
        moved: Path | None = None

        def call() -> None:
            nonlocal moved
            moved = rebuild_node(self.directory, node, self._random, running)

        if self._random.random() < 0.5:
            call()
        elif self._is_killed_in(call, 2 * STEPS_OF_A_NODE):
            self._host.coverage.reach("rebuild interrupted")
            if self._random.random() < 0.5:
                self._content.crash(self._random)
                for name in (node_name(node), node_name(node) + NEW_SUFFIX):
                    if name in self._content.folders:
                        crash_all(self._content.folders[name], self._random)
            self._restart()
        if self.directory.manifest.incarnations[node] == before:
            if self._content.folders.get(node_name(node)) is not content:
                raise Violation(f"n{node} has lost its directory to a rebuild that was interrupted")
            raise StorageError("the rebuild was interrupted", "ask for it again")
        return moved

    def _restart(self) -> None:
        self.directory.close()
        self.directory = self._start(self._open)
        for node in self._nodes:
            self.directory.settle(node)

    def _start(self, start: Callable[[], DataDirectory]) -> DataDirectory:
        try:
            return start()
        except StorageError as error:
            raise Violation(f"what an interrupted process left is not started: {error}") from error

    def _first(self, *, is_restored: bool) -> Callable[[], DataDirectory]:
        """Return what a person does next: a cluster that was restored as a whole is opened, and not restored again."""
        return self._make if is_restored and MANIFEST_NAME not in self._content.names() else self._open

    def _open(self) -> DataDirectory:
        return open_folder(
            MemoryFolder(self._content),
            random=self._random,
            nodes=len(self._nodes),
            segment_bytes=self._host.plan.segment_bytes,
        )

    def _make(self) -> DataDirectory:
        """Make the cluster as a restored one is made."""
        return make_in_folder(
            MemoryFolder(self._content),
            nodes=len(self._nodes),
            random=self._random,
            fill=lambda directories: directories,
            segment_bytes=self._host.plan.segment_bytes,
        )

    def _is_killed_in(self, call: Callable[[], object], steps: int) -> bool:
        """Carry out a call, and let the process die before one of so many steps; return whether it died in the call.

        In about half of the cases it dies at the moment that matters most: the manifest has its name, which is not
        durable yet.
        """
        before = self._manifest()
        left = self._random.choice((self._random.randrange(steps), 10 * steps))

        def step() -> None:
            nonlocal left
            left -= 1
            if left > steps and self._manifest() != before:
                left = -1
            if left < 0:
                raise PowerLossError

        self._set_before_step(step)
        try:
            call()
        except (PowerLossError, StorageError):
            if left >= 0:
                raise
            return True
        finally:
            self._set_before_step(None)
            self._content.is_locked = False
        return False

    def _manifest(self) -> bytes | None:
        return self._content.content(MANIFEST_NAME) if MANIFEST_NAME in self._content.names() else None

    def _set_before_step(self, step: Callable[[], None] | None) -> None:
        for each in all_directories(self._content):
            each.before_step = step
