"""How far a session is and what may come next, and what its steps ask for."""

import enum
from collections.abc import Mapping
from typing import Final


class State(enum.Enum):
    """How far a session is."""

    GREETING = "greeting"
    """No line has come; the first one tells whether the peer is a client of ours."""
    OPEN = "open"
    DRAINING = "draining"
    """It ends. What was received is answered; if the door stops, so is what has come and was not received."""
    CLOSING = "closing"
    """What is still owed gets no result. The last words follow."""
    CLOSED = "closed"
    """All is said, or the peer is gone."""


NEXT_STATES: Final[Mapping[State, frozenset[State]]] = {
    State.GREETING: frozenset({State.OPEN, State.DRAINING, State.CLOSED}),
    State.OPEN: frozenset({State.DRAINING, State.CLOSED}),
    State.DRAINING: frozenset({State.CLOSING, State.CLOSED}),
    State.CLOSING: frozenset({State.CLOSED}),
    State.CLOSED: frozenset({State.CLOSED}),
}


class IllegalStateError(Exception):
    """A session was asked for what its state does not allow. That is a bug of its driver."""


class Action(enum.Enum):
    """What a step asks of the driver, where it is not to send bytes."""

    READ = "read"
    """Let the store answer the session's `operations`, which are queries, and give the answer to `take_answer`."""
    WRITE = "write"
    """Let the store carry out the session's `operations`, one of which is a write, and give the answer to
    `take_answer`."""
    WATCH = "watch"
    """Begin or end a watch, as the session's `first_request` says, and give the answer to `take_answer`."""
    PAUSE = "pause"
    """Let others have their turn."""


READ: Final = Action.READ
WRITE: Final = Action.WRITE
WATCH: Final = Action.WATCH
PAUSE: Final = Action.PAUSE
Step = Action | bytes
"""Bytes are to be sent."""
