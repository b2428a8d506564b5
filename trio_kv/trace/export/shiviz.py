r"""ShiViz: who could have known what, by vector clocks.

Two lines an event, host and clock, then words; the first line of the file is the expression by which they are read.
A host's clock is 1 at its first event and goes up by 1 with each: a gap is refused there. So clocks count only what is
shown, also in a window of a trace.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from trio_kv.trace.causes import Causes
from trio_kv.trace.text import encode_json
from trio_kv.trace.trace import Record
from trio_kv.trace.words import describe

EXPRESSION = r"(?<host>\S*) (?<clock>{.*})\n(?<event>.*)"
OUTSIDE = "cluster"
"""The host of what belongs to no node."""


def export_shiviz(records: Iterable[Record], is_shown: Callable[[Record], bool]) -> Iterator[str]:
    """Yield the lines of a log."""
    causes: Causes[dict[str, int]] = Causes()
    clocks: defaultdict[str, dict[str, int]] = defaultdict(dict)
    yield f"{EXPRESSION}\n\n"
    for record in records:
        host = OUTSIDE if record.node is None else f"n{record.node}"
        clock = dict(clocks[host])
        for earlier in causes.of(record):
            for other, count in earlier.items():
                clock[other] = max(count, clock.get(other, 0))
        is_seen = is_shown(record)
        if is_seen:
            clock[host] = clock.get(host, 0) + 1
        clocks[host] = clock
        causes.note(record, clock)
        if is_seen:
            yield f"{host} {encode_json(clock).decode()}\n{describe(record).splitlines()[0]}\n"
