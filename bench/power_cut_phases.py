"""What is interrupted, and what has to be true after the power came back. For bench/power_cuts.py."""

import pathlib
from collections.abc import Callable, Mapping
from signal import SIGKILL
from typing import Literal

import attrs
from power_cut_disk import MANIFEST_NAME, NODES, NotStartedError, Server, run_command, wait_for

from trio_kv.storage import inspect
from trio_kv.storage.errors import StorageError
from trio_kv.storage.restore import check_snapshot

LOST_NODE = 3
"""The node that is rebuilt."""
_ALREADY = "already"
"""What `backup` says, among other words, where the backup is."""

Steps = Mapping[str, str] | None


@attrs.define
class FoundError(Exception):
    """Something that must not be."""

    kind: Literal["refused", "down", "damaged", "lost"]
    words: str


@attrs.define
class Trial:
    """One store, what was promised of it, and how far it is.

    Args:
        root: where the disk is mounted.
        outside: a directory on another disk.
        phase: what is done with it.

    """

    root: pathlib.Path
    outside: pathlib.Path
    phase: "Phase"
    acknowledged: dict[str, str] = attrs.field(factory=dict)
    is_interrupted: bool = False
    """Whether a command was killed and neither ended since nor was found to have had its effect."""
    was_killed: bool = False
    """Whether the step was reached that was to be the last one."""
    has_backup: bool = False
    """Whether `backup` said that there is one."""

    @property
    def data(self) -> pathlib.Path:
        """The data directory."""
        return self.root / "data"

    @property
    def backup(self) -> pathlib.Path:
        """The backup's file."""
        return self.root / "backup.snap"

    @property
    def source(self) -> pathlib.Path:
        """The file to restore."""
        return self.outside / "source.snap"

    def write(self, server: Server, count: int, size: int = 100) -> None:
        """Write new keys, one after the other, and note what was acknowledged."""
        for _ in range(count):
            key = f"key{len(self.acknowledged)}"
            value = f"{key} ".ljust(size, "x")
            if server.ask({"key": key, "value": value})["status"] == "ok":
                self.acknowledged[key] = value

    def serve(self, steps: Steps, work: Callable[["Trial", Server], None]) -> None:
        """Run a server, let it do its work, and end it in order, unless it is killed as it was asked to be."""
        try:
            with Server(self.data, steps) as server:
                try:
                    work(self, server)
                    server.stop()
                except OSError:
                    if not wait_for(server.was_killed):
                        raise
                self.was_killed = server.was_killed()
        except NotStartedError as error:
            if error.code != -SIGKILL:
                raise FoundError("refused", str(error)) from error
            self.was_killed = True

    def run(self, *arguments: object, steps: Steps = None, accepted: str = "") -> bool:
        """Run a command; return whether it did what it was asked for, or says that this was done.

        Raises:
            FoundError: it failed.

        """
        self.is_interrupted = True
        done = run_command(*arguments, steps=steps)
        if done.returncode == -SIGKILL:
            self.was_killed = True
            return False
        self.is_interrupted = False
        if done.returncode != 0 and not (accepted and accepted in done.stderr):
            raise FoundError("refused", f"{arguments[0]}: exit {done.returncode}, {done.stderr[-300:]}")
        return done.returncode == 0

    def start_again(self) -> Server:
        """Start a server, as a person would who follows what is said; return it when all nodes are up.

        Raises:
            FoundError: it can't be had.

        """
        if self.is_interrupted and self.phase.name == "restore" and not (self.data / MANIFEST_NAME).exists():
            self.phase.act(self, None)
        try:
            server = Server(self.data)
        except NotStartedError as error:
            raise FoundError("refused", str(error)) from error
        try:
            self._mend(server)
        except BaseException:
            server.kill()
            raise
        self.is_interrupted = False
        if self.phase.name == "restore":
            self.acknowledged.update(self.phase.given)
        return server

    def _mend(self, server: Server) -> None:
        is_lost = server.nodes()[LOST_NODE - 1]["state"] in {"damaged", "needs_rebuild"}
        if self.is_interrupted and is_lost:
            self.rebuild(server)
        if not wait_for(server.is_up):
            rows = [f"n{row['node']} {row['state']} {row.get('reason', '')}" for row in server.nodes()]
            raise FoundError("down", "; ".join(rows))

    def rebuild(self, server: Server) -> None:
        """Let a running server rebuild the node."""
        server.control("stop", LOST_NODE)
        reply = server.control("rebuild", LOST_NODE)
        if reply.get("status") != "ok":
            raise FoundError("refused", f"ctl rebuild: {reply.get('message')}")

    def check(self) -> None:
        """See whether all that was promised is there, after the power came back.

        Raises:
            FoundError: something isn't.

        """
        self._check_files()
        with self.start_again() as server:
            missing = [
                key for key, value in self.acknowledged.items() if server.ask({"key": key})["value"] != value
            ]
        if missing:
            count = f"{len(missing)} of {len(self.acknowledged)} acknowledged writes"
            raise FoundError("lost", f"{count}: {', '.join(missing[:5])}")

    def _check_files(self) -> None:
        try:
            nodes = inspect.verify(self.data).nodes if (self.data / MANIFEST_NAME).exists() else ()
            if self.backup.exists():
                check_snapshot(self.backup, lambda *_: None)
        except StorageError as error:
            raise FoundError("damaged", str(error)) from error
        for node in nodes:
            if node.state == "damaged" and not (self.is_interrupted and node.node == LOST_NODE):
                raise FoundError("damaged", node.explanation)
        if self.has_backup and not self.backup.exists():
            raise FoundError("lost", "the backup that was told of")


