"""What a client door has done: its requests by operation, how long they took, and what went wrong."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from trio_kv.kv.reply import Reply
from trio_kv.meter.histogram import Histogram
from trio_kv.wire.client_sessions import Numbered


class RequestMeter:
    """Counts the requests of a door that its store has answered, a run at a time."""

    def __init__(self) -> None:
        """Have seen nothing yet."""
        self.durations: dict[str, Histogram] = {}
        """From when a run was given to the store until its answer came, by what stands in `op`."""
        # A Counter, which deletes in a way of its own, is assigned to by way of Python: three times as slowly.
        self.errors: defaultdict[str, int] = defaultdict(int)
        """Answers other than `ok`, by their code; `missing` for a key that does not exist."""
        self._by_kind: dict[type, Histogram] = {}

    def note_run(self, operations: Sequence[Any], replies: Sequence[Reply], duration_s: float) -> None:
        """Note a run that was answered.

        Args:
            operations: what was asked.
            replies: what came of it.
            duration_s: how long that took.

        """
        if len(operations) == 1:
            # As short as can be: most clients wait for each answer.
            histogram = self._by_kind.get(type(operations[0])) or self._of(operations[0])
            histogram.note(duration_s)
            if replies[0].code != "ok":
                self.errors[replies[0].code] += 1
            return
        kinds = set(map(type, operations))
        if len(kinds) == 1 and Numbered not in kinds:
            self._of(operations[0]).note(duration_s, len(operations))
        else:
            self._note_mixed(operations, duration_s)
        for reply in replies:
            if reply.code != "ok":
                self.errors[reply.code] += 1

    def _note_mixed(self, operations: Sequence[Any], duration_s: float) -> None:
        kinds, known = Counter(map(type, operations)), self._by_kind
        if kinds.keys() <= known.keys():
            for kind, count in kinds.items():
                known[kind].note(duration_s, count)
        else:
            for operation in operations:
                self._of(operation).note(duration_s)

    def _of(self, operation: Any) -> Histogram:
        kind = type(operation)
        known = self._by_kind.get(kind)
        if known is None:
            known = self.durations.setdefault(operation.name, Histogram())
            # What a client numbers itself has the name of what is in it.
            if kind is not Numbered:
                self._by_kind[kind] = known
        return known
