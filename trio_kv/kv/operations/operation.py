"""What every operation is: the members of its JSON object, what it does or tells, and what its answer looks like.

An operation is one class in one file. The same object is decoded from a client's line, stands in the log inside a
`Write`, and is applied or answered by the state machine. Its type annotations are its limits: `wire` decodes by them,
and tells a client by them what was wrong.
"""

import math
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Annotated, ClassVar, Final, Literal, Protocol

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from trio_kv.kv.expiry import Expiry, Unnoted
from trio_kv.kv.reply import Due, Item, Origin, Reply

KEY_BYTES_MAX: Final = 4096
"""Bytes of a key in UTF-8; it has at least one. A longer one hears `too_large`."""

NOTED_BYTES_MAX: Final = 4096
"""How much of the value of an answer runs over the state digest."""

REVISION_MAX: Final = (1 << 63) - 1
"""The highest revision that a condition may name: what a log index can be, and what every reader can hold."""

Key = Annotated[str, Meta(examples=["snack"])]
KeyText = Annotated[str, Meta(examples=[""])]
"""What is compared with keys, and is no longer than one may be."""
Value = Annotated[Raw, Meta(examples=["chips"])]
"""Any JSON value, as the text that was sent."""
TTL_MIN_S: Final = 0.1
TTL_MAX_S: Final = 31_536_000
"""A year: far from where microseconds do not fit into an entry any more."""
Ttl = Annotated[float, Meta(ge=TTL_MIN_S, le=TTL_MAX_S, examples=[60])]
"""Seconds for which a key is kept at least; without it for good."""
Revision = Annotated[int, Meta(ge=0, le=REVISION_MAX)]


ChangeKind = Literal["set", "delete", "expire"]


