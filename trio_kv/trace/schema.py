"""What a trace tells of every event alike: its name, its level, its members in their order."""

import functools
import inspect

import attrs

from trio_kv.raft import events as core
from trio_kv.raft.events import DEBUG, ERROR, INFO, WARNING, Event
from trio_kv.trace import marks, processes, vocabulary

OFF = 100
"""Above every level: what a sink that wants nothing, or a trace without sinks, has."""

SCHEMA_VERSION = 1
"""Of the members and names in a trace file; adding an event or a member does not change it."""

COMMON_MEMBERS = ("time", "mono", "seq", "level", "event", "node", "term", "role", "process")
"""What a line of a trace may carry beside the event's own members, in this order."""

_MEMBER_NAMES: dict[type[Event], tuple[str, ...]] = {}
_LEVEL_NAMES = {DEBUG: "debug", INFO: "info", WARNING: "warning", ERROR: "error"}


@functools.cache
def event_classes() -> dict[str, type[Event]]:
    """Return every event class by its name."""
    return {
        member.name: member
        for module in (core, marks, processes, vocabulary)
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Event) and member is not Event
    }


def member_names(event_class: type[Event]) -> tuple[str, ...]:
    """Return the names of an event's own members, in their order."""
    names = _MEMBER_NAMES.get(event_class)
    if names is None:
        names = _MEMBER_NAMES[event_class] = tuple(each.name for each in attrs.fields(event_class))
    return names


def level_name(level: int) -> str:
    """Return the lower-case name of a level: debug, info, warning or error."""
    return _LEVEL_NAMES[level]
