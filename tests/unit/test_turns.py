"""Turns: one node at a time, none for ever, and none taken from whoever gets on."""

from trio_kv.replica.turns import Turns

LEASE_S = 1.0


def test_one_after_the_other_in_the_order_in_which_they_asked() -> None:
    """A turn that is given back goes to the one that has waited for longest."""
    turns = Turns(LEASE_S)
    assert turns.take(0.0, 3)
    assert not turns.take(0.1, 1)
    assert not turns.take(0.2, 2)
    turns.give_back(3)
    assert not turns.take(0.3, 2)
    assert turns.take(0.3, 1)
    turns.give_back(1)
    assert turns.take(0.4, 2)


def test_lower_ranks_go_first() -> None:
    """Of those that wait, the one with the least to do is next, whenever it asked."""
    turns = Turns(LEASE_S)
    turns.ask(0.0, 1, rank=70)
    turns.ask(0.0, 2, rank=30)
    assert not turns.take(0.0, 1, rank=70)
    assert turns.take(0.0, 2, rank=30)


def test_who_gets_on_keeps_the_turn_however_long_it_takes() -> None:
    """A slow disk is not a hung one: its lease begins anew with each piece."""
    turns = Turns(LEASE_S)
    assert turns.take(0.0, 1)
    for step in range(1, 50):
        turns.renew(0.9 * step, 1)
        assert not turns.take(0.9 * step + 0.89, 2)


def test_who_gets_nowhere_loses_it_and_asks_anew() -> None:
    """The lease ends, the next one has the turn, and what the late one does renews nothing any more."""
    turns = Turns(LEASE_S)
    assert turns.take(0.0, 1)
    assert not turns.take(0.99, 2)
    assert turns.take(1.0, 2)
    turns.renew(1.5, 1)
    assert not turns.take(1.5, 1)
    assert turns.holder == 2
    turns.give_back(1)
    assert turns.holder == 2, "it gives back what it has not"
    turns.give_back(2)
    assert turns.take(1.6, 1)


def test_nobody_loses_a_turn_that_nobody_else_wants() -> None:
    """A lease that is over and not taken goes on with the next sign of life."""
    turns = Turns(LEASE_S)
    assert turns.take(0.0, 1)
    turns.renew(5.0, 1)
    assert not turns.take(5.9, 2)


def test_who_waits_and_does_not_ask_any_more_is_passed_over() -> None:
    """A paused node in the queue holds up nobody, and is first again when it asks again."""
    turns = Turns(LEASE_S)
    assert turns.take(0.0, 1)
    assert not turns.take(0.0, 2)
    assert not turns.take(0.5, 3)
    turns.give_back(1)
    assert not turns.take(0.9, 3), "node 2 asked less than a lease ago"
    assert turns.take(1.1, 3)
    assert not turns.take(1.1, 4)
    assert not turns.take(1.2, 2)
    turns.give_back(3)
    assert not turns.take(1.3, 4)
    assert turns.take(1.3, 2)
