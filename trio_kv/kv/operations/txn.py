"""`txn`: conditions on some keys, and operations that are carried out together or not at all, at one revision.

The operations are applied to a draft of the keys, so each sees the ones before it, and a transaction that fails leaves
nothing behind. What the answer tells is kept in short: a code an operation, and the values that were found.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from trio_kv.kv.equality import COMPARED_BYTES_MAX, is_equal_json
from trio_kv.kv.operations.delete import Delete
from trio_kv.kv.operations.get import Get
from trio_kv.kv.operations.incr import Incr
from trio_kv.kv.operations.operation import Context, Key, Revision, WriteOperation, encode
from trio_kv.kv.operations.set import Set
from trio_kv.kv.reply import Item, Reply

CONDITIONS_MAX: Final = 120
OPERATIONS_MAX: Final = 120
"""Of each branch."""
RESULTS_BYTES_MAX: Final = 1 << 20
"""Bytes of the results as they stand in the answer. A rule of the state machine: no option changes it."""
RESULT_BYTES: Final = 16
"""What a kept result takes besides its value."""

OWN_TEXT: Final = ""
"""The key that the text of an answer is said to come from, which no key is called: it is the transaction's own."""

TOO_LARGE: Final = Reply(
    "too_large", message=f"the results would have more than {RESULTS_BYTES_MAX} bytes: nothing was changed"
)

BranchOperation = Get | Set | Delete | Incr
"""What may stand in a branch."""