class Change(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What an entry did to one key."""

    kind: ChangeKind
    key: str
    value: Raw | None
    """What the key holds now; None if it is gone."""
    revision: int
    """Index of the entry."""
    previous: int
    """The revision that the key had before; 0 if it did not exist."""


class TimedSet(Change, frozen=True, gc=False, array_like=True):
    """A key was given a value, and a time to live."""

    due_us: int
    """Cluster time at which it ends."""


class SessionChange(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What an entry did to one client session."""

    kind: Literal["open", "renew", "forget"]
    session: int
    timeout_us: int = 0
    """Of a session that was opened."""


class NoChange(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """An entry changed nothing, and this was its answer."""

    code: str
    revision: int
    value: Raw | None
    """The beginning of the answer's value."""


class Context:
    """Where an operation is applied: the keys, its place in the log, and the record of what was done."""

    __slots__ = ("changes", "compared_bytes", "expiry", "index", "items", "known", "origin", "time_us")

    def __init__(self) -> None:
        """Use `begin` before the first entry."""
        self.begin({}, Expiry())
        self.index = 0
        """Index of the entry: the revision of what it writes."""
        self.time_us = 0
        """Cluster time of the entry."""
        self.origin: Origin = ("", 0)
        """Where the value of the last answer that holds one comes from."""

    def begin(
        self,
        items: MutableMapping[str, Item],
        expiry: Expiry,
        known: Callable[[str], Item | None] | None = None,
    ) -> None:
        """Begin a run of entries.

        Args:
            items: all keys: a plain dict, or the two layers of a machine that was frozen (`kv.layers`).
            expiry: which of them end, and when.
            known: what a machine of the process holds that has applied these entries already, if there is one.

        """
        self.items = items
        self.expiry = expiry
        self.known = known
        self.changes: list[Change | SessionChange | NoChange] = []
        """What the run has done so far, in order."""
        self.compared_bytes = 0
        """JSON that the run has compared so far."""

    def put(
        self,
        key: str,
        value: Raw,
        before: Item | None,
        due_us: int | None = None,
        *,
        is_told: bool = False,
    ) -> Reply:
        """Give a key a value.

        Args:
            key: the key.
            value: what it holds from here on.
            before: what it holds; None if it does not exist.
            due_us: cluster time at which the key ends, see `end_of`; None: never.
            is_told: whether the answer tells the value.

        """
        item, previous = self._make_item(key, value, before, due_us), 0 if before is None else before.revision
        # Under the text that is shared: a dict takes over the key that it is given first. Changes are kept for who
        # watches, so they have the texts of the item, and hold none of the entry's.
        key, value = item.key, item.value
        self.items[key] = item
        if due_us is None:
            if before is not None and before.due is not None:
                self.expiry.replace(before, item)
            self.changes.append(Change("set", key, value, self.index, previous))
        else:
            self.expiry.replace(before, item)
            self.changes.append(TimedSet("set", key, value, self.index, previous, due_us))
        if is_told:
            self.origin = key, self.index
        return Reply("ok", value if is_told else None, self.index)

    def end_of(self, ttl: float | UnsetType, kept: Item | None = None) -> int | None:
        """Return the cluster time at which a key ends that is given so many seconds; without them, when `kept` ends."""
        if ttl is not UNSET:
            return self.time_us + math.ceil(ttl * 1_000_000)
        return None if kept is None or kept.due is None else kept.due[0]

    def _make_item(self, key: str, value: Raw, before: Item | None, due_us: int | None) -> Item:
        """Return what a key holds from here on: what the machine that is ahead has, if that is the same."""
        if self.known is not None:
            known = self.known(key)
            # One revision of a key has one value in all of a cluster's history; but a machine that is wrong must stay
            # so alone.
            if known is not None and known.revision == self.index and known.value == value:
                known_us = None if known.due is None else known.due[0]
                if known_us == due_us:
                    return known
            before = before or known
        if before is not None:
            key = before.key
        # Copied, if it is a part of something larger that would stay in memory with it.
        if due_us is None:
            return Item(value.copy(), self.index, key)
        return Item(value.copy(), self.index, key, (due_us, key))

    def remove(self, key: str, item: Item) -> Reply:
        """Remove a key; `item` is what it holds."""
        del self.items[key]
        if item.due is not None:
            self.expiry.replace(item, None)
        self.changes.append(Change("delete", key, None, self.index, item.revision))
        self.origin = key, item.revision
        return Reply("ok", item.value, self.index)

    def expire(self, dues: Sequence[Due], told: Sequence[Change]) -> None:
        """Remove the keys whose time has come.

        Args:
            dues: these; the order of what ends has them no more.
            told: the changes that another machine of the process made of them, as far as they are known: it is not
                believed, but what is equal there need not be made again, nor kept twice.

        """
        items, index, changes = self.items, self.index, self.changes
        known = iter(told)
        for _, key in dues:
            previous = items.pop(key).revision
            change = next(known, None)
            if change is None or change.key != key or change.previous != previous:
                change = Change("expire", key, None, index, previous)
            changes.append(change)

    def refuse(self, key: str, item: Item | None, message: str) -> Reply:
        """Return the answer to a write whose condition does not hold; `item` is what the key holds."""
        if item is None:
            return Reply("conflict", None, 0, message)
        self.origin = key, item.revision
        return Reply("conflict", item.value, item.revision, message)

    def note(self, reply: Reply) -> Reply:
        """Note an answer to an entry that changed nothing; return the answer."""
        value = reply.value
        if value is not None and len(value) > NOTED_BYTES_MAX:
            # All of it ran over the digest when it was written. A client that asks in vain for a large value, again and
            # again, must not let every node run over it each time.
            value = Raw(memoryview(value)[:NOTED_BYTES_MAX])
        self.changes.append(NoChange(reply.code, reply.revision, value))
        return reply

    def make_inner(self, items: MutableMapping[str, Item]) -> "Context":
        """Return a context of the same entry, for what is applied to other keys first, as to a draft of these."""
        inner = Context()
        inner.begin(items, Unnoted(), self.known)
        inner.index, inner.time_us = self.index, self.time_us
        return inner


class Order(Protocol):
    """The keys of a state in their order: by their UTF-8 bytes. A range has no end where `end` is None."""

    def between(self, first: str, end: str | None) -> Iterator[str]:
        """Yield the keys from `first` on that come before `end`."""

    def between_reversed(self, first: str, end: str | None) -> Iterator[str]:
        """Yield the same keys, the last one first."""

    def count(self, first: str, end: str | None) -> int:
        """Return how many these are."""


class State(Protocol):
    """What a query is answered from: the state after the entry `applied`."""

    @property
    def items(self) -> Mapping[str, Item]:
        """All keys."""

    @property
    def applied(self) -> int:
        """Index of the last applied entry."""

    @property
    def known_time_us(self) -> int:
        """Cluster time, as far as the node knows that answers."""

    def take_order(self) -> Order | None:
        """Return the order of the keys; None if whoever asks has to wait for it, and to ask again."""


class Operation(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, tag_field="op"):
    """What a client can ask for. Its fields are the members of its JSON object."""

    words: ClassVar[str] = ""
    """Its members as words of a command line, in their order; those in brackets may be left out. One that
    begins with hyphens is an option, behind the operation's own word."""
    purpose: ClassVar[str]
    """What it does, for a list of commands."""
    has_result: ClassVar[bool] = False
    """Whether an answer that is ok tells a value that the asker did not send."""
    has_page: ClassVar[bool] = False
    """Whether its answer is a page: made for it alone, of up to a MiB, of keys in their order."""
    tells_revision: ClassVar[bool] = False
    """Whether its answer has a revision, also where nobody asks for `meta`."""
    needs_id: ClassVar[bool] = False
    """Whether a request without an `id` makes no sense."""

    @property
    def name(self) -> str:
        """What stands in `op`."""
        return name_of(type(self))

    @property
    def is_write(self) -> bool:
        """Whether it may change something."""
        return False

    def find_problem(self) -> str | None:
        """Return what is wrong with its members together, in words for a person; None if nothing is."""
        return None

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:
        """Return the members of an answer that is ok, in pieces. Each member ends with a comma and a space."""
        raise NotImplementedError

    def encode_tail(self, reply: Reply) -> bytes:  # noqa: ARG002 - most tell nothing there
        """Return members that stand behind the status. Each begins with a comma and a space."""
        return b""

    def __repr__(self) -> str:
        return encode(self).decode(errors="replace")


def name_of(kind: type[Operation]) -> str:
    """Return what stands in `op` of an operation."""
    return str(kind.__struct_config__.tag)


class Query(Operation, frozen=True, gc=False):
    """An operation that only reads."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts."""
        raise NotImplementedError

    def answer(self, state: State) -> Reply:
        """Return what the state says."""
        raise NotImplementedError


class WriteOperation(Operation, frozen=True, gc=False):
    """An operation that may change something. It stands in the log inside a `Write`."""

    @property
    def is_write(self) -> bool:
        """Whether it may change something: it may also be one that is told to do so only among others."""
        return True

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts."""
        raise NotImplementedError

    def answer_bytes(self, items: Mapping[str, Item]) -> int:
        """Return how many bytes of a value its answer may hold, at most, if it is applied to these keys."""
        raise NotImplementedError

    def apply(self, context: Context) -> Reply:
        """Take effect, and return the answer. A function of the context and of nothing else; it never raises."""
        raise NotImplementedError


class KeyWrite(WriteOperation, frozen=True, gc=False):
    """A write to one key."""

    key: Key

    def answer_bytes(self, items: Mapping[str, Item]) -> int:
        """Return the size of what the key holds."""
        item = items.get(self.key)
        return 0 if item is None else len(item.value)


def encode_key_and_value(key: str, value: Raw) -> Sequence[bytes | Raw]:
    """Return the two members that the answers of most operations have, in pieces."""
    return b'"key": ', encode(key), b', "value": ', value, b", "


def explain_revisions(is_at: int, wanted: int) -> str:
    """Return why `if_revision` does not hold."""
    if is_at == 0:
        return f"the key does not exist, but was expected at revision {wanted}"
    if wanted == 0:
        return f"the key exists, at revision {is_at}, but was expected not to (if_revision 0)"
    return f"the key is at revision {is_at}, not at {wanted}"


encode = msgspec.json.Encoder().encode
