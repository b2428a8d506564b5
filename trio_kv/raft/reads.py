"""Linearizable reads without log entries: ReadIndex (thesis §6.4), from both ends.

A node that has reads to answer puts one question to its leader for all of them. The leader notes its
commit index, begins a heartbeat round *after* the question came, and answers once a majority has replied
to that round in this term: then nobody else can have committed anything before the question that this
index does not cover. Where leader and asker are a majority by themselves, the question is such a reply.

Rules, each the escape from a bug that others had:

- a question has a number that is never used again, retries and restarts included, so that an old answer can't
  satisfy a newer read (scenario R3);
- a leader answers only once an entry of its own term is committed: before that its commit index may lag
  behind what an earlier leader acknowledged (scenario R1);
- a question that finds no leader waits for one, and is not dropped (scenario R2).
"""

import copy
from typing import Any

import attrs


@attrs.frozen
class Question:
    """A question on its way to being answered, as the leader sees it."""

    source: int | None
    """The node that asked; None for the leader's own reads."""
    nonce: int
    counter: int
    context: Any = None
    """With the leader's own reads: what to hand back."""


class PendingReads:
    """The reading end: reads that wait for a question, and the one question that is under way."""

    __slots__ = ("asked", "asked_at", "counter", "is_overdue", "nonce", "waiting")

    def __init__(self, nonce: int) -> None:
        """Ask under numbers (nonce, counter); nonce is new at every start of a node."""
        self.nonce = nonce
        self.counter = 0
        self.waiting: list[Any] = []
        self.asked: list[tuple[int, Any]] = []
        """(counter of the first question that stood for it, context), counters rising."""
        self.asked_at = 0.0
        self.is_overdue = False
        """Whether the question under way got no answer in time, and is to be asked again."""

    @property
    def is_due(self) -> bool:
        """Whether there is a question to put to the leader now."""
        return self.is_overdue if self.asked else bool(self.waiting)

    def take(self) -> list[Any]:
        """Return all reads that wait for a question, which somebody else asks."""
        waiting, self.waiting = self.waiting, []
        return waiting

    def put_back(self, contexts: list[Any]) -> None:
        """Let reads wait that came before those that wait now."""
        self.waiting = contexts + self.waiting

    def ask(self, now: float) -> int:
        """Ask one question for all reads that wait, and for those of an unanswered one; return its counter."""
        self.counter += 1
        self.asked = self.asked + [(self.counter, context) for context in self.waiting]
        self.waiting = []
        self.asked_at = now
        self.is_overdue = False
        return self.counter

    def give_up(self) -> None:
        """Void the question under way: what it stood for waits again."""
        if self.asked:
            self.waiting = self.contexts() + self.waiting
            self.asked = []
            self.counter += 1
            self.is_overdue = False

    def answered(self, nonce: int, counter: int) -> list[Any]:
        """Return the reads that this answer is good for: those that waited when its question was asked.

        The question may have been asked again since. The answer to the earlier one is still good for the reads of that
        time, and for no newer one (scenario R3). If it were void, no read would end where answers take longer than the
        retry.
        """
        if nonce != self.nonce:
            return []
        contexts = [context for asked, context in self.asked if asked <= counter]
        self.asked = [(asked, context) for asked, context in self.asked if asked > counter]
        if not self.asked:
            self.is_overdue = False
        return contexts

    def contexts(self) -> list[Any]:
        """Return the reads of the question under way."""
        return [context for _, context in self.asked]

    def copy(self) -> "PendingReads":
        """Return equal reads of their own."""
        twin = copy.copy(self)
        twin.waiting, twin.asked = self.waiting.copy(), self.asked.copy()
        return twin


class HeartbeatRounds:
    """The leader's end: heartbeat rounds, and the questions that wait for one of them."""

    __slots__ = ("last", "new", "pending")

    def __init__(self) -> None:
        """Begin a term: no round yet."""
        self.last = 0
        """Number of the last round that was begun."""
        self.new: dict[int | None, list[Question]] = {}
        """Questions that came after the last round began, the newest of each node; a leader's own add up."""
        self.pending: list[tuple[int, int, list[Question]]] = []
        """(round to be confirmed, index noted, questions), rounds rising."""

    def add(self, question: Question) -> None:
        """Take a question. A newer one from the same node replaces an older: it stands for the same reads."""
        if question.source is None:
            self.new.setdefault(None, []).append(question)
        else:
            known = self.new.get(question.source)
            if known and known[0].nonce == question.nonce and known[0].counter > question.counter:
                return  # It comes late, and the newer question stands for its reads too.
            self.new[question.source] = [question]

    @property
    def is_due(self) -> bool:
        """Whether a round should begin for the sake of questions.

        While others wait for a round it is not: the next one serves all that have come by then.
        """
        return bool(self.new) and not self.pending

    def begin(self, commit: int | None) -> int:
        """Begin a heartbeat round that serves all new questions, at this commit index; return its number.

        Without a commit index it serves none of them: they wait for a later round.
        """
        self.last += 1
        if self.new and commit is not None:
            questions = [question for source in self.new for question in self.new[source]]
            self.pending.append((self.last, commit, questions))
            self.new = {}
        return self.last

    def confirmed(self, round_number: int) -> list[tuple[int, list[Question]]]:
        """Return (index, questions) of all rounds up to this one: a majority has replied to it."""
        count = 0
        while count < len(self.pending) and self.pending[count][0] <= round_number:
            count += 1
        done, self.pending = self.pending[:count], self.pending[count:]
        return [(index, questions) for _, index, questions in done]

    def own_contexts(self) -> list[Any]:
        """Return the contexts of the leader's own reads, to be asked of the next leader."""
        questions = [question for _, _, group in self.pending for question in group]
        questions += self.new.get(None, [])
        return [question.context for question in questions if question.source is None]

    def copy(self) -> "HeartbeatRounds":
        """Return equal rounds of their own."""
        twin = copy.copy(self)
        twin.new = {source: questions.copy() for source, questions in self.new.items()}
        twin.pending = self.pending.copy()
        return twin
