"""`export` and `import`: keys and values as JSON lines, for other programs and other stores.

The pages of a scan are one state each, and can't be held at a revision: the store keeps no old values. So an export
is read out of a snapshot, as a backup is. It is one state of all keys, with every write in it that was acknowledged
before, and tells also when keys end, which no page does. The price is a snapshot each time, and that it is made where
the server runs; a backup's file can be exported anywhere.

An import writes what it read in transactions of many keys, in the order of the lines. It repeats what got no answer, so
that it goes on across a change of the leader. It is not all or nothing: when it ends early it says how far it came, and
the same import once more does no harm.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final

import attrs
import msgspec
from msgspec import UNSET, Raw, UnsetType

from trio_kv.cli.backup import ATTEMPTS_MAX, ask_for_snapshot, find_place
from trio_kv.cli.control import DoorWay
from trio_kv.cli.errors import NotDoneError, UsageError
from trio_kv.cli.new_file import open_new_file
from trio_kv.cli.output import STREAM, ExitCode, Output, say, show, show_json
from trio_kv.cli.progress import show_progress
from trio_kv.cli.streams import is_lost
from trio_kv.cli.target import Target
from trio_kv.cli.terminal import is_terminal
from trio_kv.cli.words import count
from trio_kv.client import control as client
from trio_kv.client.client import Client
from trio_kv.client.errors import OutcomeUnknownError, StoreError, TooLargeError
from trio_kv.client.values import NotStorableError, read_json
from trio_kv.kv.image import decode_first, decode_records
from trio_kv.kv.operations.operation import KEY_BYTES_MAX, TTL_MAX_S, TTL_MIN_S
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.files import RealFiles
from trio_kv.storage.snapshot_reading import SnapshotScan

BATCH_ITEMS_MAX: Final = 120
"""As many as a transaction takes."""
BATCH_BYTES_MAX: Final = 512 * 1024
"""Bytes of lines in a transaction, unless one alone has more: half of what a server takes if nobody told it."""
PROGRESS_ITEMS: Final = 1000
"""So often the bar moves."""

Progress = Callable[[str, int, int], object]


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A line of JSON: a key."""

    key: str
    value: Raw
    revision: int | UnsetType = UNSET
    """Of the cluster that it comes from. Another one has its own, so an import passes it over."""
    ttl: float | UnsetType = UNSET
    """Seconds for which the key is kept from then on; left out: for good."""


_decode = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


# --- export -------------------------------------------------------------------------------------------------


@attrs.frozen
class _State:
    """All keys of one moment."""

    index: int
    """The last entry whose effect is in it."""
    lines: list[Line]


def export_keys(
    source: DoorWay | Path, file: Path, prefix: str, *, is_forced: bool, is_quiet: bool
) -> ExitCode:
    """Carry out `export`; return the exit code.

    Args:
        source: the way to a running server, or the file of a backup.
        file: where to put it; `-` is stdout.
        prefix: what the keys begin with.
        is_forced: whether a file that is there is replaced.
        is_quiet: whether nothing is said of how much it was.

    Raises:
        UsageError: nothing can be put there.
        NoDoorError, NotDoneError, StorageError: nothing was exported.

    """
    is_stream = str(file) == STREAM
    place = file if is_stream else find_place(file, is_forced=is_forced)
    try:
        with _progress(is_shown=not (is_stream and is_terminal(sys.stdout))) as on_progress:
            state = _read_state(source, prefix, on_progress)
            if is_stream:
                _print(state, on_progress)
            else:
                _write(state, place, on_progress, is_forced=is_forced)
    except client.NoDoorError:
        raise
    except FileExistsError as error:
        raise NotDoneError(f"{file} came into being meanwhile, and stays as it is: add --force") from error
    except OSError as error:
        raise NotDoneError(
            f"{error.filename or file}: {error.strerror or error}. Nothing was exported"
        ) from error
    if not is_quiet:
        say(f"{count(len(state.lines), 'key')}, everything up to entry {state.index}")
    return ExitCode.OK


