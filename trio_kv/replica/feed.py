"""What a node tells of its changes: the latest ones, and who waits for the next.

The stream is drawn by `Pull`s. One that finds nothing new waits here; the pass that applies something answers it. So a
node awaits nobody, and each asker costs it one answer a pass, however many clients watch behind that.

An asker that waited for long hears so, with an empty batch, if a leader is heard here; else it is refused, and goes on
elsewhere: this node may be cut off from what the others write.
"""

from collections.abc import Sequence

from trio_kv.kv.history import History
from trio_kv.kv.machine import Machine
from trio_kv.kv.operations.operation import Change
from trio_kv.raft.node import Raft
from trio_kv.wire.node_port import Answer, Batch, Gone, Pull, Refused, ReplyTo, Unknown

PULLS_MAX = 1024
"""So many wait here at a time; a further one is refused, and goes on elsewhere."""
BATCH_CHANGES_MAX = 4096
"""In one answer, but for a single revision with more of them."""
BATCH_BYTES_MAX = 4 << 20
"""What they weigh in one answer, about: it may go over a link, and others wait behind it."""


class Feed:
    """The changes of one node.

    Args:
        raft: this node's core.
        after: what the state machine has applied already, from a snapshot.

    """

    def __init__(self, raft: Raft, after: int) -> None:
        """Know no change; see the class."""
        self.history = History(after)
        self._raft = raft
        self._wait_s = 2 * raft.config.election_timeout_max_s
        self._waiting: list[tuple[float, Pull]] = []
        """When each has waited for long enough: rising."""
        self._refused: list[Pull] = []

    @property
    def deadline(self) -> float:
        """When to call `timeout`."""
        return self._waiting[0][0] if self._waiting else float("inf")

    @property
    def is_asked(self) -> bool:
        """Whether somebody waits for an answer."""
        return bool(self._waiting or self._refused)

    def pull(self, now: float, pull: Pull) -> None:
        """Take a request. It is answered by the next `answers`, if there is something to tell by then."""
        if len(self._waiting) >= PULLS_MAX:
            self._refused.append(pull)
        else:
            self._waiting.append((now + self._wait_s, pull))

    def applied(self, machine: Machine, entry_count: int, size_bytes: int) -> None:
        """Note what the last call of the machine's `apply` did.

        Args:
            machine: the state machine.
            entry_count: how many entries it was given.
            size_bytes: of these entries.

        """
        changes = [each for each in machine.changes if isinstance(each, Change)]
        if len(changes) > entry_count:
            # Of an expiry the keys stand in no entry.
            size_bytes += sum([len(each.key) for each in changes])
        self.history.note(machine.applied, changes, size_bytes)

    def restart(self, applied: int) -> None:
        """Begin anew: another state machine took the place of the one that was followed."""
        self.history = History(applied)

    def answers(self) -> list[tuple[ReplyTo, Answer]]:
        """Return the answers to those for whom there is something to tell."""
        history, id = self.history, self._raft.id
        first, upto = history.after, history.upto
        answers: list[tuple[ReplyTo, Answer]] = [self._refuse(pull) for pull in self._refused]
        self._refused = []
        still: list[tuple[float, Pull]] = []
        known: dict[int, tuple[int, Sequence[Change]]] = {}
        for waiting in self._waiting:
            _, pull = waiting
            after = pull.after
            if after >= upto:
                still.append(waiting)
            elif after < first:
                answers.append((pull.reply_to, Gone(pull.number, id, first)))
            else:
                if after not in known:
                    known[after] = history.read(after, BATCH_CHANGES_MAX, BATCH_BYTES_MAX)
                answers.append((pull.reply_to, Batch(pull.number, id, after, *known[after])))
        self._waiting = still
        return answers

    def timeout(self, now: float) -> list[tuple[ReplyTo, Answer]]:
        """Return the answers to those who have waited for long enough."""
        answers: list[tuple[ReplyTo, Answer]] = []
        while self._waiting and self._waiting[0][0] <= now:
            _, pull = self._waiting.pop(0)
            if self._raft.leader is None:
                answers.append(self._refuse(pull))
            else:
                batch = Batch(pull.number, self._raft.id, pull.after, pull.after, ())
                answers.append((pull.reply_to, batch))
        return answers

    def stop(self) -> list[tuple[ReplyTo, Answer]]:
        """Return the last answers of a node that dies."""
        pulls = self._refused + [pull for _, pull in self._waiting]
        return [(pull.reply_to, Unknown(pull.number, self._raft.id)) for pull in pulls]

    def _refuse(self, pull: Pull) -> tuple[ReplyTo, Refused]:
        return pull.reply_to, Refused(pull.number, self._raft.id, self._raft.leader)
