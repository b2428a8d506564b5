"""Looking at the files of nodes that don't run: what a start would find there, and each record, for people.

`verify` judges by the very rules of recovery and changes nothing. `dump` shows what is there, up to where it can't be
read any more. Both refuse a directory that a process uses: what they read there would change under their eyes.
"""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import attrs

from trio_kv.kv.commands import decode_command
from trio_kv.raft.entry import Entry
from trio_kv.raft.ready import HardState
from trio_kv.storage.data_directory import DataDirectory
from trio_kv.storage.errors import DamagedError
from trio_kv.storage.files import Files
from trio_kv.storage.folders import RealFolder
from trio_kv.storage.manifest import IDENTITY_NAME, read_json, read_manifest
from trio_kv.storage.node_directory import NodeDirectory
from trio_kv.storage.opening import Examination
from trio_kv.storage.recovery import Recovered, Recovery
from trio_kv.storage.segments import segment_name, segment_numbers
from trio_kv.storage.snapshot_reading import SnapshotScan, Stored, snapshot_names, snapshot_position
from trio_kv.wire.frames import (
    SECTOR_BYTES,
    Base,
    Frame,
    FrameError,
    Identity,
    Kind,
    Record,
    Reset,
    Truncate,
    decode_records,
    decode_segment_header,
    read_frame,
)

State = Literal["sound", "torn", "damaged"]
"""A node starts when it is sound. When it is torn it does too: what was never acknowledged is cut off. When it is
damaged it refuses."""
TEXT_MAX = 200
"""Characters of a command that `dump` shows."""
_RANK: dict[State, int] = {"sound": 0, "torn": 1, "damaged": 2}


@attrs.frozen
class NodeReport:
    """What a start of one node would find."""

    node: int
    path: Path
    state: State
    explanation: str
    """For people: sentences, one a line."""
    file: str | None = None
    """Where the trouble is."""
    offset: int | None = None
    """At which byte of it."""
    term: int = 0
    vote: int | None = None
    snapshot_index: int = 0
    """The last entry that the newest snapshot holds; 0 without one."""
    last_index: int = 0
    segments: int = 0


@attrs.frozen
class Report:
    """What a start would find."""

    path: Path
    state: State
    """The worst of the nodes'."""
    nodes: tuple[NodeReport, ...]


@attrs.frozen
class Line:
    """One thing that stands in a file."""

    file: str
    offset: int
    """The byte where its frame begins."""
    kind: str
    """segment, hard_state, base, truncate, reset, entry, seal, snapshot, chunk, end; or torn or damaged."""
    text: str


def verify(path: Path) -> Report:
    """Read every byte that a start would read, and judge it. Nothing is changed.

    Args:
        path: a data directory, or the directory of one node.

    Raises:
        LockedError: a process uses it.
        ManifestError: which cluster it belongs to can't be told.
        OSError: there is no such directory, or it can't be read.

    """
    with _nodes_of(path) as found:
        nodes = tuple(map(_verify_node, found))
    return Report(path, max((node.state for node in nodes), key=_RANK.__getitem__), nodes)


def dump(path: Path) -> Iterator[Line]:
    """Yield all that the files of a data directory, or of one node, hold. Nothing is changed.

    A file that can't be read to its end ends with a line that says so: `torn` or `damaged`.

    Raises:
        LockedError: a process uses it.
        ManifestError: which cluster it belongs to can't be told.
        OSError: there is no such directory, or it can't be read.

    """
    with _nodes_of(path) as found:
        for node in found:
            yield from _dump_node(node)


@contextlib.contextmanager
def _nodes_of(path: Path) -> Iterator[list[NodeDirectory]]:
    """Give the nodes of a data directory, or the one whose directory this is.

    Servers are kept out meanwhile, but not others who look. Nothing is written.
    """
    if not path.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    with contextlib.ExitStack() as stack:
        here = path.resolve()
        # A node's directory may be a link, and be named by it or by what it leads to.
        for place in dict.fromkeys((path, path.absolute().parent, here.parent)):
            try:
                root = stack.enter_context(contextlib.closing(RealFolder.open(place)))
            except PermissionError:
                continue
            with contextlib.closing(root.files()) as files:
                manifest = read_manifest(files)
            if manifest is None:
                continue
            root.lock(is_shared=True)
            directory = DataDirectory(root, manifest, segment_bytes=0)
            nodes = [directory.node(node) for node in directory.nodes_here]
            found = nodes if place is path else [node for node in nodes if node.path.resolve() == here]
            if found:
                yield found
                return
        # The directory of a node that was taken out of its cluster, or was replaced there.
        root = stack.enter_context(contextlib.closing(RealFolder.open(here.parent)))
        alone = NodeDirectory(Identity("", 0, 0), root, here.name, "ok")
        with alone.files() as files:
            yield [attrs.evolve(alone, identity=read_json(files, IDENTITY_NAME, Identity))]


