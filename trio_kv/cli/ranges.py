"""What the commands `scan`, `watch` and `txn` print: more than one key each."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Final

import attrs
import msgspec
from msgspec import UNSET

from trio_kv.cli.errors import UsageError
from trio_kv.cli.output import (
    ExitCode,
    Output,
    explain_answer,
    say,
    show,
    show_answer,
    show_key,
    show_rows,
    show_value,
)
from trio_kv.cli.streams import is_lost
from trio_kv.cli.target import Asking
from trio_kv.client.answers import Item
from trio_kv.client.client import Client
from trio_kv.client.following import Revision
from trio_kv.client.txns import parse_txn, read_txn
from trio_kv.trace.text import printable_json
from trio_kv.wire.operations import Request, Scan, Txn
from trio_kv.wire.replies import ReplyLine

TXN_LISTS: Final = ("if", "then", "else")
PAGE_ITEMS_MAX: Final = 1000
"""Of the protocol."""


@attrs.frozen(kw_only=True)
class Range:
    """Which keys, and what of them."""

    prefix: str
    after: str | None = None
    limit: int = 0
    """How many at most; 0 for all."""
    is_reversed: bool = False
    has_values: bool = True
    is_stale: bool = False


@attrs.define
class Reading:
    """A range that is read page by page."""

    _client: Client
    _range: Range
    is_more: bool = False
    """Whether there are keys behind the last one."""

    def items(self) -> Iterator[Item]:
        """Yield the items. Raises what `Client.scan` raises."""
        wanted, after, left = self._range, self._range.after, self._range.limit or None
        while left is None or left > 0:
            page = self._client.scan(
                wanted.prefix,
                after=after,
                limit=PAGE_ITEMS_MAX if left is None else min(left, PAGE_ITEMS_MAX),
                is_reversed=wanted.is_reversed,
                has_values=wanted.has_values,
                is_stale=wanted.is_stale,
            )
            yield from page.items
            self.is_more = page.is_more
            if not page.is_more:
                return
            after = page.items[-1].key
            left = None if left is None else left - len(page.items)


def show_range(client: Client, wanted: Range, asking: Asking) -> ExitCode:
    """Print keys, and what they hold. Raises what `Client.scan` raises."""
    reading = Reading(client, wanted)
    rows: list[dict[str, object]] = []
    last = ""
    for item in reading.items():
        last = item.key
        if asking.output == "table":
            rows.append(item_row(item))
        elif asking.output == "json":
            show(encode_item(item))
        else:
            show(show_item(item))
        if is_lost(sys.stdout):
            break
    if rows:
        show_rows(rows)
    if reading.is_more and not asking.is_quiet:
        say(f"there are more: --limit 0 shows all, --after {show_key(last)} what comes next")
    return ExitCode.OK


def show_count(client: Client, wanted: Range, asking: Asking) -> ExitCode:
    """Print how many keys there are."""
    after = UNSET if wanted.after is None else wanted.after
    operation = Scan(wanted.prefix, after, reverse=wanted.is_reversed, count=True)
    answer = client.ask(Request(operation, is_stale=wanted.is_stale))
    if answer.code != "ok" or asking.output == "json":
        return show_answer(answer, asking.output, has_value=False)
    number = msgspec.json.decode(answer.line)["count"]
    if asking.output == "table":
        show_rows([{"count": number, "revision": answer.revision}])
    else:
        show(str(number))
    return ExitCode.OK


def show_item(item: Item) -> str:
    """Return a key, and what it holds if that was asked for, as one types them."""
    return f"{show_key(item.key)}  {show_value(item.value)}" if len(item.value) else show_key(item.key)


def encode_item(item: Item) -> str:
    """Return an item as a line of JSON."""
    members: dict[str, Any] = {"key": item.key}
    if len(item.value):
        members["value"] = item.value
    return _encode({**members, "revision": item.revision})


def item_row(item: Item) -> dict[str, object]:
    """Return an item as a row of a table."""
    value = {"value": show_value(item.value)} if len(item.value) else {}
    return {"key": show_key(item.key), **value, "revision": item.revision}


def show_changes(changes: Iterable[Revision], output: Output, count: int | None = None) -> ExitCode:
    """Print what changes, until there were so many revisions or nobody reads any more.

    Raises:
        RefusedError, NotConnectedError: the watch can't go on.

    """
    for number, revision in enumerate(changes, 1):
        for line in _change_lines(revision, output):
            show(line)
        sys.stdout.flush()
        if number == count or is_lost(sys.stdout):
            break
    return ExitCode.OK


def _change_lines(revision: Revision, output: Output) -> Iterator[str]:
    if output == "json":
        events = [
            {"event": event.event, "key": event.key} | ({"value": event.value} if len(event.value) else {})
            for event in revision.events
        ]
        yield _encode({"revision": revision.revision, "events": events})
        return
    for event in revision.events:
        value = f"  {show_value(event.value)}" if len(event.value) else ""
        yield f"{revision.revision}  {event.event}  {show_key(event.key)}{value}"


def parse_document(text: str) -> Txn:
    """Return the transaction that a JSON object says.

    Raises:
        UsageError: it is none; says what is wrong with it.

    """
    try:
        members = msgspec.json.decode(text.encode(), type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(
            f'a transaction is a JSON object, {{"if": [], "then": [], "else": []}}: {error}'
        ) from error
    strange = [name for name in members if name not in TXN_LISTS]
    if strange:
        raise UsageError(f"a transaction has if, then and else, and no {strange[0]!r}")
    try:
        return parse_txn({name: bytes(value) for name, value in members.items()})
    except ValueError as error:
        raise UsageError(str(error)) from error


def show_txn(operation: Txn, answer: ReplyLine, output: Output, *, is_quiet: bool = False) -> ExitCode:
    """Print what came of a transaction, a line an operation; its code tells whether `then` was carried out."""
    if answer.code != "ok":
        return show_answer(answer, output, has_value=False, is_quiet=is_quiet)
    done = read_txn(answer)
    if output == "json":
        show(answer.line.decode().rstrip())
    else:
        operations = operation.then if done.has_succeeded else operation.otherwise
        rows = [
            {"op": each.name, "key": show_key(each.key), "result": _result(each, reply)}
            for each, reply in zip(operations, done.results, strict=True)
        ]
        if output == "table":
            show_rows(rows)
        else:
            for row in rows:
                show("  ".join(row.values()))
    if not done.has_succeeded and not is_quiet:
        say("a condition did not hold: else was carried out")
    return ExitCode.OK if done.has_succeeded else ExitCode.NOT_DONE


def _result(operation: Any, reply: ReplyLine) -> str:
    if reply.code != "ok":
        return "missing" if reply.code == "missing" else explain_answer(reply)
    return show_value(reply.value) if operation.has_result and reply.value is not None else "ok"


def _encode(members: Any) -> str:
    return printable_json(msgspec.json.encode(members).decode())
