"""Revisions only rise: whoever asks after an answer was given sees nothing older than what was answered.

That is more than "monotonic reads" and "read your writes" of each client (Terry et al., PDIS 1994), costs hardly
anything, and is judged by answers alone, without looking into nodes. A key that is missing has no revision: there the
judges of `check.answers` and `check.linearizability` are on their own.
"""

from collections.abc import Sequence

from trio_kv.check.violation import Violation


class RevisionOrder:
    """Knows the highest revision of each key that anybody was told of."""

    def __init__(self) -> None:
        """Know of nothing told."""
        self._told: dict[str, int] = {}

    def asked(self, keys: Sequence[str]) -> tuple[int, ...]:
        """Return the lowest revisions with which a read of these keys, asked now, may be answered."""
        return tuple(self._told.get(key, 0) for key in keys)

    def told(self, key: str, revision: int, lowest: int = 0) -> None:
        """Note what somebody is told.

        Raises:
            Violation: it is older than what had been told when this was asked.

        """
        if revision < lowest:
            raise Violation(f"a read of {key} gave revision {revision} after {lowest}")
        self._told[key] = max(revision, self._told.get(key, 0))

    def follows(self, key: str, revision: int) -> None:
        """Note what one connection is told, whose requests take effect in their order, stale reads among them.

        Raises:
            Violation: it was told of a later revision before.

        """
        self.told(key, revision, self._told.get(key, 0))
