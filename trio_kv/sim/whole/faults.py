"""What goes wrong at the door: the faults that only the whole world has."""

import attrs

from trio_kv.sim.faults import Fault


@attrs.frozen
class DoorFault(Fault):
    """Something that goes wrong at the door: the cluster behind it must not notice."""


@attrs.frozen
class Disconnect(DoorFault):
    """A client drops its connection, whatever is under way."""

    client: int
    is_half_line: bool
    """Behind half a line."""


@attrs.frozen
class SlowReader(DoorFault):
    """A client reads nothing for a while, and holds the door back."""

    client: int
    for_s: float


@attrs.frozen
class RestartDoor(DoorFault):
    """The door is closed, and another one is opened over the same store."""

    for_s: float
    is_graceful: bool
    """Whether it answers what has come, and says good-bye; else all connections end at once."""


@attrs.frozen
class Stranger(DoorFault):
    """Somebody sends what is no request; others must not notice."""

    lines: tuple[bytes, ...]
