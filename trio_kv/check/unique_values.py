"""One write, one effect: where each value is written once, no value takes effect twice (thesis §6.3).

The (session, seq) of a command tells whether an entry is a repetition; that a request of a client is repeated under
its own (session, seq), and no other, only shows in what it writes. For workloads without equal values.
"""

from trio_kv.check.state_machine_safety import SessionSeq, StateMachineSafety, name_of
from trio_kv.check.violation import Violation
from trio_kv.check.watch import Judge, View
from trio_kv.kv.commands import Write
from trio_kv.kv.operations import Cas, Set


class UniqueValues(Judge):
    """Knows under which (session, seq) each value took effect. Stands behind the chronicle among the judges."""

    def __init__(self, chronicle: StateMachineSafety) -> None:
        """Go by what the chronicle knows of each entry's outcome."""
        self._chronicle = chronicle
        self._written: dict[tuple[str, bytes], SessionSeq] = {}
        self._seen = 0

    def committed(self, view: View, first: int, last: int) -> None:
        """Look at what is new."""
        for entry in view.entries[max(first - 1, self._seen) : last]:
            self._seen = entry.index
            command = entry.command
            if not isinstance(command, Write) or not isinstance(command.operation, Set | Cas):
                continue
            name = name_of(command)
            if self._chronicle.outcomes[name][-1].code != "ok":
                continue
            written = command.operation.key, bytes(command.operation.value)
            known = self._written.setdefault(written, name)
            if known != name:
                raise Violation(f"entry {entry}: {command} is done as {name}, and was before as {known}")