@attrs.define
class Phase:
    """What is interrupted."""

    name: str
    prepare: Callable[[Trial], None]
    """Makes what there is before."""
    act: Callable[[Trial, Steps], None]
    """Does what is interrupted. Ends when it is done or was killed."""
    again: Callable[[Trial, Server], None] = lambda trial, server: trial.write(server, 5)
    """What is done with the server that is started after the kill."""
    given: dict[str, str] = attrs.field(factory=dict)
    """What `prepare` wrote into the file that is restored."""


def _nothing(trial: Trial) -> None:
    del trial


def _filled(trial: Trial) -> None:
    """Have a store with a log of several segments."""
    with Server(trial.data) as server:
        trial.write(server, 40, 2000)


def _little(trial: Trial) -> None:
    """Have a store whose logs have room: a new segment's sync would make other names durable by the way."""
    with Server(trial.data) as server:
        trial.write(server, 3)


def _with_a_lost_node(trial: Trial) -> None:
    _little(trial)
    lost = trial.data / f"node-{LOST_NODE}"
    for file in lost.iterdir():
        file.unlink()
    lost.rmdir()


def _with_a_backup(trial: Trial) -> None:
    elsewhere = attrs.evolve(trial, root=trial.outside)
    with Server(elsewhere.data) as server:
        elsewhere.write(server, 10)
        elsewhere.run("backup", trial.source, "--data-dir", elsewhere.data)
    trial.phase.given, trial.acknowledged = elsewhere.acknowledged, {}


def _write_little(trial: Trial, server: Server) -> None:
    trial.write(server, 5)


def _roll(trial: Trial, server: Server) -> None:
    trial.write(server, 40, 6000)


def _take_snapshots(trial: Trial, server: Server) -> None:
    trial.write(server, 3)
    before = [row["log_first"] for row in server.nodes()]
    for node in range(1, NODES + 1):
        server.control("snapshot", node)
    wait_for(lambda: all(row["log_first"] > old for row, old in zip(server.nodes(), before, strict=True)), 2)
    trial.write(server, 3)


def _rebuild(trial: Trial, steps: Steps) -> None:
    trial.run("rebuild", LOST_NODE, "--data-dir", trial.data, steps=steps)


def _rebuild_live(trial: Trial, server: Server) -> None:
    trial.write(server, 3)
    trial.is_interrupted = True
    trial.rebuild(server)
    trial.write(server, 3)
    if wait_for(server.is_up):
        trial.is_interrupted = False
    trial.write(server, 3)


def _back_up(trial: Trial, steps: Steps) -> None:
    with Server(trial.data) as server:
        trial.write(server, 3)
        trial.has_backup = trial.run("backup", trial.backup, "--data-dir", trial.data, steps=steps)


def _back_up_again(trial: Trial, server: Server) -> None:
    trial.write(server, 3)
    done = trial.run("backup", trial.backup, "--data-dir", trial.data, accepted=_ALREADY)
    trial.has_backup |= done


def _restore(trial: Trial, steps: Steps) -> None:
    arguments = ("restore", trial.source, "--nodes", NODES, "--data-dir", trial.data)
    if trial.run(*arguments, steps=steps):
        trial.acknowledged.update(trial.phase.given)


def _serving(work: Callable[[Trial, Server], None]) -> Callable[[Trial, Steps], None]:
    return lambda trial, steps: trial.serve(steps, work)


def make_phases() -> list[Phase]:
    """Return all phases, new."""
    return [
        Phase("first-start", _nothing, _serving(_write_little)),
        Phase("restart", _filled, _serving(_write_little)),
        Phase("roll", _filled, _serving(_roll)),
        Phase("snapshot", _filled, _serving(_take_snapshots)),
        Phase("rebuild", _with_a_lost_node, _rebuild),
        Phase("rebuild-live", _little, _serving(_rebuild_live)),
        Phase("backup", _filled, _back_up, _back_up_again),
        Phase("restore", _with_a_backup, _restore),
    ]
