"""`keys`: lists the keys of a running cluster, out of a snapshot that a node takes because of it, as `backup` does.

So the list is one state of the store, with every write in it that was acknowledged before the command began; the
nodes are not kept from their work, however many keys there are; and nothing is asked of the protocol that it has not.
It costs a snapshot each time, which is much for a loop in a script and little for a person who looks.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from trio_kv.cli.backup import ATTEMPTS_MAX, ask_for_snapshot
from trio_kv.cli.control import DoorOptions
from trio_kv.cli.errors import NotDoneError
from trio_kv.cli.output import ExitCode, say, show, show_key
from trio_kv.cli.words import count
from trio_kv.client import control as client
from trio_kv.kv.image import ItemRecord, decode_records
from trio_kv.storage.files import RealFiles
from trio_kv.storage.snapshot_reading import SnapshotScan


def keys(prefix: str, door_options: DoorOptions, *, limit: int) -> ExitCode:
    """Carry out `keys`; return the exit code.

    Args:
        prefix: what the keys begin with.
        door_options: how to find the server.
        limit: how many are shown at most; 0 for all.

    Raises:
        NoDoorError, NotDoneError, StorageError: they can't be told.

    """
    try:
        found = _find(prefix, door_options)
    except client.NoDoorError:
        raise
    except OSError as error:
        raise NotDoneError(f"{error.filename or 'the snapshot'}: {error.strerror or error}") from error
    # By their bytes in UTF-8, which is by code point.
    found.sort()
    shown = found[:limit] if limit else found
    for key, revision in shown:
        if door_options.output == "json":
            show(msgspec.json.encode({"key": key, "revision": revision}).decode())
        else:
            show(show_key(key))
    if len(shown) < len(found):
        say(f"these are the first {count(len(shown), 'key')} of {len(found):,}; --limit 0 shows all")
    return ExitCode.OK


def _find(prefix: str, door_options: DoorOptions) -> list[tuple[str, int]]:
    door = client.find_door(door_options.data_dir, door_options.control_port)
    for _ in range(ATTEMPTS_MAX):
        path = Path(str(ask_for_snapshot(door, door_options)["path"]))
        try:
            return [(item.key, item.revision) for item in _items(path) if item.key.startswith(prefix)]
        except FileNotFoundError:
            continue  # the node has taken another one meanwhile, and removed this
    raise NotDoneError(f"the snapshot was gone {ATTEMPTS_MAX} times before it could be read; try again")


def _items(path: Path) -> Iterator[ItemRecord]:
    """Yield the keys of a snapshot's file."""
    with contextlib.closing(RealFiles(path.parent)) as files:
        for _, frame, body in SnapshotScan(files, path.name, is_named=False):
            if frame.number:  # the first chunk tells what there is
                yield from decode_records(body).items
