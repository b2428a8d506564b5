"""The versions of a key: a value that is read was asked to be written, and has the same revision for everybody.

For workloads that write each value once. It goes for reads of any kind, also for stale ones, of which the history
knows nothing; it says nothing of their order.
"""

from trio_kv.check.effects import NONE, effect_of
from trio_kv.check.history import Operation
from trio_kv.check.violation import Violation


class Versions:
    """What is known of the versions of one key."""

    def __init__(self) -> None:
        """Know of no value."""
        self._asked: set[bytes] = set()
        """Values that may be there, now or later."""
        self._revisions: dict[bytes, int | None] = {}
        """Of the values that somebody was told of; None as long as nobody said which."""
        self._values: dict[int, bytes] = {}

    def asked(self, value: bytes) -> None:
        """Note a value that somebody asks to write."""
        self._asked.add(value)

    def told(self, operation: Operation, revision: int | None) -> None:
        """Judge an answer.

        Args:
            operation: what was asked, and what came of it.
            revision: that of the key, if the answer tells.

        Raises:
            Violation: it contradicts what somebody else asked or was told.

        """
        if operation.outcome == "unknown":
            return
        if operation.outcome == "failed":
            self._withdraw(operation)
            return
        effect = effect_of(operation)
        assert effect is not None
        needs, leaves = effect
        value = needs if leaves == NONE else leaves
        if isinstance(value, bytes):
            self._see(operation, value, revision)

    def _see(self, operation: Operation, value: bytes, revision: int | None) -> None:
        if value not in self._asked:
            raise Violation(f"{operation} tells of a value that nobody wrote")
        known = self._revisions.get(value)
        if revision is None:
            self._revisions.setdefault(value, None)
            return
        if known not in (None, revision):
            raise Violation(f"{operation} tells of revision {revision}, where another answer told of {known}")
        other = self._values.setdefault(revision, value)
        if other != value:
            raise Violation(f"{operation} tells of revision {revision}, which is that of {other.decode()}")
        self._revisions[value] = revision

    def _withdraw(self, operation: Operation) -> None:
        value = operation.value
        if value is None:
            return
        if value in self._revisions:
            raise Violation(f"somebody was told of {value.decode()}, and yet {operation}")
        self._asked.discard(value)
