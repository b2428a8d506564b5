"""Operations on several keys, on numbers and on conditions: what a store does wrong with them."""

from typing import Any

import msgspec
from msgspec import UNSET

from tests.mutants.registry import Patch, mutant
from trio_kv.gateway.raft import RaftStore
from trio_kv.gateway.store import OnAnswer
from trio_kv.kv.operations import Delete, Get, Incr, Scan, Set, Txn, txn
from trio_kv.kv.operations.operation import Context
from trio_kv.kv.reply import Reply


def replay_tests(*names: str) -> tuple[str, ...]:
    """Return tests of the judge that replays a history."""
    return tuple(f"tests/property/test_replay.py::{name}" for name in names)


RULES = replay_tests("test_the_rules_are_those_of_the_state_machine")


@mutant("an incr counts twice", world="core", tests=RULES)
def _(patch: Patch) -> None:
    real = Incr.apply

    def apply(self: Incr, context: Context) -> Reply:
        reply = real(self, context)
        return real(self, context) if reply.code == "ok" else reply

    patch.setattr(Incr, "apply", apply)


@mutant("an incr takes effect a second time, under a seq of its own", world="whole")
def _(patch: Patch) -> None:
    real = RaftStore.start_write

    def start_write(self: RaftStore, operations: Any, *, timeout_s: float, done: OnAnswer) -> Any:
        (first, *_) = operations
        if isinstance(first, Incr):
            real(self, [first], timeout_s=timeout_s, done=lambda _: None)
        return real(self, operations, timeout_s=timeout_s, done=done)

    patch.setattr(RaftStore, "start_write", start_write)


@mutant("kv: an incr takes what is no number for zero", world="core", tests=RULES)
def _(patch: Patch) -> None:
    real = Incr.apply

    def apply(self: Incr, context: Context) -> Reply:
        reply = real(self, context)
        if reply.code == "conflict":
            context.items.pop(self.key)
            return real(self, context)
        return reply

    patch.setattr(Incr, "apply", apply)


@mutant("kv: a delete looks at no revision", world="core", tests=RULES)
def _(patch: Patch) -> None:
    real = Delete.apply

    def apply(self: Delete, context: Context) -> Reply:
        return real(msgspec.structs.replace(self, if_revision=UNSET), context)

    patch.setattr(Delete, "apply", apply)


@mutant("kv: a set on the condition of a missing key takes any key", world="core", tests=RULES)
def _(patch: Patch) -> None:
    real = Set.apply

    def apply(self: Set, context: Context) -> Reply:
        if self.if_revision == 0:
            return real(msgspec.structs.replace(self, if_revision=UNSET), context)
        return real(self, context)

    patch.setattr(Set, "apply", apply)


@mutant("a page of a scan is torn between two states", world="core")
def _(patch: Patch) -> None:
    real = Scan.answer
    before: dict[int, tuple[Any, Any]] = {}

    def answer(self: Scan, state: Any) -> Reply:
        reply = real(self, state)
        _, old = before.get(id(state), (None, None))
        copy = dict(state.items)
        before[id(state)] = state, copy
        if old is None or reply.code != "ok" or self.count:
            return reply
        # The second half of the page is as it was when this node answered the last scan.
        page = msgspec.json.decode(b"{%b" % bytes(reply.value or b"")[:-2] + b"}", type=dict[str, Any])
        middle = len(page["items"]) // 2
        for item in page["items"][middle:]:
            held = old.get(item["key"])
            if held is not None:
                item["revision"] = held.revision
                if self.values:
                    item["value"] = held.value
        items, is_more = (
            b", ".join(map(msgspec.json.encode, page["items"])),
            msgspec.json.encode(page["more"]),
        )
        return Reply("ok", msgspec.Raw(b'"items": [%b], "more": %b, ' % (items, is_more)), reply.revision)

    patch.setattr(Scan, "answer", answer)


@mutant("kv: the page of a scan begins with the key that it is to begin behind", world="core", tests=RULES)
def _(patch: Patch) -> None:
    real = Scan.answer

    def answer(self: Scan, state: Any) -> Reply:
        if self.after is UNSET or self.reverse:
            return real(self, state)
        # The greatest key below it.
        return real(
            msgspec.structs.replace(self, after=self.after[:-1] + chr(ord(self.after[-1]) - 1)), state
        )

    patch.setattr(Scan, "answer", answer)


@mutant("kv: a scan counts no more keys than a page has", world="core", tests=RULES)
def _(patch: Patch) -> None:
    real = Scan.answer

    def answer(self: Scan, state: Any) -> Reply:
        reply = real(self, state)
        if not self.count or reply.value is None:
            return reply
        count = int(bytes(reply.value).removeprefix(b'"count": ').removesuffix(b", "))
        return Reply("ok", msgspec.Raw(b'"count": %d, ' % min(3, count)), reply.revision)

    patch.setattr(Scan, "answer", answer)


# Transactions


@mutant("a txn that can't be carried out leaves what it did before that", world="core", tests=RULES)
def _(patch: Patch) -> None:
    real = Txn.apply

    def apply(self: Txn, context: Context) -> Reply:
        reply = real(self, context)
        if reply.code == "conflict":
            for operation in self.then:
                if isinstance(operation, Get):
                    continue
                if operation.apply(context).code == "conflict":
                    break
        return reply

    patch.setattr(Txn, "apply", apply)


@mutant("a txn does half of its work", world="core", tests=RULES)
def _(patch: Patch) -> None:
    real = Txn._take_effect

    def take_effect(self: Txn, context: Context, draft: Any, inner: Context, reply: Reply) -> Reply:
        if len(draft.changed) > 1:
            draft.changed.popitem()
        return real(self, context, draft, inner, reply)

    patch.setattr(Txn, "_take_effect", take_effect)


@mutant("a txn looks at no condition", world="core", tests=RULES)
def _(patch: Patch) -> None:
    patch.setattr(txn.Condition, "holds", lambda self, items, budget: True)


@mutant("the operations of a txn do not see the ones before", world="core", tests=RULES)
def _(patch: Patch) -> None:
    patch.setattr(txn._Draft, "get", lambda self, key, default=None: self._below.get(key, default))
