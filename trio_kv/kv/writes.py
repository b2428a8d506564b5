"""The writes of the state machine, one function a kind, and what the state digest sees of them.

A write looks up its key, tells whether its condition holds, and says in its reply what it did. All of it is a
function of the keys and of the command: sessions and cluster time were looked after before it is called.
"""

import struct
from collections.abc import Callable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any

from trio_kv.kv.commands import Cas, Delete, Set
from trio_kv.kv.equality import is_equal_json
from trio_kv.kv.reply import Item, Reply

CODE_NUMBERS: Mapping[str, int] = MappingProxyType(
    {"ok": 0, "missing": 1, "conflict": 2, "session_expired": 3, "overloaded": 4}
)
"""How the state digest writes a reply's code. No number ever gets a new meaning: nodes compare digests."""

NOTED_BYTES_MAX = 4096
"""How much of the value of a reply runs over the state digest."""

_pack = struct.Struct("<BQQ").pack
"""A reply's code number and revision, and the revision that the key had before."""

Items = MutableMapping[str, Item]
"""A plain dict, or the two layers of a machine that was frozen (`kv.layers`)."""

Changes = list[bytes | memoryview]
"""What the state digest will run over: pieces of bytes, joined once a run."""

Writer = Callable[[Items, Any, int, Changes], Reply]
"""(keys, command, index, changes) -> reply: applies one kind of write."""


def note(changes: Changes, reply: Reply, previous: int = 0) -> None:
    """Put a reply into what the state digest runs over."""
    changes.append(_pack(CODE_NUMBERS[reply.code], reply.revision, previous))
    value = reply.value
    if value is not None:
        # All of it ran over the digest when it was written. A client that asks in vain for a large value, again and
        # again, must not let every node run over it each time.
        changes.append(value if len(value) <= NOTED_BYTES_MAX else memoryview(value)[:NOTED_BYTES_MAX])


def _conflict(item: Item | None, message: str) -> Reply:
    if item is None:
        return Reply("conflict", None, 0, message)
    return Reply("conflict", item.value, item.revision, message)


def _set(items: Items, command: Set, index: int, changes: Changes) -> Reply:
    key, value, wanted = command.key, command.value, command.if_revision
    item = items.get(key)
    previous = 0 if item is None else item.revision
    if wanted is not None and wanted != previous:
        reply = _conflict(item, _tell_revisions(previous, wanted))
        note(changes, reply, previous)
        return reply
    items[key] = Item(value, index)
    changes += (_pack(0, index, previous), key.encode(), value)
    return Reply("ok", None, index)


def _delete(items: Items, command: Delete, index: int, changes: Changes) -> Reply:
    key, wanted = command.key, command.if_revision
    item = items.get(key)
    previous = 0 if item is None else item.revision
    if wanted is not None and wanted != previous:
        reply = _conflict(item, _tell_revisions(previous, wanted))
    elif item is None:
        reply = Reply("missing")
    else:
        del items[key]
        changes.append(key.encode())
        reply = Reply("ok", item.value, index)
    note(changes, reply, previous)
    return reply


def _cas(items: Items, command: Cas, index: int, changes: Changes) -> Reply:
    key, expected = command.key, command.expected
    item = items.get(key)
    if item is None:
        message = "the key does not exist, but a value of it was expected" if expected else ""
    elif not expected:
        message = "the key exists, but was expected not to; say `expected` to change it"
    elif not is_equal_json(item.value, expected[0]):
        message = "the key holds another value than the expected one"
    else:
        message = ""
    previous = 0 if item is None else item.revision
    if message:
        reply = _conflict(item, message)
    else:
        items[key] = Item(command.value, index)
        changes += (key.encode(), command.value)
        reply = Reply("ok", None, index)
    note(changes, reply, previous)
    return reply


def _tell_revisions(is_at: int, wanted: int) -> str:
    if is_at == 0:
        return f"the key does not exist, but was expected at revision {wanted}"
    if wanted == 0:
        return f"the key exists, at revision {is_at}, but was expected not to (if_revision 0)"
    return f"the key is at revision {is_at}, not at {wanted}"


WRITES: dict[type, Writer] = {Set: _set, Delete: _delete, Cas: _cas}
"""How each kind of write is applied."""
