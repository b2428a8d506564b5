"""A key that one connection alone uses: its requests take effect in their order, so each answer is known beforehand.

That is more than the history can tell: there, requests that are under way at the same time have no order, and a read
that overtakes the write before it in a pipeline is linearizable. It also goes for stale reads, which are never older
than what their connection wrote.
"""

from trio_kv.check.effects import MISSING, NONE, effect_of
from trio_kv.check.history import Operation
from trio_kv.check.violation import Violation


class OwnKey:
    """Judges the answers to the requests for such a key, in their order."""

    def __init__(self, key: str) -> None:
        """Begin with a key that is missing."""
        self.key = key
        self.is_known = True
        """Whether it is known what the key holds: not behind a write of unknown outcome. Then nothing is judged."""
        self.judged = 0
        """Answers that were judged."""
        self._held: bytes | None = None

    def told(self, operation: Operation) -> None:
        """Judge the next answer.

        Raises:
            Violation: it can't be true after all that came before.

        """
        assert operation.key == self.key
        if operation.outcome == "unknown" and operation.op != "get":
            self.is_known = False
        effect = effect_of(operation)
        if effect is None or not self.is_known:
            return
        needs, leaves = effect
        if needs not in (NONE, self._held):
            held = "no value" if self._held is None else self._held.decode()
            raise Violation(f"{self.key}, which one connection alone uses, held {held} before {operation}")
        if isinstance(leaves, bytes):
            self._held = leaves
        elif leaves == MISSING:
            self._held = None
        self.judged += 1