def _progress(*, is_shown: bool) -> contextlib.AbstractContextManager[Progress]:
    return show_progress() if is_shown else contextlib.nullcontext(lambda _step, _done, _total: None)


def _read_state(source: DoorWay | Path, prefix: str, on_progress: Progress) -> _State:
    if isinstance(source, Path):
        return _read_snapshot(source, prefix, on_progress)
    door = client.find_door(source.data_dir, source.control_port)
    for _ in range(ATTEMPTS_MAX):
        path = Path(str(ask_for_snapshot(door, source)["path"]))
        try:
            return _read_snapshot(path, prefix, on_progress)
        except FileNotFoundError:
            continue  # the node has taken another one meanwhile, and removed this
    raise NotDoneError(f"the snapshot was gone {ATTEMPTS_MAX} times before it could be read; try again")


def _read_snapshot(path: Path, prefix: str, on_progress: Progress) -> _State:
    """Return the keys of a snapshot's file, in order; every check in it is compared."""
    size_bytes = path.stat().st_size
    index = time_us = 0
    lines: list[Line] = []
    with contextlib.closing(RealFiles(path.parent)) as files:
        for offset, frame, body in SnapshotScan(files, path.name, is_named=False):
            try:
                if frame.number:
                    lines += _lines(body, prefix, time_us)
                else:
                    head = decode_first(body).head
                    index, time_us = head.applied, head.time_us
            except ValueError as error:
                raise DamagedError(str(path), offset, f"chunk {frame.number}: {error}") from error
            on_progress("read", offset + len(body), size_bytes)
    on_progress("read", size_bytes, size_bytes)
    lines.sort(key=lambda line: line.key)  # by their bytes in UTF-8, which is by code point
    return _State(index, lines)


def _lines(chunk: bytes, prefix: str, time_us: int) -> Iterator[Line]:
    for item in decode_records(chunk).items:
        if not item.key.startswith(prefix):
            continue
        ttl = UNSET if item.due_us is None else max(TTL_MIN_S, (item.due_us - time_us) / 1_000_000)
        # The value is a view of the chunk.
        yield Line(item.key, Raw(bytes(item.value)), item.revision, ttl)


def _print(state: _State, on_progress: Progress) -> None:
    for line in _counted(state, on_progress):
        show(_encode(line).decode())
        if is_lost(sys.stdout):
            break


def _write(state: _State, place: Path, on_progress: Progress, *, is_forced: bool) -> None:
    with open_new_file(place.parent) as new:
        new.file.writelines(_encode(line) + b"\n" for line in _counted(state, on_progress))
        new.file.flush()
        os.fsync(new.file.fileno())
        new.publish(place, is_forced=is_forced)


def _counted(state: _State, on_progress: Progress) -> Iterator[Line]:
    total = len(state.lines)
    for number, line in enumerate(state.lines, 1):
        yield line
        if number % PROGRESS_ITEMS == 0 or number == total:
            on_progress("export", number, total)


# --- import -------------------------------------------------------------------------------------------------


def import_keys(file: Path, target: Target, output: Output, *, is_quiet: bool) -> ExitCode:
    """Carry out `import`; return the exit code.

    Raises:
        UsageError: there is nothing to read.
        NotDoneError: a line can't be; says which, and how far it came.
        StoreError: the store refused, or was not reached; says how far it came.

    """
    with _open(file) as source, target.connect(repeats_writes=True) as store:
        importer = _Importer(store)
        size_bytes = os.fstat(source.fileno()).st_size if str(file) != STREAM else 0
        with _progress(is_shown=size_bytes > 0) as on_progress:
            for text in source:
                importer.take(text)
                on_progress("import", importer.read_bytes, max(size_bytes, importer.read_bytes))
            importer.flush()
    if output == "json":
        show_json({"keys": importer.done})
    elif not is_quiet:
        show(count(importer.done, "key"))
    return ExitCode.OK


