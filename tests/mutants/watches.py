"""Watches: gapless, in order, none twice, and told when they are lost (scenarios C2, C3)."""

from collections.abc import Sequence
from typing import Any

import trio

from tests.mutants.registry import Patch, door_scripts, mutant
from trio_kv.gateway.drawn import Drawn
from trio_kv.gateway.pace import Pace
from trio_kv.gateway.pulls import Pulls
from trio_kv.gateway.watching import Watch, Watching
from trio_kv.kv.history import History
from trio_kv.kv.operations.operation import Change, Context
from trio_kv.kv.reply import Due
from trio_kv.proxy import watches as module
from trio_kv.proxy.watches import Watches
from trio_kv.replica.feed import Feed
from trio_kv.wire.node_port import Batch
from trio_kv.wire.watches import encode_bodies as real_bodies
from trio_kv.wire.watches import encode_lost as real_lost

WATCHING = "tests/unit/test_watching.py"
WATCHES = "tests/unit/test_watches.py"
FEED = "tests/unit/test_feed.py"


@mutant(
    "C2 a watch that goes on elsewhere leaves a revision out",
    world="whole",
    tests=(f"{WATCHING}::test_it_begins_behind_what_was_acknowledged",),
)
def _(patch: Patch) -> None:
    real = Watching._on_batch

    def on_batch(self: Watching, batch: Batch) -> None:
        changes = batch.changes
        if self._window is not None and len({each.revision for each in changes}) > 1:
            changes = [each for each in changes if each.revision != changes[0].revision]
        real(self, Batch(batch.number, batch.node, batch.after, batch.upto, changes))

    patch.setattr(Watching, "_on_batch", on_batch)


@mutant(
    "C2 a node tells of a revision again",
    world="core",
    tests=(f"{FEED}::test_pieces_join",),
)
def _(patch: Patch) -> None:
    real = History.read

    def read(self: History, after: int, changes_max: int, bytes_max: float) -> tuple[int, list[Any]]:
        upto, found = real(self, max(after - 1, self.after), changes_max, bytes_max)
        return max(upto, after + 1) if found else upto, found

    patch.setattr(Feed, "answers", _answers_of(Feed.answers, read))


def _answers_of(real: Any, read: Any) -> Any:
    """Return `answers` of a feed whose history is read in another way."""

    def answers(self: Feed) -> Any:
        before, History.read = History.read, read  # type: ignore[method-assign]
        try:
            return real(self)
        finally:
            History.read = before  # type: ignore[method-assign]

    return answers


@mutant(
    "C2 a node that installs a snapshot goes on with the history from before",
    world="core",
    tests=(
        f"{FEED}::test_what_is_behind_the_history_is_gone",
        *door_scripts("watch_C2_snapshot_installed"),
    ),
)
def _(patch: Patch) -> None:
    def restart(self: Feed, applied: int) -> None:
        self.history.note(applied, [], 0)

    patch.setattr(Feed, "restart", restart)


@mutant("C2 a watch waits for a node that is gone", tests=door_scripts("watch_C2_leader_change"))
def _(patch: Patch) -> None:
    patch.setattr(Pulls, "_on_change", lambda _self: None)
    patch.setattr(Feed, "stop", lambda _self: [])


@mutant(
    "C2 a watch is told of a deletion where a key ended",
    world="whole",
    tests=door_scripts("watch_C6_keys_that_end"),
)
def _(patch: Patch) -> None:
    def expire(self: Context, dues: Sequence[Due], told: Sequence[Change]) -> None:
        del told
        for _, key in dues:
            self.changes.append(Change("delete", key, None, self.index, self.items.pop(key).revision))

    patch.setattr(Context, "expire", expire)


@mutant(
    "C2 the changes of a revision come in two lines",
    tests=(f"{WATCHES}::test_a_watch_tells_one_line_a_revision",),
)
def _(patch: Patch) -> None:
    def encode_bodies(revisions: Any) -> list[bytes]:
        return real_bodies([[change] for changes in revisions for change in changes])

    patch.setattr(module, "encode_bodies", encode_bodies)


@mutant(
    "C2 a watch that is lost goes on behind the gap, and says nothing",
    world="whole",
    tests=(
        f"{WATCHING}::test_C2_a_slow_watch_is_lost_and_resumes",
        *door_scripts("watch_C2_slow_reader"),
    ),
)
def _(patch: Patch) -> None:
    real = Watching.draw

    def draw(self: Watching, watch: Watch) -> Drawn | None:
        drawn = real(self, watch)
        if drawn is not None and drawn.is_lost and self._window is not None:
            return Drawn(drawn.after, max(drawn.after, self._window.after))
        return drawn

    patch.setattr(Watching, "draw", draw)


@mutant(
    "C2 a watch that was lost is told to go on too far",
    world="whole",
    tests=(
        f"{WATCHES}::test_a_watch_that_is_lost_says_where_to_go_on",
        *door_scripts("watch_C2_slow_reader"),
    ),
)
def _(patch: Patch) -> None:
    patch.setattr(module, "encode_lost", lambda name, revision: real_lost(name, revision + 1))


@mutant(
    "C3 progress is told of what was drawn from the nodes, and not of what was told",
    world="whole",
    tests=(f"{WATCHING}::test_C3_progress_is_never_ahead", *door_scripts("watch_C3_progress")),
)
def _(patch: Patch) -> None:
    real = Watch.draw

    def draw(self: Watch) -> Drawn | None:
        if trio.current_time() >= self.due_at and self._owner._window is not None:
            self.due_at += self.progress_s
            upto = max(self.after, self._owner._window.upto)
            return Drawn(upto, upto)
        return real(self)

    patch.setattr(Watch, "draw", draw)


@mutant(
    "C2 lines of a watch come before its ok",
    tests=(f"{WATCHES}::test_the_ok_comes_first",),
)
def _(patch: Patch) -> None:
    real = Watches.start

    def start(self: Watches, request: Any, done: Any) -> Any:
        def told(answer: Any) -> None:
            if self.is_opening or self._begun:
                self.open()
                self._on_more()
            done(answer)

        return real(self, request, told)

    patch.setattr(Watches, "start", start)


@mutant(
    "C2 a watch that has ended is told more",
    tests=(f"{WATCHES}::test_nothing_comes_after_unwatch",),
)
def _(patch: Patch) -> None:
    def end(self: Watches, named: Any) -> None:
        del self._by_id[named.id]

    patch.setattr(Watches, "_end", end)


@mutant(
    "C2 a quiet watch is lost with the window",
    tests=(f"{WATCHING}::test_C2_a_slow_watch_is_lost_and_resumes",),
)
def _(patch: Patch) -> None:
    patch.setattr("trio_kv.gateway.topics.Topic.forgotten", lambda self, begin: self.last)


@mutant(
    "C2 watches rest until what they were to tell is gone",
    tests=(f"{WATCHING}::test_C2_no_watch_is_lost_by_a_rest",),
)
def _(patch: Patch) -> None:
    patch.setattr(Pace, "came", lambda self, revisions, size_bytes: None)
