"""`backup` and `restore`: all data of a cluster in one file, and a new cluster out of it.

A backup is a snapshot that a node of the running cluster takes because of it, so it holds every write that was
acknowledged before. The node writes it beside its other work; this process copies the file. The copy gets its name
only when all of it is on the disk and was read back: under that name there is a whole backup, or what was there before.

Until then it has a name that nobody else uses, in the same directory, and is locked. A copy that nobody has locked was
left by a process that was killed; the next backup into that directory removes it.
"""

import os
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path
from random import SystemRandom
from typing import Any, BinaryIO

from trio_kv.cli.control import DoorOptions, DoorWay
from trio_kv.cli.errors import NotDoneError, UsageError
from trio_kv.cli.new_file import open_new_file
from trio_kv.cli.output import ExitCode, say, show, show_json
from trio_kv.cli.progress import show_bytes, show_progress
from trio_kv.cli.words import count
from trio_kv.client import control as client
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.restore import Progress, SnapshotContent, check_snapshot
from trio_kv.storage.restore import restore as make_restored
from trio_kv.storage.systems import sync_descriptor

COPY_BYTES = 1 << 20
"""So much is copied in one step."""
SYNC_BYTES = 32 << 20
"""After so much the copy is synced, so that it does not fill the memory that the running nodes need."""
ATTEMPTS_MAX = 5
"""How often the cluster is asked for a snapshot: one may be replaced before it is opened, or be damaged."""


def backup(file: Path, door_options: DoorOptions, *, is_forced: bool) -> ExitCode:
    """Carry out `backup`; return the exit code.

    Raises:
        UsageError: nothing can be put there.
        NoDoorError, NotDoneError, StorageError: no backup was made.

    """
    try:
        place = find_place(file, is_forced=is_forced)
        with show_progress() as on_progress:
            content = _back_up(place, door_options, on_progress, is_forced=is_forced)
    except client.NoDoorError:
        raise
    except FileExistsError as error:
        raise NotDoneError(
            f"{file} came into being meanwhile, and stays as it is: name another file, or add --force"
        ) from error
    except OSError as error:
        raise NotDoneError(f"{file}: {error.strerror or error}. No backup was made") from error
    if door_options.output == "json":
        _show_json(file=str(file), content=content)
    else:
        show(f"{file}: everything up to entry {content.index} of term {content.term}, {_amount(content)}")
    return ExitCode.OK


def find_place(file: Path, *, is_forced: bool) -> Path:
    """Return the file that `file` names, links followed; refuse what can't be written before the cluster works."""
    if str(file) == "-":
        raise UsageError(
            "a backup gets its name when all of it was read back, so it can't go to a pipe: name a file (or ./-)"
        )
    # Of a link that leads nowhere yet, the place that it leads to: the link stays what it is.
    place = Path(os.path.realpath(file))
    try:
        kind = file.stat().st_mode
    except FileNotFoundError:
        if place.is_symlink() or not place.parent.is_dir():
            parent = place.parent if file.is_symlink() else file.parent
            raise UsageError(f"{file}: there is no directory {parent}") from None
        return place
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error
    if stat.S_ISDIR(kind):
        raise UsageError(f"{file} is a directory: name a file in it")
    if not stat.S_ISREG(kind):
        what = "a pipe" if stat.S_ISFIFO(kind) else "a socket" if stat.S_ISSOCK(kind) else "a device"
        raise UsageError(f"{file} is {what}, and a backup must be read back before it counts: name a file")
    if not is_forced:
        raise NotDoneError(f"{file} is there already: name another file, or add --force")
    return place


def _back_up(
    place: Path, door_options: DoorOptions, on_progress: Progress, *, is_forced: bool
) -> SnapshotContent:
    door = client.find_door(door_options.data_dir, door_options.control_port)
    refused: list[int] = []
    """Nodes whose snapshots could not be used."""
    with open_new_file(place.parent) as new:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            reply = ask_for_snapshot(door, door_options, refused)
            source = Path(str(reply["path"]))
            try:
                _copy(source, new.file, on_progress)
                content = check_snapshot(new.path, on_progress, is_uncached=True)
            except FileNotFoundError:
                # The node has taken another one meanwhile, and removed this.
                if attempt == ATTEMPTS_MAX:
                    raise NotDoneError(
                        f"{source} was gone {ATTEMPTS_MAX} times before it could be copied; try again"
                    ) from None
            except DamagedError as error:
                problem = f"the copy of {source} is damaged at byte {error.offset}: {error.reason}"
                if attempt == ATTEMPTS_MAX or not isinstance(reply.get("node"), int):
                    raise NotDoneError(
                        f"{problem}.\nNo backup was made. `trio-kv wal verify` tells whether it is the node's file"
                    ) from error
                say(f"{problem}: another node is asked")
                refused.append(reply["node"])
            else:
                new.publish(place, is_forced=is_forced)
                return content
    raise AssertionError("each attempt ends in one of these ways")


def _copy(source: Path, target: BinaryIO, on_progress: Progress) -> None:
    """Copy a snapshot into an open file, durably.

    Raises:
        FileNotFoundError: it is gone.
        NotDoneError: it may not be read.

    """
    try:
        # An open file stays readable, whatever becomes of its name.
        reader = source.open("rb")
    except PermissionError as error:
        raise NotDoneError(f"{source} may be read by the server's user only: be that user") from error
    with reader:
        target.seek(0)
        target.truncate()
        total = os.fstat(reader.fileno()).st_size
        done = unsynced = 0
        while data := reader.read(COPY_BYTES):
            target.write(data)
            done += len(data)
            unsynced += len(data)
            if unsynced >= SYNC_BYTES:
                target.flush()
                sync_descriptor(target.fileno())
                unsynced = 0
            on_progress("copy", done, total)
        target.flush()
        sync_descriptor(target.fileno())


def ask_for_snapshot(door: client.Door, door_options: DoorWay, without: Sequence[int] = ()) -> dict[str, Any]:
    """Have the running cluster take a snapshot of all that was acknowledged; return the reply's members.

    Raises:
        NotDoneError: it could not.
        NoDoorError: nobody opens.

    """
    reply = client.command(
        door,
        "backup",
        {"without": without} if without else {},
        timeout_s=door_options.timeout_s,
        tls=door_options.tls(),
    )
    if reply.get("status") != "ok":
        raise NotDoneError(f"{reply.get('error')}: {reply.get('message')}")
    return reply


def restore(file: Path, data_dir: Path, *, nodes: int, output: str) -> ExitCode:
    """Carry out `restore`; return the exit code. Raises NotDoneError or StorageError if there is no new cluster."""
    try:
        with show_progress() as on_progress:
            content = make_restored(
                file, data_dir, nodes=nodes, random=SystemRandom(), on_progress=on_progress
            )
    except OSError as error:
        raise NotDoneError(f"{error.filename or file}: {error.strerror or error}") from error
    if output == "json":
        _show_json(data_dir=str(data_dir), nodes=nodes, content=content)
        return ExitCode.OK
    cluster = f"a new cluster of {count(nodes, 'node')} with everything up to entry {content.index}"
    show(f"{data_dir}: {cluster}, {_amount(content)}")
    show(f"start it with: python -m trio_kv serve --data-dir {shlex.quote(str(data_dir))}")
    return ExitCode.OK


def _amount(content: SnapshotContent) -> str:
    return f"{count(content.keys, 'key')}, {show_bytes(content.size_bytes)}"


def _show_json(*, content: SnapshotContent, **members: object) -> None:
    what = {"index": content.index, "term": content.term, "keys": content.keys, "bytes": content.size_bytes}
    show_json({**members, **what})
