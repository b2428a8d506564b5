"""What a leader knows of one follower: probing, replicating, the window, and answers in any order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from trio_kv.raft.config import RaftConfig
from trio_kv.raft.entry import LogPosition
from trio_kv.raft.install import LEASE_ENTRIES, Outgoing
from trio_kv.raft.progress import InFlight, Progress, Sending


def replicating(match: int, window: int = 3) -> Progress:
    """Return the progress of a follower whose log is known to join ours at `match`."""
    progress = Progress(match + 1, 0.0, RaftConfig(append_window=window))
    progress.accepted(match)
    return progress


def test_one_probe_at_a_time() -> None:
    """While the place where the logs join is unknown, one append is in flight, and `next` stays."""
    progress = Progress(5, 0.0, RaftConfig(append_window=3))
    assert progress.is_window_open()
    progress.sent(7, 100, 0.0)
    assert not progress.is_window_open()
    assert progress.next == 5


def test_an_accepted_probe_opens_the_window() -> None:
    """Once the logs join, appends follow one another without waiting."""
    progress = Progress(5, 0.0, RaftConfig(append_window=3))
    progress.sent(7, 100, 0.0)
    assert progress.accepted(7)
    assert (progress.sending, progress.match, progress.next) == (Sending.REPLICATE, 7, 8)
    for last in (8, 9, 10):
        assert progress.is_window_open()
        progress.sent(last, 100, 0.0)
    assert not progress.is_window_open()
    assert progress.next == 11


def test_few_large_appends_fill_the_window() -> None:
    """What is behind them, heartbeats too, would wait until they are all taken; and one goes out in any case."""
    config = RaftConfig(append_window_entries=10, append_window_bytes=1000)
    for entries, size_bytes in [(10, 1), (100, 1), (5, 500), (1, 1000), (1, 10_000)]:
        progress = Progress(5, 0.0, config)
        progress.accepted(4)
        sent = 0
        while progress.is_window_open():
            progress.sent(progress.next - 1 + entries, size_bytes, 0.0)
            sent += 1
        assert sent == max(1, min(10 // entries, 1000 // size_bytes))
        progress.accepted(4 + entries)
        assert progress.is_window_open()


def test_one_answer_covers_all_appends_before_it() -> None:
    """Answers that got lost don't fill the window for ever: a later one stands for them."""
    progress = replicating(1)
    for last in (2, 3, 4):
        progress.sent(last, 100, 0.0)
    assert progress.accepted(4)
    assert not progress.in_flight


def test_an_old_answer_is_no_news() -> None:
    """`match` never decreases, whatever comes late or twice (scenario L4)."""
    progress = replicating(6)
    assert not progress.accepted(4)
    assert not progress.accepted(6)
    assert (progress.match, progress.next) == (6, 7)


def test_a_rejection_goes_back_no_further_than_what_is_known() -> None:
    """The next append never starts below `match`."""
    progress = replicating(6)
    progress.sent(9, 100, 0.0)
    progress.rejected(9, 2)
    assert (progress.sending, progress.next, list(progress.in_flight)) == (Sending.PROBE, 7, [])


def test_asking_again_does_not_fill_the_window() -> None:
    """A follower that answers heartbeats and nothing else is asked where it is over and over: one place in flight."""
    progress = replicating(1)
    progress.sent(5, 100, 0.0)
    for _ in range(100):
        progress.sent(5, 100, 0.0)
    assert len(progress.in_flight) == 1


def test_an_old_rejection_changes_nothing() -> None:
    """A rejection of an append behind which the logs are known to join, or that is not the last one, is late."""
    progress = replicating(6)
    progress.sent(9, 100, 0.0)
    progress.rejected(6, 2)
    progress.rejected(10, 2)
    assert (progress.sending, progress.next) == (Sending.REPLICATE, 10)


