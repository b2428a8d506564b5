"""Events in a few words, for drawings and lists: what happened, without what is known from where it stands."""

from trio_kv.raft.events import (
    ElectionStarted,
    EntriesAppended,
    EntriesCommitted,
    EntriesStored,
    Event,
    LeaderElected,
    LeaderLost,
    LeaderSteppedDown,
    LogTruncated,
    SnapshotInstalled,
    TransferStarted,
    VoteGranted,
)
from trio_kv.trace.schema import member_names
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import (
    ControlCommanded,
    DiskSlowed,
    EntriesApplied,
    LinkCut,
    LinkFaulted,
    LinksHealed,
    LinksPartitioned,
    NodeCrashed,
    NodePaused,
    NodeRestarted,
    NodeResumed,
    NodeStarted,
    NodeStopped,
    RebuildStarted,
    ServerStarted,
    SnapshotTaken,
)

SAFE_MAX = (1 << 53) - 1
"""Larger numbers are not exact in every reader of JSON."""


def describe(record: Record) -> str:  # noqa: C901, PLR0911, PLR0912 - one line an event is the point
    """Return a record in a few words."""
    event, term = record.event, record.term
    match event:
        case LeaderElected():
            return f"leads term {term}, elected by {_names(event.votes)}"
        case LeaderSteppedDown():
            return f"leads no more: {event.reason}"
        case LeaderLost():
            return f"hears n{event.leader} no more"
        case ElectionStarted():
            return f"stands for term {term}: {event.reason}"
        case VoteGranted():
            return f"votes for n{event.candidate} in term {term}"
        case TransferStarted():
            return f"hands over to n{event.target}: {event.reason}"
        case NodeStarted():
            log = (
                f"log {event.log_first}..{event.log_last}"
                if event.log_last >= event.log_first
                else "empty log"
            )
            return f"up, {log}" + (", being rebuilt" if event.is_rebuilding else "")
        case NodeCrashed():
            return f"crashed: {event.reason}"
        case NodeStopped():
            return "stopped"
        case LogTruncated():
            return f"drops {event.first}..{event.last}"
        case EntriesAppended():
            return f"appends {_run(event.first, event.last)}"
        case EntriesStored():
            return f"stored up to {event.last}"
        case EntriesCommitted():
            return f"commits {_run(event.first, event.last)}"
        case EntriesApplied():
            return f"applies {_run(event.first, event.last)}"
        case SnapshotTaken():
            return f"snapshot up to {event.index}"
        case SnapshotInstalled():
            return f"installs a snapshot up to {event.index}"
        case LinkCut():
            return f"{_names(event.nodes)} cut off from each other"
        case LinksPartitioned():
            return f"partition: {' | '.join(_names(group) for group in event.groups)}"
        case LinksHealed():
            return "all links healed"
        case _:
            return _describe_act(event)


def _describe_act(event: Event) -> str:  # noqa: PLR0911 - one line an event is the point
    """Return what somebody did to a node, a disk, a link or the server; of all else the name and the members."""
    match event:
        case ControlCommanded():
            return f"asked for: {event.command} {event.detail}".rstrip()
        case ServerStarted():
            return f"listens at {event.host}:{event.port}"
        case NodePaused():
            return "paused"
        case NodeResumed():
            return f"goes on after {event.paused_s:.1f} s"
        case NodeRestarted():
            return "started again"
        case RebuildStarted():
            return "begins anew with an empty directory"
        case DiskSlowed():
            return (
                f"each sync takes {1000 * event.delay_s:.0f} ms longer"
                if event.delay_s
                else "the disk is as fast as before"
            )
        case LinkFaulted():
            faults = [
                f"{1000 * event.delay_s:.0f} ms late" if event.delay_s else "",
                f"up to {1000 * event.jitter_s:.0f} ms later" if event.jitter_s else "",
                f"{event.drop_percent:g} % lost" if event.drop_percent else "",
                f"{event.duplicate_percent:g} % twice" if event.duplicate_percent else "",
            ]
            where = f"{_names(event.link)}: " if event.link else ""
            return f"{where}messages {', '.join(filter(None, faults)) or 'on time'}"
        case _:
            return describe_other(event)


def describe_other(event: Event) -> str:
    """Return an event's name and its members."""
    members = [
        f"{name}={getattr(event, name)}"
        for name in member_names(type(event))
        if name != "traceback" and getattr(event, name) is not None
    ]
    return " ".join([type(event).name, *members])


def own_members(event: Event) -> dict[str, object]:
    """Return an event's own members as viewers take them: digests and what a double can't hold are texts."""
    return {name: _exact(name, getattr(event, name)) for name in member_names(type(event))}


def _exact(name: str, value: object) -> object:
    match value:
        case bool():
            return value
        case int() if name.endswith(("crc", "digest")):
            return f"{value:08x}"
        case int() if abs(value) > SAFE_MAX:
            return str(value)
        case tuple() | list():
            return [_exact(name, each) for each in value]
        case _:
            return value


def _run(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}..{last}"


def _names(nodes: tuple[int, ...]) -> str:
    return ",".join(f"n{node}" for node in nodes)