class Condition(Struct, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """What must hold of a key: one of the three."""

    key: Key
    equals: Raw | UnsetType = UNSET
    """It has this value, by JSON equality."""
    revision: Revision | UnsetType = UNSET
    """It has this revision; 0: it does not exist."""
    exists: bool | UnsetType = UNSET

    def holds(self, items: Mapping[str, Item], budget: "_Budget") -> bool:
        """Return whether it does."""
        item = items.get(self.key)
        if self.revision is not UNSET:
            return self.revision == (0 if item is None else item.revision)
        if self.equals is not UNSET:
            return item is not None and budget.is_equal(item.value, self.equals)
        return self.exists == (item is not None)


class _Budget:
    """What a transaction may still compare as JSON; beyond it texts are equal only byte for byte."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._left_bytes = COMPARED_BYTES_MAX

    def is_equal(self, first: Raw, second: Raw) -> bool:
        """Return whether two texts are equal."""
        size_bytes = len(first) + len(second)
        if size_bytes > self._left_bytes:
            return bytes(first) == bytes(second)
        self._left_bytes -= size_bytes
        self._context.compared_bytes += size_bytes
        return is_equal_json(first, second)


class _Draft(MutableMapping[str, Item]):
    """Keys, and what is to become of some of them: None stands for one that is to be removed."""

    def __init__(self, below: Mapping[str, Item]) -> None:
        self._below = below
        self.changed: dict[str, Item | None] = {}

    def get(self, key: str, default: Item | None = None) -> Item | None:  # type: ignore[override]
        return self.changed[key] if key in self.changed else self._below.get(key, default)

    def __getitem__(self, key: str) -> Item:
        item = self.get(key)
        if item is None:
            raise KeyError(key)
        return item

    def __setitem__(self, key: str, item: Item) -> None:
        self.changed[key] = item

    def __delitem__(self, key: str) -> None:
        self.changed[key] = None

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError


class _Kept(Struct, frozen=True, gc=False, array_like=True):
    """What is kept of the reply to an operation."""

    code: str
    value: Raw = Raw()


class Txn(WriteOperation, frozen=True, gc=False, tag="txn"):
    """Carry out one of two lists of operations, all or nothing."""

    words = "IF THEN [ELSE]"
    purpose = "lists of conditions and operations in JSON, as the protocol has them"
    has_result = True
    tells_revision = True

    conditions: Annotated[tuple[Condition, ...], Meta(max_length=CONDITIONS_MAX)] = field(
        default=(), name="if"
    )
    then: Annotated[tuple[BranchOperation, ...], Meta(max_length=OPERATIONS_MAX)] = ()
    """Carried out if all conditions hold."""
    otherwise: Annotated[tuple[BranchOperation, ...], Meta(max_length=OPERATIONS_MAX)] = field(
        default=(), name="else"
    )
    """Carried out if one does not."""

    @property
    def branches(self) -> tuple[tuple[str, Sequence[BranchOperation]], ...]:
        """Both lists of operations, with their names."""
        return ("then", self.then), ("else", self.otherwise)

    @property
    def is_write(self) -> bool:
        """Whether either branch may change something."""
        return any(operation.is_write for _, branch in self.branches for operation in branch)

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts."""
        conditions = [
            len(each.key) + (0 if each.equals is UNSET else len(each.equals)) for each in self.conditions
        ]
        return sum(conditions) + sum(each.size_bytes for _, branch in self.branches for each in branch)

    def find_problem(self) -> str | None:
        """Return what of it can't be, in words for a person."""
        for name, branch in self.branches:
            written: dict[str, int] = {}
            for place, operation in enumerate(branch):
                if isinstance(operation, Set | Delete) and operation.if_revision is not UNSET:
                    return f'"{name}"[{place}] has "if_revision"; in a txn conditions stand in "if"'
                if not operation.is_write:
                    continue
                first = written.setdefault(operation.key, place)
                if first != place:
                    return f'"{name}"[{place}] writes the key of "{name}"[{first}] again; once is right'
        return None

    def answer_bytes(self, items: Mapping[str, Item]) -> int:
        """Return how many bytes the kept results may have: what keys hold or are given, where that is told."""
        telling = [each for _, branch in self.branches for each in branch if not isinstance(each, Set)]
        held = [items.get(each.key) for each in telling]
        told = sum(len(item.value) for item in held if item is not None)
        own = self.size_bytes if telling else 0
        return RESULT_BYTES * max(len(self.then), len(self.otherwise)) + told + own

    def apply(self, context: Context) -> Reply:
        """Carry out the branch that is due, if all of its operations can be."""
        budget = _Budget(context)
        has_succeeded = all(condition.holds(context.items, budget) for condition in self.conditions)
        name, branch = self.branches[0 if has_succeeded else 1]
        draft = _Draft(context.items)
        inner = context.make_inner(draft)
        replies: list[Reply] = []
        for place, operation in enumerate(branch):
            reply = operation.find(draft) if isinstance(operation, Get) else operation.apply(inner)
            if reply.code == "conflict":
                context.origin = inner.origin
                where = f'"{name}"[{place}] of the txn, of {encode(operation.key).decode()}'
                return msgspec.structs.replace(reply, message=f"{where}: {reply.message}")
            replies.append(reply)
        results = _encode_results(branch, replies)
        if sum(map(len, results)) + 2 * len(results) > RESULTS_BYTES_MAX:
            return TOO_LARGE
        return self._take_effect(
            context, draft, inner, Reply("ok", _keep(has_succeeded, replies), context.index)
        )

    def _take_effect(self, context: Context, draft: _Draft, inner: Context, reply: Reply) -> Reply:
        items = context.items
        for key, item in draft.changed.items():
            context.expiry.replace(items.get(key), item)
            if item is not None:
                items[key] = item
            elif key in items:
                del items[key]
        context.changes += inner.changes
        if not inner.changes:
            context.note(reply)
        context.origin = OWN_TEXT, context.index
        return reply

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:
        """Tell which branch was carried out, and the results."""
        assert reply.value is not None, f"{reply} to {self} has no results"
        has_succeeded, kept = _decode_kept(reply.value)
        branch = self.then if has_succeeded else self.otherwise
        replies = [Reply(each.code, each.value if len(each.value) else None) for each in kept]
        results = b", ".join(_encode_results(branch, replies))
        succeeded = b"true" if has_succeeded else b"false"
        return b'"succeeded": %b, "results": [' % succeeded, results, b'], "revision": %d, ' % reply.revision


def _encode_results(branch: Iterable[BranchOperation], replies: Iterable[Reply]) -> list[bytes]:
    """Return the results as they stand in an answer: each as the reply to the operation alone would be."""
    return [
        b"".join((b"{", *operation.encode_members(reply), b'"status": "ok"}'))
        if reply.code == "ok"
        else b'{"key": %b, "value": null, "status": "error"}' % encode(operation.key)
        for operation, reply in zip(branch, replies, strict=True)
    ]


def _keep(has_succeeded: bool, replies: Sequence[Reply]) -> Raw:
    """Return in short what the answer tells; the operations say the rest."""
    kept = [[each.code] if each.value is None else [each.code, each.value] for each in replies]
    return Raw(encode((has_succeeded, kept)))


_decode_kept = msgspec.json.Decoder(tuple[bool, list[_Kept]]).decode