def _verify_node(directory: NodeDirectory) -> NodeReport:
    node, path = directory.identity.node, directory.path
    if directory.state != "ok":
        return NodeReport(node, path, "damaged", f"{directory.reason}.\n{directory.way_out}", str(path))
    with directory.files() as files:
        examination = Examination(files, directory.identity)
        try:
            recovery, recovered, stored = examination.run()
        except DamagedError as error:
            return NodeReport(node, path, "damaged", str(error), error.file, error.offset)
        segments = len(segment_numbers(files.names()))
    state: State = "sound"
    file, offset = recovery.torn or (None, None)
    if recovery.torn is not None or examination.damaged:
        state = "torn"
    if examination.damaged and file is None:
        file, offset = examination.damaged[0].file, examination.damaged[0].offset
    sentences = [
        _describe(recovered, stored, segments),
        *_explain(directory, recovery, stored),
        *recovered.warnings,
    ]
    sentences += [
        f"{error.message}. The log still holds what is in it: the next start removes it."
        for error in examination.damaged
    ]
    return NodeReport(
        node,
        path,
        state,
        "\n".join(sentences),
        file,
        offset,
        recovered.hard_state.term,
        recovered.hard_state.vote,
        0 if stored is None else stored.info.index,
        recovery.shape.last_index,
        segments,
    )


def _describe(recovered: Recovered, stored: Stored | None, segments: int) -> str:
    hard_state, base = recovered.hard_state, recovered.base
    vote = "no vote in it" if hard_state.vote is None else f"a vote for node {hard_state.vote}"
    snapshot = (
        "no snapshot"
        if stored is None
        else f"a snapshot up to entry {stored.info.index} of {stored.info.total_bytes} bytes"
    )
    log = (
        f"entries {base.index + 1} to {base.index + len(recovered.entries)}"
        if recovered.entries
        else "no entries"
    )
    files = "1 segment" if segments == 1 else f"{segments} segments, the spare included"
    return f"Term {hard_state.term}, {vote}; {snapshot}; a log of {log} in {files}."


def _explain(directory: NodeDirectory, recovery: Recovery, stored: Stored | None) -> Iterator[str]:
    """Yield what else the next start will do."""
    if stored is not None and recovery.shape.term_at(stored.info.index) != stored.info.term:
        yield "The log does not lead to the snapshot: the next start lets the snapshot take its place."
    if directory.is_rebuilding:
        yield "The node is being rebuilt: until the others have filled it, it votes for nobody and counts for nothing."


def _dump_node(directory: NodeDirectory) -> Iterator[Line]:
    path = directory.path
    if directory.state != "ok":
        yield Line(str(path), 0, "damaged", directory.reason)
        if directory.state == "needs_rebuild":
            return
    with directory.files() as files:
        names = files.names()
        for name in reversed(snapshot_names(names)):
            yield from _dump_snapshot(files, name)
        for number in segment_numbers(names):
            yield from _dump_segment(files, segment_name(number))
    report = _verify_node(directory)
    if report.state != "sound" and directory.state == "ok":
        yield Line(
            report.file or str(path), report.offset or 0, report.state, report.explanation.replace("\n", " ")
        )


def _dump_snapshot(files: Files, name: str) -> Iterator[Line]:
    location = files.location(name)
    index, term = snapshot_position(name)
    yield Line(location, 0, "snapshot", f"up to {index}@{term}")
    scan = SnapshotScan(files, name)
    try:
        for offset, frame, _ in scan:
            yield Line(location, offset, "chunk", f"{frame.number}: {frame.length} bytes")
    except DamagedError as error:
        yield Line(location, error.offset, "damaged", error.reason)
        return
    info = scan.stored.info
    yield Line(location, files.size(name), "end", f"{info.chunks} chunks, {info.total_bytes} bytes")


def _dump_segment(files: Files, name: str) -> Iterator[Line]:
    location = files.location(name)
    data = files.read(name)
    try:
        header = decode_segment_header(data)
    except FrameError as error:
        yield Line(location, 0, "damaged", str(error))
        return
    identity = header.identity
    yield Line(
        location,
        0,
        "segment",
        f"{header.number} of node {identity.node}, incarnation {identity.incarnation}, cluster {identity.cluster},"
        f" {header.size_bytes} bytes",
    )
    offset = SECTOR_BYTES
    while (frame := read_frame(data, header.seed, offset)) is not None and frame.is_whole(data):
        yield from _dump_frame(location, frame, data)
        offset = frame.end


def _dump_frame(location: str, frame: Frame, data: bytes) -> Iterator[Line]:
    if frame.kind == Kind.SEAL:
        yield Line(location, frame.offset, "seal", "the log goes on in the next segment")
        return
    try:
        for record in decode_records(frame.payload(data), decode_command):
            yield from (Line(location, frame.offset, kind, text) for kind, text in _show(record))
    except ValueError as error:
        yield Line(location, frame.offset, "damaged", f"its check is right, but it can't be read: {error}")


def _show(record: Record) -> Iterator[tuple[str, str]]:
    match record:
        case HardState(term, vote, incarnations):
            heard = "".join([f", node {node} is {incarnation:x}" for node, incarnation in incarnations])
            yield "hard_state", f"term {term}, vote {vote or 'none'}{heard}"
        case Truncate(index):
            yield "truncate", f"from {index}"
        case Base(index, term):
            yield "base", f"{index}@{term}"
        case Reset(index, term):
            yield "reset", f"a snapshot up to {index}@{term} takes the place of the log"
        case _:
            yield from (("entry", _show_entry(entry)) for entry in record)


def _show_entry(entry: Entry) -> str:
    command = "no-op" if entry.command is None else entry.command.encode().decode(errors="backslashreplace")
    text = command if len(command) <= TEXT_MAX else f"{command[:TEXT_MAX]}…"
    return f"{entry.index}@{entry.term} at {entry.time_us} us: {text}"
