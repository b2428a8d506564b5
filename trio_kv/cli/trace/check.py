"""`trace check`: is what was told a right run?"""

from collections.abc import Sequence
from pathlib import Path

from trio_kv.check.told.broken import Broken
from trio_kv.check.told.jury import Jury
from trio_kv.cli.output import Output, show, show_json
from trio_kv.cli.trace.feed import Feed, Finding
from trio_kv.cli.words import count
from trio_kv.trace.log import render_console
from trio_kv.trace.trace import Record

PROPERTIES = (
    "election safety",
    "log matching",
    "leader append-only",
    "leader completeness",
    "state-machine safety",
    "commit rule",
    "durable on a majority",
    "durable log",
    "monotonic term",
    "monotonic commit",
    "monotonic applied",
)
"""What a sound trace was found to have."""
DOUBTS_SHOWN_MAX = 10


def check(path: Path, output: Output) -> Finding:
    """Judge a trace, show what was found, and return the exit code."""
    feed, jury = Feed(path), Jury()
    broken = _judge(feed, jury)
    finding = _finding(jury, broken)
    if output == "json":
        _show_json(feed, jury, broken, finding)
    else:
        _show_text(feed, jury, broken, finding)
    return finding


def _judge(feed: Feed, jury: Jury) -> Broken | None:
    hear = jury.hear
    try:
        for record in feed:
            hear(record)
    except Broken as broken:
        return broken
    jury.end()
    return None


def _finding(jury: Jury, broken: Broken | None) -> Finding:
    if broken is not None:
        return Finding.VIOLATED
    return Finding.UNKNOWN if jury.doubts else Finding.SOUND


def _show_text(feed: Feed, jury: Jury, broken: Broken | None, finding: Finding) -> None:
    if broken is not None:
        _show_broken(feed, broken)
        return
    if finding is Finding.UNKNOWN:
        show(f"{feed.name}: unknown: nothing in it is wrong, and it proves nothing, for something is missing")
        for doubt in jury.doubts[:DOUBTS_SHOWN_MAX]:
            show(f"  {doubt}")
        if len(jury.doubts) > DOUBTS_SHOWN_MAX:
            show(f"  and {count(len(jury.doubts) - DOUBTS_SHOWN_MAX, 'more gap')}")
    else:
        show(f"{feed.name}: sound")
    show(f"  {_describe_size(feed, jury)}")
    show(f"  judged: {', '.join(PROPERTIES)}")
    show(
        f"  compared: {count(jury.logs.contents.compared, 'run')} of entries,"
        f" {count(jury.machines.compared, 'state')}"
    )


def _describe_size(feed: Feed, jury: Jury) -> str:
    story = jury.story
    ends = (
        f"; {count(jury.killed, 'run')} without an end: killed, or still going on" if jury.killed else ""
    ) + ("; the last line is torn, and was passed over" if feed.is_torn else "")
    return (
        f"{count(jury.events, 'event')} of {count(jury.runs, 'run')} and {count(len(story.members), 'node')},"
        f" committed up to {story.committed}{ends}"
    )


def _show_broken(feed: Feed, broken: Broken) -> None:
    record = broken.record
    assert record is not None
    show(f"{feed.name}: violated: {broken.name}")
    show(f"  line {feed.line:,}: {broken.words}")
    show(f"  {_describe(record)}")
    if broken.chain:
        show("what led to it:")
    for each in broken.chain:
        show(f"  {_describe(each)}")


def _describe(record: object) -> str:
    assert isinstance(record, Record)
    return f"event {record.seq:>6}  {render_console(record)}"


def _show_json(feed: Feed, jury: Jury, broken: Broken | None, finding: Finding) -> None:
    members: dict[str, object] = {"verdict": finding.name.lower(), "file": feed.name, "events": jury.events}
    if broken is None:
        members |= {"runs": jury.runs, "killed": jury.killed, "is_torn": feed.is_torn, "doubts": jury.doubts}
        members |= {"judged": PROPERTIES, "committed": jury.story.committed.index}
    else:
        members |= {"property": broken.name, "words": broken.words, "line": feed.line}
        members |= {"event": _members([broken.record])[0], "led_to_it": _members(broken.chain)}
    show_json(members)


def _members(records: Sequence[object]) -> list[dict[str, object]]:
    return [record.members() for record in records if isinstance(record, Record)]