def test_while_a_snapshot_is_sent_no_append_is() -> None:
    """An install ends when the follower has the snapshot: then the logs join behind it; or when it is given up."""
    progress = replicating(6)
    install = progress.become_install(1.0, 20)
    install.sent(LogPosition(20, 3), 1.0)
    progress.rejected(6, 2)
    assert not progress.is_window_open()
    progress.accepted(9)
    assert progress.sending is Sending.INSTALL
    assert progress.accepted(20)
    assert (progress.sending, progress.install, progress.next) == (Sending.REPLICATE, None, 21)
    progress.become_install(2.0, 21)
    progress.give_up_install()
    assert (progress.sending, progress.install, progress.next) == (Sending.PROBE, None, 21)


def test_a_new_disk_starts_from_nothing() -> None:
    """What a former self acknowledged, rounds and told commits included, is forgotten (scenario L8)."""
    progress = replicating(6)
    progress.acked_round, progress.commit_sent = 4, 6
    progress.reset(7)
    assert (progress.match, progress.acked_round, progress.commit_sent) == (0, 0, 0)
    assert progress.sending is Sending.PROBE
    assert progress.next == 7


def test_a_copy_is_its_own() -> None:
    """A copy shares nothing that changes."""
    progress = replicating(1)
    progress.sent(2, 100, 0.0)
    twin = progress.copy()
    twin.accepted(2)
    assert (progress.match, list(progress.in_flight)) == (1, [InFlight(2, 100)])


@settings(max_examples=150)
@given(st.lists(st.tuples(st.sampled_from(["send", "accept", "reject"]), st.integers(0, 20)), max_size=40))
def test_whatever_comes_in_whatever_order(steps: list[tuple[str, int]]) -> None:
    """`match < next` and `match` only rises, for every order of sends, acknowledgements and rejections."""
    progress = Progress(5, 0.0, RaftConfig(append_window=4))
    stored = 0
    for what, number in steps:
        before = progress.match
        if what == "send" and progress.is_window_open():
            stored = max(stored, progress.next - 1 + number % 3)
            progress.sent(progress.next - 1 + number % 3, 100, 0.0)
        elif what == "accept":
            progress.accepted(min(number, stored))
        elif what == "reject":
            progress.rejected(progress.next - 1, min(number, progress.next - 1))
        assert before <= progress.match < progress.next
        assert len(progress.in_flight) <= 4


def test_a_snapshot_is_kept_as_long_as_its_receiver_gets_on() -> None:
    """Each step renews the lease; without one it ends with the time, or with the entries written meanwhile."""
    install = Outgoing(moved_at=0.0, moved_last_index=10)
    for step in range(1, 20):
        install.maybe_end_lease(0.9 * step, 10, 1.0)
        assert install.is_kept
        install.moved(0.9 * step, 10)
    install.maybe_end_lease(0.9 * 19 + 1.0, 10, 1.0)
    kept = [install.is_kept]
    install.moved(30.0, 10)
    kept.append(install.is_kept)
    for written in (LEASE_ENTRIES - 1, LEASE_ENTRIES):
        install.maybe_end_lease(30.1, 10 + written, 1.0)
        kept.append(install.is_kept)
    assert kept == [False, True, True, False]


def test_who_could_elect_without_the_leader() -> None:
    """A follower that is there, is in step, has stored what the leader has not, and whose disk answers."""
    able = replicating(5)

    def is_able(progress: Progress, now: float = 1.0) -> bool:
        return progress.could_elect(now, 4, silence_s=10.0, stall_s=1.0)

    assert is_able(able)
    assert not able.could_elect(1.0, 5, silence_s=10.0, stall_s=1.0), (
        "it knows no more than the leader's disk"
    )
    assert not is_able(able, 10.0), "it was not heard for long"
    waiting = replicating(5)
    waiting.sent(6, 100, 1.0)
    assert is_able(waiting, 1.9)
    waiting.sent(7, 100, 1.9)
    assert not is_able(waiting, 2.0), "its disk has not answered for a second"
    waiting.answered(1.5)
    assert is_able(waiting, 2.0)
    rebuilding = replicating(5)
    rebuilding.said(counts=False)
    assert not is_able(rebuilding)
    probing = replicating(5)
    probing.become_probe(3)
    assert not is_able(probing)
