"""Incarnations: the numbers by which the disks of a node are told from one another. Pure.

A node's first disk has a number below `FIRST_END`, and one that took the place of a lost one a number from there on,
higher than the one before. So two different ones below it are both *first*, and one of them was made by mistake; and a
disk that replaces one of which nobody has heard is higher all the same.
"""

from random import Random
from typing import Final

FIRST_BITS: Final = 52
"""Every JSON reader keeps a whole number of one bit more."""
FIRST_END: Final = 1 << FIRST_BITS
STEP_BITS: Final = 32
"""An incarnation is higher than the one that it replaces by a random number of at most so many bits."""


def draw_first(random: Random) -> int:
    """Return the incarnation of a node's first disk."""
    return random.randrange(1, FIRST_END)


def draw_successor(incarnation: int, random: Random) -> int:
    """Return the incarnation of a disk that replaces another one, which may have been the first, and unknown (0)."""
    return max(incarnation, FIRST_END - 1) + random.randrange(1, 1 << STEP_BITS)


def why_no_successor(incarnation: int, known: int) -> str | None:
    """Return why the disk of a node can't be taken for that which is known, nor for one that replaced it.

    Args:
        incarnation: of the disk that a node says it has.
        known: the highest that was ever heard of; 0 if none was.

    Returns:
        What it is instead, and what to do; None if it can be taken.

    """
    if not known or incarnation == known:
        return None
    if max(incarnation, known) < FIRST_END:
        return (
            f"was made twice: its first disk had incarnation {known:x}, this one has {incarnation:x} and begins anew,"
            " without what the first one promised. Let the others fill it: `trio-kv rebuild`"
        )
    if incarnation < known:
        return (
            f"comes with incarnation {incarnation:x}, and was replaced by {known:x}: it is a former self of that node,"
            " and must not run again"
        )
    return None
