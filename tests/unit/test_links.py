"""Claims about faults of links: which messages they meet, what ends them, and what is told of them."""

from random import Random

from trio_kv.raft.messages import Message, TimeoutNow
from trio_kv.transport.links import LinkFault, Links
from trio_kv.transport.memory import MemoryNetwork

SOUND = (0.0,)
SLOW = LinkFault(delay_s=0.5)


def test_a_link_is_healed_out_of_a_partition_and_all_else_stays_cut() -> None:
    """Who heals one link of a partition gets that one alone, both of whose directions are links of their own."""
    links = Links(Random(1))
    links.partition([[1, 2], [3], [4]])
    links.heal_link(1, 3)
    links.heal_link(3, 1)
    through = {
        (one, other) for one in (1, 2, 3, 4) for other in (1, 2, 3, 4) if links.route(one, other) == SOUND
    }
    assert {pair for pair in through if pair[0] < pair[1]} == {(1, 2), (1, 3)}
    assert all((other, one) in through for one, other in through)
    cut = {"cut": {(1, 4), (2, 3), (2, 4), (3, 4)}}
    assert {name: {members["link"] for _, members in links.active_faults()} for name in ("cut",)} == cut


def test_a_link_has_faults_of_its_own() -> None:
    """They take the place of what all links have, until it is healed: then it is sound, whatever the others are."""
    links = Links(Random(1))
    links.set_fault(SLOW)
    links.set_fault(LinkFault(drop=1.0), (1, 2))
    assert (links.route(1, 2), links.route(2, 1)) == ((), (0.5,))
    assert links.active_faults() == [
        ("delay", {"ms": 500.0}),
        ("drop", {"percent": 100.0, "link": (1, 2)}),
    ]
    links.heal_link(1, 2)
    assert (links.route(1, 2), links.route(2, 1)) == (SOUND, (0.5,))
    assert links.active_faults() == [("delay", {"ms": 500.0})]
    links.set_fault(SLOW, (1, 2))
    links.set_fault(LinkFault())
    assert links.route(1, 2) == SOUND, "a link that was as all the others are goes on being so"
    assert not links.is_faulty


def test_who_looks_at_the_network_sees_what_is_sent_and_what_is_lost() -> None:
    """A tap is told each message once, and whether it is lost; without a tap nothing is different."""
    network = MemoryNetwork(Links(Random(1)))
    arrived: list[Message] = []
    seen: list[tuple[int, bool]] = []

    def deliver(message: Message) -> bool:
        arrived.append(message)
        return message.term != 9

    network.attach(2, deliver)
    first, full, nobody = (TimeoutNow(1, target, term, 0, False) for target, term in ((2, 1), (2, 9), (3, 1)))
    network.send_nowait(first)
    network.tap = lambda message, is_lost: seen.append((message.target, is_lost))
    for message in (first, full, nobody):
        network.send_nowait(message)
    network.links.cut(1, 2)
    network.send_nowait(first)
    assert seen == [(2, False), (2, True), (3, True), (2, True)]
    assert arrived == [first, first, full]
    assert network.lost == 3
