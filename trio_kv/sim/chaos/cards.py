"""The faults that may be drawn, how often each stands in its lane's deck, and what a run must have met of them."""

from collections.abc import Sequence
from random import Random

import attrs

from trio_kv.sim.chaos.config import DOOR_KINDS, ONE_KINDS, PROCESS_KINDS, FaultKind
from trio_kv.sim.chaos.target import Target


@attrs.define
class Fault:
    """A fault that was brought about."""

    kind: FaultKind
    name: str
    from_s: float
    to_s: float
    situation: str | None = None
    """What a run must have met, if this is an example of it."""


@attrs.frozen
class Card:
    """A fault that may be drawn."""

    kind: FaultKind
    variant: str = "any"
    situation: str | None = None


NODE_CARDS = (
    *[Card("crash")] * 2,
    *[Card("crash", "leader", "the leader crashed")] * 4,
    *[Card("kill", situation="the process was killed")] * 4,
    Card("stop"),
    Card("stop", "leader"),
    *[Card("pause")] * 2,
    *[Card("pause", "leader", "the leader was paused")] * 3,
    *[Card("freeze", situation="the process was frozen")] * 2,
    Card("fail-disk"),
    Card("rebuild"),
    *[Card("transfer")] * 2,
    *[Card("snapshot")] * 2,
)
ONE_CARDS = (
    *[Card("kill-one", situation="a single process was killed")] * 2,
    *[Card("kill-one", "leader")] * 2,
    Card("freeze-one", situation="a single process was frozen"),
    Card("freeze-one", "leader"),
)
LINK_CARDS = (
    *[Card("partition", "minority", "the leader was in a minority")] * 4,
    *[Card("partition", "majority", "the leader was in a majority")] * 3,
    Card("partition"),
    Card("cut"),
    Card("cut", "bridge"),
    Card("delay"),
    *[Card("drop")] * 2,
    Card("slow-disk"),
    Card("stall-disk", "leader"),
    Card("fill-disk"),
    Card("fill-disk", "leader"),
)
COMMAND_CARDS = (Card("command"),)

CARDS = (*NODE_CARDS, *ONE_CARDS, *LINK_CARDS)

KILL_KINDS = frozenset({"crash", "stop", "kill", "kill-one"})
PAUSE_KINDS = frozenset({"pause", "freeze", "freeze-one"})


def possible_kinds(target: Target, *, has_command: bool) -> frozenset[FaultKind]:
    """Return the faults that can be brought about on a target."""
    kinds: set[FaultKind] = {"command"} if has_command else set()
    if target.has_door:
        kinds |= DOOR_KINDS
    if target.own is not None:
        kinds |= PROCESS_KINDS
        if target.own.has_ones:
            kinds |= ONE_KINDS
    return frozenset(kinds)


def required_situations(kinds: frozenset[FaultKind], nodes: int) -> list[str]:
    """Return what a run with these faults must have met."""
    needed = [card for card in CARDS if card.kind in kinds and card.situation]
    if nodes < 3:
        needed = [card for card in needed if card.kind != "partition"]
    return sorted({card.situation for card in needed if card.situation})


def first_deck(cards: Sequence[Card], random: Random) -> list[Card]:
    """Return a deck, to be dealt from its end, that begins with an example of each situation."""
    mixed = random.sample(cards, len(cards))
    first = {card.situation: card for card in mixed if card.situation}
    return [*(card for card in mixed if card not in first.values()), *first.values()]