def _open(file: Path) -> contextlib.AbstractContextManager[IO[bytes]]:
    if str(file) == STREAM:
        if sys.stdin is None:
            raise UsageError("the lines are to come from stdin, which is closed")
        return contextlib.nullcontext(sys.stdin.buffer)
    try:
        return file.open("rb")
    except OSError as error:
        raise UsageError(f"{file}: {(error.strerror or str(error)).lower()}") from error


@attrs.define
class _Importer:
    """Takes lines, and gives them to the store, many in one transaction."""

    _store: Client
    done: int = 0
    """Keys that are written."""
    read_bytes: int = 0
    _number: int = 0
    """Of the last line that was taken."""
    _waiting: dict[str, tuple[int, dict[str, Any]]] = attrs.Factory(dict)
    """Keys of the next transaction, each with the number of its line and its operation."""
    _waiting_bytes: int = 0

    def take(self, text: bytes) -> None:
        """Take a line. Raises NotDoneError, StoreError as `import_keys`."""
        self._number += 1
        self.read_bytes += len(text)
        if not text.strip():
            return
        try:
            line = _parse(text)
        except ValueError as error:
            self.flush()
            raise NotDoneError(f"line {self._number}: {error}. {self._how_far()}") from error
        is_full = len(self._waiting) == BATCH_ITEMS_MAX or self._waiting_bytes + len(text) > BATCH_BYTES_MAX
        if is_full or line.key in self._waiting:
            self.flush()
        operation: dict[str, Any] = {"op": "set", "key": line.key, "value": line.value}
        if line.ttl is not UNSET:
            operation["ttl"] = line.ttl
        self._waiting[line.key] = self._number, operation
        self._waiting_bytes += len(text)

    def flush(self) -> None:
        """Write what waits. Raises StoreError as `import_keys`."""
        waiting = list(self._waiting.values())
        self._waiting, self._waiting_bytes = {}, 0
        if waiting:
            self._write(waiting)

    def _write(self, waiting: list[tuple[int, dict[str, Any]]]) -> None:
        first, last = waiting[0][0], waiting[-1][0]
        lines = f"line {first}" if first == last else f"lines {first} to {last}"
        try:
            self._store.txn([operation for _, operation in waiting])
        except TooLargeError as error:
            # The server may have been told to take shorter lines.
            if len(waiting) == 1:
                raise TooLargeError(f"{lines}: {error}. {self._how_far()}", error.reply) from error
            middle = len(waiting) // 2
            self._write(waiting[:middle])
            self._write(waiting[middle:])
        except StoreError as error:
            unknown = ", which may or may not be written" if isinstance(error, OutcomeUnknownError) else ""
            raise type(error)(f"{lines}{unknown}: {error}. {self._how_far()}", error.reply) from error
        except KeyboardInterrupt:
            say(f"{lines} may or may not be written. {self._how_far()}")
            raise
        else:
            self.done += len(waiting)

    def _how_far(self) -> str:
        if not self.done:
            return "Nothing was written before"
        return f"{count(self.done, 'key')} before are written; the same import once more does no harm"


def _parse(text: bytes) -> Line:
    """Return what a line says.

    Raises:
        ValueError: it can't be; says what would be right.

    """
    try:
        line = _decode(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'it is not {{"key": "a", "value": 1}}: {error}') from error
    try:
        read_json(bytes(line.value).decode())
    except NotStorableError as error:
        raise ValueError(f"the value of {line.key!r} can't be kept: {error}") from error
    if not 1 <= len(line.key.encode()) <= KEY_BYTES_MAX:
        raise ValueError(f"a key has 1 to {KEY_BYTES_MAX} bytes")
    if line.ttl is not UNSET and not TTL_MIN_S <= line.ttl <= TTL_MAX_S:
        raise ValueError(f'"ttl" is {line.ttl:g}: a key is kept for {TTL_MIN_S:g} to {TTL_MAX_S} seconds')
    return line
