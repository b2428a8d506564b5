"""What each key held after each revision."""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping

from trio_kv.check.rules import State, Version


class Timeline:
    """The versions of keys, in the order of their revisions, which only rise."""

    def __init__(self) -> None:
        """Let there be no key."""
        self._versions: dict[str, list[Version]] = defaultdict(list)
        self._revisions: dict[str, list[int]] = defaultdict(list)
        self._first_due_s: dict[str, float] = {}
        self.state: dict[str, Version] = {}
        """All keys that exist now."""

    def put(self, changes: Mapping[str, Version]) -> None:
        """Add what one revision changed."""
        for key, version in changes.items():
            self._first_due_s[key] = min(version.due_s, self.first_due_s(key))
            revisions = self._revisions[key]
            if revisions and revisions[-1] == version.revision:
                self._versions[key][-1] = version
            else:
                assert not revisions or revisions[-1] < version.revision, (key, version)
                revisions.append(version.revision)
                self._versions[key].append(version)
            if version.value is None:
                self.state.pop(key, None)
            else:
                self.state[key] = version

    def last_change(self, key: str) -> int:
        """Return the last revision that changed a key; 0 if there is none."""
        revisions = self._revisions.get(key)
        return revisions[-1] if revisions else 0

    def first_due_s(self, key: str) -> float:
        """Return the first moment at which any version of a key may have vanished by itself."""
        return self._first_due_s.get(key, math.inf)

    def state_at(self, keys: Iterable[str], revision: int) -> State:
        """Return what these keys held after a revision, those that existed."""
        found = {}
        for key in keys:
            place = bisect_right(self._revisions.get(key, ()), revision)
            if place and (version := self._versions[key][place - 1]).value is not None:
                found[key] = version
        return found

    def is_guess(self, keys: Iterable[str], revision: int) -> bool:
        """Tell whether what any of these keys held after a revision may have been so before."""
        places = [(key, bisect_right(self._revisions.get(key, ()), revision)) for key in keys]
        return any(place and self._versions[key][place - 1].is_guess for key, place in places)

    def next_change(self, keys: Iterable[str], revision: int) -> int | None:
        """Return the first revision behind one that changed any of these keys; None if there is none."""
        found = []
        for key in keys:
            revisions = self._revisions.get(key, [])
            place = bisect_right(revisions, revision)
            found += revisions[place : place + 1]
        return min(found, default=None)
