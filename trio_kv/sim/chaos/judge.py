"""The judge: checks one key's operations after the other in a process of its own, so that the load is not disturbed.

`python -m trio_kv.sim.chaos.judge FILE WATCHED` reads questions from its standard input, one JSON object a line
(`Question`), and answers each with one line. It ends with its input, so it never outlives who started it.
"""

import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

import attrs
import msgspec
import trio

from trio_kv.check.history import Drawn, Fault, History, decode_history, encode_history
from trio_kv.check.linearizability import check_history
from trio_kv.check.picture import draw_history
from trio_kv.check.replay_replies import judge_replies
from trio_kv.check.streams import Line, Span, judge_streams
from trio_kv.same_code import same_code

NICE = 10


Ranges = Sequence[tuple[int, int]]
"""Where operations stand in a file: offset and size in bytes of some parts of it."""


class Question(msgspec.Struct, frozen=True):
    """What the judge is asked."""

    operations: Ranges
    """Where those on a key, or of a family, stand."""
    calm_from_s: float | None = None
    """From then on the store was whole, see `judge_replies`; None: it was not yet."""
    watched: Ranges = ()
    """Where it stands what watches were told of it."""
    spans: Sequence[Span] = ()
    """Of these watches; none if they are not to be judged yet."""
    last_revision: int = 0
    """Of what was written when all else had been answered."""


class Opinion(msgspec.Struct, frozen=True):
    """What the judge thinks of a key's operations."""

    verdict: str
    """valid, violation or unknown"""
    reason: str = ""
    is_watched: bool = False
    """Whether a watch was told all of it, and all was carried out once more by that."""


def read_operations(file: BinaryIO, ranges: Ranges) -> History:
    """Return the operations that stand in these parts of a file of lines without a header."""
    lines = [*encode_history(())]
    for offset, size_bytes in ranges:
        file.seek(offset)
        lines += file.read(size_bytes).splitlines(keepends=True)
    return decode_history(lines)


def form_opinion(history: History, lines: Sequence[Line], question: Question) -> Opinion:
    """Return whether the operations on a key, or those of a family, are linearizable, and if not, in words why not.

    Args:
        history: these operations.
        lines: what watches were told of them.
        question: what else is known.

    """
    calm_from_s = _moment(question.calm_from_s)
    is_watched, found = judge_streams(
        history, lines, question.spans, question.last_revision, calm_from_s=calm_from_s
    )
    if found:
        return Opinion("violation", found[0])
    verdict = check_history(history.operations)
    if verdict.violations:
        broken = verdict.violations[0]
        return Opinion("violation", f"{broken.kind} of {broken.key}: {broken.words}")
    if verdict.undecided:
        return Opinion("unknown", "too many orders to try")
    if is_watched:
        # All was carried out once more by the log, and nothing has to be guessed from replies.
        return Opinion("valid", is_watched=True)
    replayed = judge_replies(history.exchanges, calm_from_s=calm_from_s)
    if replayed.doubts:
        # What had to be left open may be the reason for whatever looks wrong behind it.
        return Opinion("unknown", "; ".join(replayed.doubts))
    return Opinion(replayed.outcome, "; ".join(replayed.violations[:1]))


def _moment(at_s: float | None) -> float:
    return math.inf if at_s is None else at_s


def draw_picture(
    path: Path,
    parts: Sequence[Ranges],
    guilty: Sequence[Ranges],
    faults: Sequence[Fault],
    *,
    title: str,
    calm_from_s: float | None,
) -> str:
    """Return a page that shows operations among the faults, and what is wrong with them.

    Args:
        path: of the file.
        parts: where the operations of each key stand.
        guilty: those of keys that are wrong.
        faults: of the whole run; those of another time are left out.
        title: of the page.
        calm_from_s: see `Question`.

    """
    with path.open("rb") as file:
        history = read_operations(file, [each for part in parts for each in part])
        accused = read_operations(file, [each for part in guilty for each in part])
    verdict = attrs.evolve(
        check_history(accused.operations), operations=len(history.operations), keys=len(parts)
    )
    drawn: list[Drawn] = [*history.operations, *history.exchanges]
    begin_s = min((operation.call_s for operation in drawn), default=0.0)
    end_s = max((operation.end_s for operation in drawn), default=0.0)
    around = tuple(fault for fault in faults if fault.from_s <= end_s and (fault.to_s or end_s) >= begin_s)
    replayed = judge_replies(accused.exchanges, calm_from_s=_moment(calm_from_s))
    return draw_history(attrs.evolve(history, faults=around), verdict, title, replayed)


def read_lines(file: BinaryIO, ranges: Ranges) -> list[Line]:
    """Return what watches were told, as it stands in these parts of a file."""
    lines: list[bytes] = []
    for offset, size_bytes in ranges:
        file.seek(offset)
        lines += file.read(size_bytes).splitlines()
    return [msgspec.json.decode(line, type=Line) for line in lines]


def main(path: str, watched_path: str) -> None:
    """Answer questions until the input ends."""
    os.nice(NICE)
    with Path(path).open("rb") as file, Path(watched_path).open("rb") as watched:
        for question in sys.stdin.buffer:
            asked = msgspec.json.decode(question, type=Question)
            history, lines = read_operations(file, asked.operations), read_lines(watched, asked.watched)
            opinion = form_opinion(history, lines, asked)
            sys.stdout.buffer.write(msgspec.json.encode(opinion) + b"\n")
            sys.stdout.buffer.flush()


@attrs.define(eq=False)
class Judge:
    """The other end: asks the process. `open_judge` makes one; one question at a time."""

    _process: trio.Process
    _received: bytearray = attrs.field(factory=bytearray)

    async def ask(self, question: Question) -> Opinion:
        """Return the judge's opinion of some operations."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            await self._process.stdin.send_all(msgspec.json.encode(question) + b"\n")
            while (end := self._received.find(b"\n")) < 0:
                chunk = await self._process.stdout.receive_some()
                if not chunk:
                    return Opinion("unknown", "the checker's process died")
                self._received += chunk
        except trio.BrokenResourceError:
            return Opinion("unknown", "the checker's process died")
        line = bytes(self._received[:end])
        del self._received[: end + 1]
        return msgspec.json.decode(line, type=Opinion)


@asynccontextmanager
async def open_judge(path: Path, watched: Path) -> AsyncIterator[Judge]:
    """Run a judge of two files for as long as the block does: operations, and what watches were told of them."""
    process = await trio.lowlevel.open_process(
        same_code("trio_kv.sim.chaos.judge", str(path), str(watched)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield Judge(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
