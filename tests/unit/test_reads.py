"""The two ends of ReadIndex: which answer is good for which read, and which round for which question."""

from trio_kv.raft.reads import Answerer, Asker, Question


def test_one_question_stands_for_all_that_waited() -> None:
    """Reads that wait are asked together, and answered together."""
    asker = Asker(7)
    asker.waiting = ["a", "b"]
    assert asker.ask(0.0) == 1
    assert asker.waiting == []
    assert asker.answered(7, 1) == ["a", "b"]
    assert asker.answered(7, 1) == []


def test_a_newer_read_is_not_answered_by_an_older_question() -> None:
    """A read that came after a question left waits for the next one, though the first is answered late (R3)."""
    asker = Asker(7)
    asker.waiting = ["old"]
    first = asker.ask(0.0)
    asker.waiting = ["new"]
    second = asker.ask(1.0)
    assert asker.answered(7, first) == ["old"]
    assert asker.contexts() == ["new"]
    assert asker.answered(7, second) == ["new"]


def test_a_newer_answer_serves_older_reads_too() -> None:
    """The question asked again stands for all: the old reads don't need the old answer."""
    asker = Asker(7)
    asker.waiting = ["old"]
    first = asker.ask(0.0)
    asker.waiting = ["new"]
    second = asker.ask(1.0)
    assert asker.answered(7, second) == ["old", "new"]
    assert asker.answered(7, first) == []


def test_no_number_is_used_twice() -> None:
    """Neither asking again nor giving up brings a number back."""
    asker = Asker(7)
    seen = []
    for step in range(10):
        asker.waiting = asker.waiting or ["a"]
        seen.append(asker.ask(0.0))
        if step % 2:
            asker.give_up()
    assert len(set(seen)) == len(seen)
    assert seen == sorted(seen)


def test_after_giving_up_no_older_answer_counts() -> None:
    """What was asked of a leader that is gone is asked anew; its answer, coming late, is good for nothing."""
    asker = Asker(7)
    asker.waiting = ["a"]
    first = asker.ask(0.0)
    asker.give_up()
    assert asker.waiting == ["a"]
    assert asker.answered(7, first) == []
    again = asker.ask(1.0)
    assert asker.answered(7, first) == []
    assert asker.answered(7, again) == ["a"]


def test_an_answer_to_a_former_self_is_void() -> None:
    """A node that restarted has another nonce, and takes no answer to what it asked before."""
    asker = Asker(8)
    asker.waiting = ["a"]
    counter = asker.ask(0.0)
    assert asker.answered(7, counter) == []


def test_an_askers_copy_is_its_own() -> None:
    """Answering a copy leaves the original waiting."""
    asker = Asker(7)
    asker.waiting = ["a"]
    counter = asker.ask(0.0)
    assert asker.copy().answered(7, counter) == ["a"]
    assert asker.answered(7, counter) == ["a"]


def test_a_round_serves_the_questions_that_came_before_it_and_no_later_one() -> None:
    """A question waits for a round that began after it came (thesis §6.4)."""
    answerer = Answerer()
    early, late = Question(2, 1, 1), Question(3, 1, 1)
    answerer.add(early)
    first = answerer.begin_round(10)
    answerer.add(late)
    assert answerer.confirmed(first) == [(10, [early])]
    second = answerer.begin_round(11)
    assert answerer.confirmed(second) == [(11, [late])]


def test_a_later_round_confirms_earlier_ones_at_their_own_index() -> None:
    """Replies of an earlier round may be lost; what it stood for keeps the index that was noted then."""
    answerer = Answerer()
    answerer.add(Question(2, 1, 1))
    answerer.begin_round(10)
    answerer.add(Question(3, 1, 1))
    answerer.begin_round(12)
    last = answerer.begin_round(15)
    assert [index for index, _ in answerer.confirmed(last)] == [10, 12]
    assert answerer.confirmed(last) == []


def test_a_question_that_comes_late_does_not_replace_a_newer_one() -> None:
    """Of one node's questions the newest counts, in whatever order they come; a new start counts as newer."""
    answerer = Answerer()
    newer = Question(2, 1, 5)
    answerer.add(newer)
    answerer.add(Question(2, 1, 4))
    assert answerer.new[2] == [newer]
    restarted = Question(2, 9, 1)
    answerer.add(restarted)
    assert answerer.new[2] == [restarted]


def test_a_leaders_own_reads_add_up_and_are_handed_on() -> None:
    """Own reads, of rounds under way and of none yet, are what the next leader is asked."""
    answerer = Answerer()
    answerer.add(Question(None, 0, 0, "a"))
    answerer.begin_round(10)
    answerer.add(Question(None, 0, 0, "b"))
    answerer.add(Question(None, 0, 0, "c"))
    answerer.add(Question(2, 1, 1))
    assert answerer.own_contexts() == ["a", "b", "c"]


def test_an_answerers_copy_is_its_own() -> None:
    """Rounds of a copy don't confirm the original's questions."""
    answerer = Answerer()
    answerer.add(Question(2, 1, 1))
    twin = answerer.copy()
    assert twin.confirmed(twin.begin_round(1))
    assert answerer.new
    assert answerer.round == 0
