"""The replay of a history by replies alone: what lost writes did is found out from what others were told.

See `check.replay`. It is for live clusters. Whoever was told a version with its revision tells of its author; whoever
was told a sum, or what was removed, tells what the key must have held. What can't be found out makes the verdict
unknown.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from trio_kv.check.exchange import Exchange, Members, read, read_list
from trio_kv.check.lost_writes import Part, UndecidedError, must_be_gone, told_after, told_before
from trio_kv.check.replay import Change, Replay, Replayed
from trio_kv.check.rules import Due, State, Version, carry_out, keys_of


def judge_replies(exchanges: Iterable[Exchange], *, calm_from_s: float = math.inf) -> Replayed:
    """Judge by what clients were told alone; writes have to be asked with `meta`.

    Args:
        exchanges: all that was asked of some keys, which were new then, in any order.
        calm_from_s: from then on the store was whole, so that keys end when their time is over.

    """
    return _RepliesReplay(exchanges, calm_from_s).run()


@attrs.frozen
class _Seen:
    """A version that somebody was told of."""

    value: bytes | None
    """None: nobody was told."""
    observer: Exchange
    """Who was told of it first."""


class _RepliesReplay(Replay):
    """A history that is judged by what clients were told alone."""

    def __init__(self, exchanges: Iterable[Exchange], calm_from_s: float) -> None:
        super().__init__(exchanges, calm_from_s)
        self._seen = _seen_versions(self.exchanges)

    def revisions(self) -> Iterable[int]:
        return self._seen

    def take_effect(self, revision: int) -> None:
        write = self.writes.get(revision)
        if write is not None:
            self.timeline.put(self._judge_write(write, revision).changes)
        elif revision in self._seen:
            self.timeline.put(self._find_author(revision, self._seen[revision]))

    def _judge_write(self, write: Exchange, revision: int) -> Due:
        """Return what a write did."""
        due = carry_out(write, self.timeline.state, revision)
        difference = due.find_difference(write)
        if difference is not None:
            found = self._explain(write, told_before(write), revision, write.return_s)
            succeeded = read(write.told, "succeeded") if self._may_be_open(write) else None
            state = found.applied_to(self.timeline.state)
            explained = carry_out(write, state, revision, succeeded=succeeded)
            if explained.find_difference(write) is None:
                self._believe(found)
                return explained
            if not found.is_undecided:
                self.accuse(
                    write, f"was told {difference}, by all that was written before revision {revision}"
                )
        return due

    def _may_be_open(self, write: Exchange) -> bool:
        """Tell whether a lost write, or time, may have decided the conditions of a transaction."""
        before_s, state = write.return_s or math.inf, self.timeline.state
        return any(
            self.lost.may_touch(key, before_s) or (key in state and state[key].due_s <= before_s)
            for key in (read(condition, "key") for condition in read_list(write.asked, "if"))
        )

    def _find_author(self, revision: int, seen: Mapping[str, _Seen]) -> Mapping[str, Version]:
        """Return what a write did of which others were told, but not who asked for it."""
        observer = min((each.observer for each in seen.values()), key=lambda each: each.return_s or math.inf)
        is_known = all(each.value is not None for each in seen.values())
        is_undecided = False
        candidates: dict[tuple[Exchange, frozenset[tuple[str, bytes | None]]], _Candidate] = {}
        for candidate in self._candidates(revision, seen, observer):
            is_undecided |= candidate.found.is_undecided
            if candidate.changes is not None:
                left = frozenset((key, version.value) for key, version in candidate.changes.items())
                candidates.setdefault((candidate.author, left), candidate)
                if is_known:
                    break
        if len(candidates) == 1:
            (candidate,) = candidates.values()
            self._believe(candidate.found)
            self.lost.use(candidate.author, revision)
            return candidate.changes or {}
        if candidates:
            # Nobody was told enough to say which of them it was: whatever follows from any of them may follow.
            return _any_of([each.changes or {} for each in candidates.values()], seen)
        if not is_undecided:
            versions = ", ".join(
                f"{key} = {(each.value or b'something').decode()}" for key, each in seen.items()
            )
            self.accuse(observer, f"tells of {versions} at revision {revision}, which nobody wrote there")
        return {key: Version(revision, each.value or b"null") for key, each in seen.items()}

    def _candidates(
        self, revision: int, seen: Mapping[str, _Seen], observer: Exchange
    ) -> Iterator["_Candidate"]:
        """Yield lost writes that may have done of what others were told, and what they did if they have."""
        before_s = observer.return_s or math.inf
        told = {key: each.value for key, each in seen.items() if each.value is not None}
        for author, succeeded in _with_branches(self.lost.authors(seen, before_s)):
            needed = told_after(author, told, succeeded)
            gone = must_be_gone(author, self.timeline.state, succeeded)
            for before in ({}, needed, {**gone, **needed}):
                found = self._explain(author, before, revision, observer.return_s)
                state = found.applied_to(self.timeline.state)
                due = carry_out(author, state, revision, succeeded=succeeded)
                changes = {
                    key: version
                    if key in told
                    else self.lost.sums(key, state.get(key), version, before_s, but=author)
                    for key, version in due.changes.items()
                }
                yield _Candidate(author, found, changes if _is_seen(due, seen) else None)

    def judge_scan(self, scan: Exchange, revision: int) -> None:
        due = carry_out(scan, self.timeline.state, revision)
        difference = due.find_difference(scan)
        if difference is None or ("count" in due.told and self._may_differ(scan)):
            return
        found = self._explain(scan, _told_missing(scan, self.timeline.state), revision + 1, scan.return_s)
        explained = carry_out(scan, found.applied_to(self.timeline.state), revision)
        if explained.find_difference(scan) is None:
            self._believe(found)
        elif not found.is_undecided:
            self.accuse(scan, f"was told {difference}, which was the state at revision {revision}")

    def _may_differ(self, scan: Exchange) -> bool:
        """Tell whether a lost write, or time, may have changed how many keys there are."""
        prefix, before_s = read(scan.asked, "prefix", ""), scan.return_s or math.inf
        state = self.timeline.state
        return any(
            self.lost.may_touch(key, before_s) or (key in state and state[key].due_s <= before_s)
            for key in {*self.lost.keys, *state}
            if key.startswith(prefix)
        )

    def may_be_lost(self, exchange: Exchange) -> bool:
        if exchange.revision and exchange.op != "txn":
            return False  # It tells a version. A transaction that could not be tells that of one key alone.
        before_s = exchange.return_s or math.inf
        return any(
            self.lost.may_touch(key, before_s) or self.timeline.first_due_s(key) <= before_s
            for key in exchange.keys
        )

    # Lost writes

    def _explain(
        self, exchange: Exchange, targets: Change, revision: int, before_s: float | None
    ) -> "_Explanation":
        """Return which lost writes make keys hold what they must have held just before a revision."""
        found = _Explanation()
        for key, target in targets.items():
            held = self.timeline.state.get(key)
            if target == (None if held is None else held.value) or not self._has_room(key, revision):
                continue
            limit_s = math.inf if before_s is None else before_s
            try:
                parts = self.lost.lead_to(key, held, target, limit_s, but=exchange)
            except UndecidedError as error:
                self.doubts.append(f"{exchange}: {error}")
                found.is_undecided = True
                continue
            if parts is not None:
                found.parts += parts
                if held is not None and target in held.others and all(part.op != "incr" for part in parts):
                    # Nothing came in between: it is now known which of them it was.
                    found.changes[key] = attrs.evolve(held, value=target, others=frozenset())
                    continue
                # Its own revision is not known, only that it stands before this one; nor when it ends, only when it
                # may do so at the earliest.
                dues = [part.due_s for part in parts]
                if held is not None and not any(part.op in ("set", "cas") for part in parts):
                    dues.append(held.due_s)
                found.changes[key] = Version(revision - 1, target, min(dues, default=math.inf), is_guess=True)
        return found

    def _has_room(self, key: str, revision: int) -> bool:
        """Tell whether a lost write may have changed a key between its last version and a revision.

        A version whose value nobody was told is made up of all that was known before, and may be another one.
        """
        last = self.timeline.last_change(key)
        seen = self._seen.get(last, {}).get(key)
        is_told = last in self.writes or (seen is not None and seen.value is not None)
        return last < (revision - 1 if is_told else revision)

    def _believe(self, found: "_Explanation") -> None:
        self.lost.note(found.parts)
        self.timeline.put(found.changes)


@attrs.define
class _Explanation:
    """Lost writes that must have taken effect."""

    parts: list[Part] = attrs.field(factory=list)
    changes: dict[str, Version] = attrs.field(factory=dict)
    is_undecided: bool = False

    def applied_to(self, state: State) -> State:
        """Return a state after them."""
        both = {**state, **self.changes}
        return {key: version for key, version in both.items() if version.value is not None}


@attrs.frozen
class _Candidate:
    """A lost write that may have done what others were told of."""

    author: Exchange
    found: _Explanation
    """What must have taken effect before."""
    changes: Mapping[str, Version] | None
    """What it did; None: something else than they were told."""


def _any_of(changes: Sequence[Mapping[str, Version]], seen: Mapping[str, _Seen]) -> Mapping[str, Version]:
    """Return versions of keys that may hold what any of these say."""
    found = {}
    for key in seen:
        first, *others = [each[key] for each in changes]
        values = {version.value for version in others if version.value is not None} - {first.value}
        found[key] = attrs.evolve(
            first,
            due_s=min(version.due_s for version in (first, *others)),
            ttl_s=math.inf,
            others=frozenset(values).union(*[version.others for version in (first, *others)]),
        )
    return found


def _with_branches(authors: Sequence[Exchange]) -> Iterator[tuple[Exchange, bool | None]]:
    """Yield authors, and whether their conditions held: as the state says, and then as lost writes may have decided."""
    yield from ((author, None) for author in authors)
    for succeeded in (True, False):
        yield from ((author, succeeded) for author in authors if author.op == "txn")


def _is_seen(due: Due, seen: Mapping[str, _Seen]) -> bool:
    """Tell whether a write does what others were told of."""
    left = {key: version.value for key, version in due.changes.items() if version.value is not None}
    return due.told["code"] == "ok" and all(
        key in left and each.value in (None, left[key]) for key, each in seen.items()
    )


def _seen_versions(exchanges: Iterable[Exchange]) -> Mapping[int, dict[str, _Seen]]:
    """Return the versions that answers told of, by revision."""
    found: dict[int, dict[str, _Seen]] = defaultdict(dict)

    def note(told: Members, exchange: Exchange) -> None:
        revision, key = read(told, "revision"), read(told, "key")
        if revision:
            value = bytes(told["value"]) if "value" in told else None
            known = found[revision].get(key)
            if known is None or (known.value is None and value is not None):
                found[revision][key] = _Seen(value, exchange)

    for each in exchanges:
        if each.op == "scan" and each.outcome == "ok":
            for item in read_list(each.told, "items"):
                note(item, each)
        elif each.op == "txn" and each.outcome == "ok" and read(each.told, "succeeded"):
            for condition in read_list(each.asked, "if"):
                note(condition, each)
        elif (each.op == "get" and each.outcome == "ok") or (each.outcome == "conflict" and each.op != "txn"):
            note(each.told, each)
        elif each.outcome == "ok" and "if_revision" in each.asked:
            note({"key": each.asked["key"], "revision": each.asked["if_revision"]}, each)
    return found


def _told_missing(scan: Exchange, state: State) -> Mapping[str, None]:
    """Return the keys that should stand in a page before its last one, and do not."""
    told = [read(item, "key") for item in read_list(scan.told, "items")]
    is_last = not read(scan.told, "more", False)
    is_reverse = read(scan.asked, "reverse", False)

    def is_within(key: str) -> bool:
        return is_last or (bool(told) and (key > told[-1] if is_reverse else key < told[-1]))

    return dict.fromkeys(key for key in keys_of(scan, state) if key not in told and is_within(key))
