"""State Machine Safety: no two nodes ever apply different entries at one index (paper figure 3, §5.4.3).

Neither does one node before and after a restart; and nodes that applied the same entries hold the same state, which
their digests tell. The digests to be met are those of one more state machine, which gets each committed entry once and
alone, so nodes are compared at every index and not only where two of them happen to stop.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence

from msgspec import UNSET

from trio_kv.check.reference import Outcome, Reference
from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.kv.commands import ClientWrite, Command, Expire, Write
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations import AnyOperation, Scan
from trio_kv.kv.reply import Reply
from trio_kv.raft.entry import Entry

SessionSeq = tuple[int | str, ...]
"""What takes effect once: see `name_of`."""

_NO_ROOM = Outcome("overloaded")


def outcome_of(reply: Reply) -> Outcome:
    """Return a reply without its words for people."""
    return Outcome(reply.code, None if reply.value is None else bytes(reply.value), reply.revision)


def kind_of(operation: AnyOperation) -> str:
    """Return what is asked, as it is counted: what counts keys, or has a condition, apart from what does not."""
    if isinstance(operation, Scan):
        return "count" if operation.count else "scan"
    return "if_revision" if getattr(operation, "if_revision", UNSET) is not UNSET else operation.name


def name_of(command: Write) -> SessionSeq:
    """Return (session, seq); of a client's write what makes it the same request besides, as others are refused."""
    name = command.session, command.seq
    return (*name, command.secret, command.digest) if isinstance(command, ClientWrite) else name


class StateMachineSafety(Judge):
    """The chronicle of what was committed, in order, with what each entry is to be answered.

    It also judges exactly-once (thesis §6.3): a (session, seq) takes effect once, and whenever it is repeated it
    gets its first answer, or none any more.
    """

    def __init__(self) -> None:
        """Know nothing committed."""
        self.entries: list[Entry] = []
        self.reference = Reference()
        self.outcomes: dict[SessionSeq, list[Outcome]] = {}
        """What each (session, seq) was answered, one for each time it was committed."""
        self.places: dict[SessionSeq, list[int]] = {}
        """The indexes at which each was committed."""
        self.retries_answered = 0
        self.told: Counter[tuple[str, str]] = Counter()
        """How often what was asked was answered with which code; queries count when they are answered."""
        self._refused: dict[int, Command] = {}
        """Commands that must not be committed, by identity: a later attempt is another object."""
        self._came: set[int] = set()
        self._machine = Machine()
        self._digests: list[tuple[int, int]] = [(0, 0)]

    @property
    def commit(self) -> int:
        """The highest index that any node ever knew to be committed."""
        return len(self.entries)

    def changes_of(self, prefix: str) -> Mapping[int, Mapping[str, bytes | None]]:
        """Return what entries left of the keys with a prefix, by index; None: they removed the key."""
        changes: dict[int, dict[str, bytes | None]] = defaultdict(dict)
        for key, versions in self.reference.history.items():
            if key.startswith(prefix):
                for index, item in versions:
                    changes[index][key] = None if item is None else item[0]
        return changes

    def expiries(self) -> Collection[int]:
        """Return the indexes at which keys ended because their time was over."""
        return {entry.index for entry in self.entries if isinstance(entry.command, Expire)}

    def committed(self, view: View, first: int, last: int) -> None:
        """Compare with what was committed there before; go on with what is new."""
        entries = self.entries
        for entry in view.entries[first - 1 : last]:
            if entry.index > len(entries):
                self._go_on(entry)
            elif entry is not entries[entry.index - 1] and entry.encoded != entries[entry.index - 1].encoded:
                raise Violation(
                    f"{view} committed {entry}, where {entries[entry.index - 1]} was committed before"
                )

    def applied(self, view: View, last: int) -> None:
        """Compare the digests."""
        machine = view.machine
        digests = machine.entries_digest, machine.state_digest
        if digests != self._digests[last]:
            raise Violation(
                f"{view} holds another state than others at index {last}: {digests}, {self._digests[last]}"
            )

    def restored(self, view: View) -> None:
        """Compare a machine that was made of a snapshot with one that applied all entries, record by record."""
        machine = view.machine
        due = Machine()
        due.apply(self.entries[: machine.applied])
        if list(machine.copy().freeze().chunks()) != list(due.copy().freeze().chunks()):
            raise Violation(f"{view} restored another state than others have at index {machine.applied}")

    def refused(self, commands: Sequence[Command]) -> None:
        """Note commands of which a node said that they have no effect.

        Raises:
            Violation: they had.

        """
        for command in commands:
            if id(command) in self._came:
                raise Violation(f"{command} was committed, though it was refused")
            self._refused[id(command)] = command

    def _go_on(self, entry: Entry) -> None:
        if id(entry.command) in self._refused:
            raise Violation(f"entry {entry} {entry.command} was committed, though it was refused")
        self._came.add(id(entry.command))
        self.entries.append(entry)
        given = outcome_of(self._machine.apply([entry])[0])
        self._digests.append((self._machine.entries_digest, self._machine.state_digest))
        due = self.reference.apply(entry)
        command = entry.command
        if isinstance(command, Write):
            self._judge_once(entry, command, given)
            self.told[kind_of(command.operation), given.code] += 1
        if given != due:
            raise Violation(f"entry {entry} {command} was answered {given} instead of {due}")

    def _judge_once(self, entry: Entry, command: Write, given: Outcome) -> None:
        name = name_of(command)
        before = self.outcomes.setdefault(name, [])
        for outcome in before:
            if outcome == _NO_ROOM and isinstance(command, ClientWrite):
                # It is not kept: a client may ask again.
                continue
            if outcome.code == "session_expired" and given.code != "session_expired":
                raise Violation(f"entry {entry}: (session, seq) {name} took effect after it was refused")
            if given not in (outcome, Outcome("session_expired")):
                raise Violation(
                    f"entry {entry}: (session, seq) {name} was answered {given}, and before {outcome}"
                )
        if before and given.code != "session_expired":
            self.retries_answered += 1
        before.append(given)
        self.places.setdefault(name, []).append(entry.index)
