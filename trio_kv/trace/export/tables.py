"""CSV (RFC 4180): a row an event; what only some events have stands in one column, as JSON."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator

from trio_kv.trace.text import encode_json
from trio_kv.trace.trace import Record
from trio_kv.trace.words import own_members

COLUMNS = ("time", "mono", "seq", "level", "event", "process", "node", "term", "role", "members")


def export_csv(records: Iterable[Record], is_shown: Callable[[Record], bool]) -> Iterator[str]:
    """Yield the lines of a table."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(COLUMNS)
    for record in records:
        if is_shown(record):
            members = record.members()
            own = encode_json(own_members(record.event)).decode()
            writer.writerow([*(members.get(name, "") for name in COLUMNS[:-1]), own])
            yield file.getvalue()
            file.seek(0)
            file.truncate()
    yield file.getvalue()
