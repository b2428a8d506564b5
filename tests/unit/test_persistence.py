"""The way of a node's state to its disk, when that takes long: what waits is limited, and nothing leaves early."""

from trio_kv.raft.entry import make_entry
from trio_kv.raft.log import Log
from trio_kv.raft.messages import AppendAccepted, Message
from trio_kv.raft.persistence import HELD_MAX, WRITES_UNDER_WAY_MAX, Persistence
from trio_kv.raft.ready import HardState, Write

STATE = HardState(1, None)


def make_persistence() -> Persistence:
    return Persistence(Log(), STATE)


def append(persistence: Persistence, index: int) -> None:
    """Append an entry, as a leader does in one of its passes."""
    persistence.log.append([make_entry(index, 1, 0, None)])


def promise(match: int) -> Message:
    """Return a message that must not leave before the entry is durable."""
    return AppendAccepted(1, 2, 1, 1, False, match, None)


def hang(persistence: Persistence, passes: int) -> list[Write]:
    """Let a node append while its disk stores nothing; return the writes that the disk got."""
    writes = []
    for index in range(1, passes + 1):
        append(persistence, index)
        write = persistence.next_write(0.0, STATE)
        if write is not None:
            writes.append(write)
        persistence.held.append(promise(index))
        assert persistence.release() == []
    return writes


def test_a_disk_that_hangs_gets_no_queue_without_end() -> None:
    """So many writes are under way and no more; what waits behind them is one write as soon as the disk moves."""
    persistence = make_persistence()
    writes = hang(persistence, WRITES_UNDER_WAY_MAX + 500)
    assert len(writes) == WRITES_UNDER_WAY_MAX
    persistence.stored(writes[0].ticket)
    last = persistence.next_write(1.0, STATE)
    assert last is not None
    assert [entry.index for entry in last.entries] == [
        *range(WRITES_UNDER_WAY_MAX + 1, WRITES_UNDER_WAY_MAX + 501)
    ]
    persistence.stored(last.ticket)
    assert persistence.log.durable == WRITES_UNDER_WAY_MAX + 500


def test_what_waits_behind_them_promises_nothing_before_it_is_durable() -> None:
    """A message whose entry no write holds yet is bound to none of those under way."""
    persistence = make_persistence()
    writes = hang(persistence, WRITES_UNDER_WAY_MAX + 1)
    told = persistence.stored(writes[-1].ticket)
    assert told == [promise(index) for index in range(1, WRITES_UNDER_WAY_MAX)]
    last = persistence.next_write(1.0, STATE)
    assert last is not None
    assert persistence.release() == []
    assert persistence.stored(last.ticket) == [
        promise(WRITES_UNDER_WAY_MAX),
        promise(WRITES_UNDER_WAY_MAX + 1),
    ]


def test_messages_that_wait_for_a_disk_that_hangs_are_limited() -> None:
    """Of more than so many the oldest are lost, as they may be on the way; the newest are those that still matter."""
    persistence = make_persistence()
    append(persistence, 1)
    write = persistence.next_write(0.0, STATE)
    assert write is not None
    for number in range(3 * HELD_MAX):
        persistence.held.append(promise(number))
        assert persistence.release() == []
    told = persistence.stored(write.ticket)
    assert told == [promise(number) for number in range(2 * HELD_MAX, 3 * HELD_MAX)]
