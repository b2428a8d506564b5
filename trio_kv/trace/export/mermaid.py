"""Mermaid: a sequence diagram to paste into an issue or a README.

Mermaid takes 50,000 characters, and a reader far less: what comes after `CHARACTERS_MAX` is cut off, and said so.
It ends a text at `#` and `;`, and takes `$$`, `%%{` and `&` for orders of its own, unless they are written as codes.
An arrow ends at who does what its text says, and readers look for that at its beginning: so the text names the node.
"""

from collections.abc import Callable, Iterable, Iterator

from trio_kv.trace.causes import Causes
from trio_kv.trace.trace import Record
from trio_kv.trace.vocabulary import ClusterStarted
from trio_kv.trace.words import describe

CHARACTERS_MAX = 45_000


def export_mermaid(records: Iterable[Record], is_shown: Callable[[Record], bool]) -> Iterator[str]:
    """Yield the lines of a diagram: an arrow for each cause on another node, a note for all else."""
    causes: Causes[int | None] = Causes()
    nodes: list[int] = []
    size, left_out = 0, 0
    yield "sequenceDiagram\n"
    for record in records:
        lines = []
        if isinstance(record.event, ClusterStarted):
            lines += [f"    participant n{node}\n" for node in record.event.nodes if node not in nodes]
            nodes += [node for node in record.event.nodes if node not in nodes]
        is_seen = is_shown(record)
        if is_seen:
            lines += _draw(record, causes.of(record), nodes)
        causes.note(record, record.node if is_seen else None)
        text = "".join(lines)
        if size + len(text) > CHARACTERS_MAX:
            left_out += 1
            continue
        size += len(text)
        if text:
            yield text
    if left_out:
        over = f"n{nodes[0]}" if nodes else "n1"
        yield f"    Note over {over}: {left_out:,} more events are left out here\n"


def _draw(record: Record, senders: list[int | None], nodes: list[int]) -> Iterator[str]:
    words = escape(describe(record))
    known = [node for node in dict.fromkeys(senders) if node is not None and node != record.node]
    if record.node is not None and known:
        words = f"n{record.node} {words}"
        for node in known:
            yield f"    n{node}->>n{record.node}: {words}\n"
            words = "and"
    elif record.node is not None:
        yield f"    Note over n{record.node}: {words}\n"
    elif nodes and not isinstance(record.event, ClusterStarted):
        over = f"n{nodes[0]},n{nodes[-1]}" if len(nodes) > 1 else f"n{nodes[0]}"
        yield f"    Note over {over}: {words}\n"


def escape(text: str) -> str:
    """Return a text as Mermaid takes it: in one line, with codes for what it would read as its own."""
    line = " ".join(text.split())
    return "".join(f"#{ord(char)};" if char in "#;<>$%&" else char for char in line)
