"""Claims about `chaos` and requests of all kinds: what a store does wrong with several keys, or twice, is found."""

import html
from pathlib import Path

import msgspec
import pytest
import trio

from tests.integration.test_chaos import Answer, run_on, serving
from tests.one_copy import OneCopy
from trio_kv.check.exchange import Exchange, read
from trio_kv.check.history import decode_history
from trio_kv.check.replay_replies import judge_replies
from trio_kv.kv.operations import Incr, Scan, Txn
from trio_kv.kv.operations.operation import Query
from trio_kv.kv.reply import Item, Reply
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import encode_error, encode_reply
from trio_kv.wire.requests import parse_line


def answer_all(answer: Answer, lines: list[bytes]) -> list[bytes]:
    """Return the replies to the lines of one chunk, whatever they ask."""
    replies = []
    for line in lines:
        request = parse_line(line)
        reply = answer(request)
        if reply.code in ("bad_request", "unavailable"):
            replies.append(encode_error(reply.code, reply.message, id=request.id))
        else:
            replies.append(encode_reply(request, reply, 1, 1))
    return replies


def prefix_of(exchange: Exchange) -> str:
    """Return what the keys of its family begin with."""
    name = exchange.keys[0] if exchange.keys else read(exchange.asked, "prefix")
    return str(name).rpartition("/")[0]


class Ticking(OneCopy):
    """Time passes in it."""

    rate = 1.0

    def answer(self, request: Request) -> Reply:
        self.pass_time(self.rate * trio.current_time())
        return super().answer(request)


class Hasty(Ticking):
    """Time passes too fast."""

    rate = 3.0


class Forgetful(Ticking):
    """Now and then a key that is to end does not."""

    def answer(self, request: Request) -> Reply:
        operation = request.operation
        if getattr(operation, "ttl", msgspec.UNSET) is not msgspec.UNSET and self.requests % 3 == 0:
            operation = msgspec.structs.replace(operation, ttl=msgspec.UNSET)
        return super().answer(msgspec.structs.replace(request, operation=operation))


class Doubling(Ticking):
    """Now and then a count is done twice, and told of once."""

    def answer(self, request: Request) -> Reply:
        reply = super().answer(request)
        if isinstance(request.operation, Incr) and reply.code == "ok" and self.requests % 10 == 0:
            self.write(request.operation)
        return reply


class Careless(Ticking):
    """Now and then a condition on a revision counts for nothing."""

    def answer(self, request: Request) -> Reply:
        operation = request.operation
        if getattr(operation, "if_revision", msgspec.UNSET) is not msgspec.UNSET and self.requests % 3 == 0:
            operation = msgspec.structs.replace(operation, if_revision=msgspec.UNSET)
        return super().answer(msgspec.structs.replace(request, operation=operation))


class Halving(Ticking):
    """Now and then a transaction does not do all that it says."""

    def answer(self, request: Request) -> Reply:
        before = dict(self.machine.items)
        reply = super().answer(request)
        changed = [key for key, item in self.machine.items.items() if before.get(key) is not item]
        if isinstance(request.operation, Txn) and len(changed) > 1 and self.requests % 3 == 0:
            key = min(changed)
            # Not one that ends: the machine would miss it when its time comes.
            if key in before and before[key].due is None and self.machine.items[key].due is None:
                self.machine.items[key] = before[key]
        return reply


class Tearing(Ticking):
    """Now and then a page shows one key as it was some time ago."""

    def __init__(self) -> None:
        super().__init__()
        self.old: dict[str, Item] = {}

    def read(self, query: Query) -> Reply:
        items = self.machine.items
        if not isinstance(query, Scan) or self.requests % 3:
            return super().read(query)
        now = dict(items)
        torn = [key for key in self.old if key in now and key.startswith(query.prefix)][-1:]
        items.update({key: self.old[key] for key in torn})
        try:
            return super().read(query)
        finally:
            items.update({key: now[key] for key in torn})
            self.old = now


async def test_one_copy_is_valid(tmp_path: Path) -> None:
    """All kinds of requests are asked, and what one copy says to them is one history."""
    async with serving(Ticking().answer, answer_all) as server:  # type: ignore[arg-type]
        summary = await run_on(server, tmp_path / "run", seconds=2.0, has_families=True)
    assert summary.verdict == "valid", summary.in_words()
    history = decode_history((tmp_path / "run" / "history.jsonl").read_bytes().splitlines())
    assert len(history.operations) + len(history.exchanges) > summary.checked
    assert {"incr", "scan", "txn"} <= summary.operations.keys()
    assert len({prefix_of(exchange) for exchange in history.exchanges}) >= 4


@pytest.mark.parametrize("store", [Doubling, Careless, Halving, Tearing, Hasty, Forgetful])
async def test_a_store_that_breaks_a_rule_is_found_guilty(
    tmp_path: Path, store: type[OneCopy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verdict names the answer that can't be; what was kept of the run shows it again."""
    # Families are judged when they have been used for so long.
    monkeypatch.setattr("trio_kv.sim.chaos.recorder.FAMILY_OPERATIONS", (80, 160))
    async with serving(store().answer, answer_all) as server:  # type: ignore[arg-type]
        summary = await run_on(server, tmp_path / "run", seconds=30.0, has_families=True)
    assert summary.verdict == "violation"
    assert summary.seconds < 30.0, "the first violation ends the load"
    history = decode_history((tmp_path / "run" / "history.jsonl").read_bytes().splitlines())
    page = html.unescape((tmp_path / "run" / "timeline.html").read_text())
    assert "No one history" in page
    assert any(violation.split(",", 1)[0] in page for violation in summary.violations)
    families = {prefix_of(exchange) for exchange in history.exchanges}
    parts = [[each for each in history.exchanges if prefix_of(each) == prefix] for prefix in families]
    assert any(judge_replies(part).outcome == "violation" for part in parts)
