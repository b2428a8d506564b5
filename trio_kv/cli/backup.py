"""`backup` and `restore`: all data of a cluster in one file, and a new cluster out of it.

A backup is a snapshot that a node of the running cluster takes because of it, so it holds every write that was
acknowledged before. The node writes it beside its other work; this process copies the file. The copy gets its name
only when all of it is on the disk and was read back: under that name there is a whole backup, or what was there before.
"""

import os
import shlex
from pathlib import Path
from random import SystemRandom
from typing import BinaryIO

from trio_kv.cli.control import DoorOptions
from trio_kv.cli.output import ExitCode, say, show, show_json
from trio_kv.cli.progress import show_bytes, show_progress
from trio_kv.client import control as client
from trio_kv.storage.errors import DamagedError, StorageError
from trio_kv.storage.files import TEMPORARY_SUFFIX, sync_descriptor, sync_directory
from trio_kv.storage.restore import Progress, SnapshotContent, check_snapshot
from trio_kv.storage.restore import restore as make_restored

COPY_BYTES = 1 << 20
"""So much is copied in one step."""
SYNC_BYTES = 32 << 20
"""After so much the copy is synced, so that it does not fill the memory that the running nodes need."""
ATTEMPTS_MAX = 5
"""So often the cluster is asked anew when its snapshot was replaced before it could be opened."""


class NotDoneError(Exception):
    """What was asked for was not done; the message says why to a person."""


def backup(file: Path, door_options: DoorOptions, *, is_forced: bool) -> ExitCode:
    """Carry out `backup`; return the exit code."""
    try:
        _check_place(file, is_forced=is_forced)
        with show_progress() as on_progress:
            content = _back_up(file, door_options, on_progress)
    except client.NoDoorError as error:
        say(str(error))
        return ExitCode.NOT_CONNECTED
    except (NotDoneError, StorageError) as error:
        say(str(error))
        return ExitCode.NOT_DONE
    except OSError as error:
        say(f"{error.filename or file}: {error.strerror or error}")
        return ExitCode.NOT_DONE
    if door_options.output == "json":
        _show_json(file=str(file), content=content)
    else:
        show(f"{file}: everything up to entry {content.index} of term {content.term}, {_amount(content)}")
    return ExitCode.OK


def _check_place(file: Path, *, is_forced: bool) -> None:
    """Refuse before anything is asked for what would be refused in the end."""
    if file.is_dir():
        raise NotDoneError(f"{file} is a directory: name a file in it")
    if not file.parent.is_dir():
        raise NotDoneError(f"there is no directory {file.parent}")
    if file.exists() and not is_forced:
        raise NotDoneError(f"{file} is there already: name another file, or add --force")


def _back_up(file: Path, door_options: DoorOptions, on_progress: Progress) -> SnapshotContent:
    door = client.find_door(door_options.data_dir, door_options.control_port)
    temporary = file.with_name(file.name + TEMPORARY_SUFFIX)
    try:
        source = _copy_snapshot(door, temporary, door_options.timeout_s, on_progress)
        try:
            content = check_snapshot(temporary, on_progress, is_uncached=True)
        except DamagedError as error:
            raise NotDoneError(
                f"the copy of {source} is damaged at byte {error.offset}: {error.reason}.\nNo backup was made."
                " Try again: another node may be asked. If it is the same again, `trio-kv wal verify` tells"
                " whether it is the node's file."
            ) from error
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(file.parent)
    return content


def _copy_snapshot(door: client.Door, target: Path, timeout_s: float, on_progress: Progress) -> Path:
    """Copy a fresh snapshot of the running cluster, durably; return which one it was."""
    for _ in range(ATTEMPTS_MAX):
        source = _ask_for_snapshot(door, timeout_s)
        try:
            reader = source.open("rb")
        except FileNotFoundError:
            # The node has taken another one meanwhile, and removed this.
            continue
        # An open file stays readable, whatever becomes of its name.
        with reader, _open_private(target) as writer:
            total = os.fstat(reader.fileno()).st_size
            done = unsynced = 0
            while data := reader.read(COPY_BYTES):
                writer.write(data)
                done += len(data)
                unsynced += len(data)
                if unsynced >= SYNC_BYTES:
                    writer.flush()
                    sync_descriptor(writer.fileno())
                    unsynced = 0
                on_progress("copy", done, total)
            writer.flush()
            sync_descriptor(writer.fileno())
        return source
    raise NotDoneError(f"the snapshot was gone {ATTEMPTS_MAX} times before it could be copied; try again")


def _open_private(path: Path) -> BinaryIO:
    """Open a file that only its owner may read, as the nodes' own files are."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb")


def _ask_for_snapshot(door: client.Door, timeout_s: float) -> Path:
    reply = client.command(door, "backup", {}, timeout_s=timeout_s)
    if reply.get("status") != "ok":
        raise NotDoneError(f"{reply.get('error')}: {reply.get('message')}")
    return Path(str(reply.get("path")))


def restore(file: Path, data_dir: Path, *, nodes: int, output: str) -> ExitCode:
    """Carry out `restore`; return the exit code."""
    try:
        with show_progress() as on_progress:
            content = make_restored(
                file, data_dir, nodes=nodes, random=SystemRandom(), on_progress=on_progress
            )
    except StorageError as error:
        say(str(error))
        return ExitCode.NOT_DONE
    except OSError as error:
        say(f"{error.filename or file}: {error.strerror or error}")
        return ExitCode.NOT_DONE
    if output == "json":
        _show_json(data_dir=str(data_dir), nodes=nodes, content=content)
        return ExitCode.OK
    count = "1 node" if nodes == 1 else f"{nodes} nodes"
    show(f"{data_dir}: a new cluster of {count} that goes on after entry {content.index}, {_amount(content)}")
    show(f"start it with: python -m trio_kv serve --data-dir {shlex.quote(str(data_dir))}")
    return ExitCode.OK


def _amount(content: SnapshotContent) -> str:
    keys = "1 key" if content.keys == 1 else f"{content.keys} keys"
    return f"{keys}, {show_bytes(content.size_bytes)}"


def _show_json(*, content: SnapshotContent, **members: object) -> None:
    told = {
        **members,
        "index": content.index,
        "term": content.term,
        "keys": content.keys,
        "bytes": content.size_bytes,
    }
    show_json(told)
