"""The two ends of ReadIndex: which answer is good for which read, and which round for which question."""

from trio_kv.raft.reads import HeartbeatRounds, PendingReads, Question


def test_one_question_stands_for_all_that_waited() -> None:
    """Reads that wait are asked together, and answered together."""
    reads = PendingReads(7)
    reads.waiting = ["a", "b"]
    assert reads.ask(0.0) == 1
    assert reads.waiting == []
    assert reads.answered(7, 1) == ["a", "b"]
    assert reads.answered(7, 1) == []


def test_a_newer_read_is_not_answered_by_an_older_question() -> None:
    """A read that came after a question left waits for the next one, though the first is answered late (R3)."""
    reads = PendingReads(7)
    reads.waiting = ["old"]
    first = reads.ask(0.0)
    reads.waiting = ["new"]
    second = reads.ask(1.0)
    assert reads.answered(7, first) == ["old"]
    assert reads.contexts() == ["new"]
    assert reads.answered(7, second) == ["new"]


def test_a_newer_answer_serves_older_reads_too() -> None:
    """The question asked again stands for all: the old reads don't need the old answer."""
    reads = PendingReads(7)
    reads.waiting = ["old"]
    first = reads.ask(0.0)
    reads.waiting = ["new"]
    second = reads.ask(1.0)
    assert reads.answered(7, second) == ["old", "new"]
    assert reads.answered(7, first) == []


def test_no_number_is_used_twice() -> None:
    """Neither asking again nor giving up brings a number back."""
    reads = PendingReads(7)
    seen = []
    for step in range(10):
        reads.waiting = reads.waiting or ["a"]
        seen.append(reads.ask(0.0))
        if step % 2:
            reads.give_up()
    assert len(set(seen)) == len(seen)
    assert seen == sorted(seen)


def test_after_giving_up_no_older_answer_counts() -> None:
    """What was asked of a leader that is gone is asked anew; its answer, coming late, is good for nothing."""
    reads = PendingReads(7)
    reads.waiting = ["a"]
    first = reads.ask(0.0)
    reads.give_up()
    assert reads.waiting == ["a"]
    assert reads.answered(7, first) == []
    again = reads.ask(1.0)
    assert reads.answered(7, first) == []
    assert reads.answered(7, again) == ["a"]


def test_an_answer_to_a_former_self_is_void() -> None:
    """A node that restarted has another nonce, and takes no answer to what it asked before."""
    reads = PendingReads(8)
    reads.waiting = ["a"]
    counter = reads.ask(0.0)
    assert reads.answered(7, counter) == []


def test_an_readss_copy_is_its_own() -> None:
    """Answering a copy leaves the original waiting."""
    reads = PendingReads(7)
    reads.waiting = ["a"]
    counter = reads.ask(0.0)
    assert reads.copy().answered(7, counter) == ["a"]
    assert reads.answered(7, counter) == ["a"]


def test_a_round_serves_the_questions_that_came_before_it_and_no_later_one() -> None:
    """A question waits for a round that began after it came (thesis §6.4)."""
    rounds = HeartbeatRounds()
    early, late = Question(2, 1, 1), Question(3, 1, 1)
    rounds.add(early)
    first = rounds.begin(10)
    rounds.add(late)
    assert rounds.confirmed(first) == [(10, [early])]
    second = rounds.begin(11)
    assert rounds.confirmed(second) == [(11, [late])]


def test_a_later_round_confirms_earlier_ones_at_their_own_index() -> None:
    """Replies of an earlier round may be lost; what it stood for keeps the index that was noted then."""
    rounds = HeartbeatRounds()
    rounds.add(Question(2, 1, 1))
    rounds.begin(10)
    rounds.add(Question(3, 1, 1))
    rounds.begin(12)
    last = rounds.begin(15)
    assert [index for index, _ in rounds.confirmed(last)] == [10, 12]
    assert rounds.confirmed(last) == []


def test_a_question_that_comes_late_does_not_replace_a_newer_one() -> None:
    """Of one node's questions the newest counts, in whatever order they come; a new start counts as newer."""
    rounds = HeartbeatRounds()
    newer = Question(2, 1, 5)
    rounds.add(newer)
    rounds.add(Question(2, 1, 4))
    assert rounds.new[2] == [newer]
    restarted = Question(2, 9, 1)
    rounds.add(restarted)
    assert rounds.new[2] == [restarted]


def test_a_leaders_own_reads_add_up_and_are_handed_on() -> None:
    """Own reads, of rounds under way and of none yet, are what the next leader is asked."""
    rounds = HeartbeatRounds()
    rounds.add(Question(None, 0, 0, "a"))
    rounds.begin(10)
    rounds.add(Question(None, 0, 0, "b"))
    rounds.add(Question(None, 0, 0, "c"))
    rounds.add(Question(2, 1, 1))
    assert rounds.own_contexts() == ["a", "b", "c"]


def test_an_roundss_copy_is_its_own() -> None:
    """Rounds of a copy don't confirm the original's questions."""
    rounds = HeartbeatRounds()
    rounds.add(Question(2, 1, 1))
    twin = rounds.copy()
    assert twin.confirmed(twin.begin(1))
    assert rounds.new
    assert rounds.last == 0
