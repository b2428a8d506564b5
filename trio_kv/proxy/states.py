"""How far a session is and what may come next, what its steps ask for, and what its connection then needs."""

import enum
from collections.abc import Mapping
from typing import Final

from trio_kv.wire.replies import CLOSE_SHUTDOWN, encode_error


class State(enum.Enum):
    """How far a session is."""

    GREETING = "greeting"
    """No line has come; the first one tells whether the peer is a client of ours."""
    AUTHENTICATING = "authenticating"
    """The peer is a client of ours, and has to show a token."""
    OPEN = "open"
    DRAINING = "draining"
    """It ends. What was received is answered; if the door stops, so is what has come and was not received."""
    CLOSING = "closing"
    """What is still owed gets no result. The last words follow."""
    CLOSED = "closed"
    """All is said, or the peer is gone."""


NEXT_STATES: Final[Mapping[State, frozenset[State]]] = {
    State.GREETING: frozenset({State.AUTHENTICATING, State.OPEN, State.DRAINING, State.CLOSED}),
    State.AUTHENTICATING: frozenset({State.OPEN, State.DRAINING, State.CLOSED}),
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
    WAIT = "wait"
    """Wait for the session's `delay_s`: somebody guesses tokens."""


READ: Final = Action.READ
WRITE: Final = Action.WRITE
WATCH: Final = Action.WATCH
PAUSE: Final = Action.PAUSE
WAIT: Final = Action.WAIT
Step = Action | bytes
"""Bytes are to be sent."""


class Life:
    """How far a session is, and why it ended."""

    def __init__(self) -> None:
        """Await the first line."""
        self.state = State.GREETING
        self.is_hearing = True
        """Whether what comes next is received."""
        self.farewell = b""
        """The last words."""
        self.reason = "end of input"
        """Why it ended, once it has."""
        self.is_refused = False
        """Whether it is ended because of what came over it."""

    @property
    def is_open(self) -> bool:
        """Whether it has no end yet."""
        return self.state in (State.OPEN, State.GREETING, State.AUTHENTICATING)

    def retire(self, farewell: bytes, reason: str) -> None:
        """End it with these last bytes, once all that was received is answered. The first end counts."""
        if self.is_open:
            self.become(State.DRAINING)
            self.farewell, self.reason = farewell, reason
            self.is_hearing = False

    def stop(self) -> None:
        """End it once all that has come is answered, because the door stops."""
        if self.is_open:
            self.retire(CLOSE_SHUTDOWN, "shutdown")
            self.is_hearing = True

    def refuse(self, code: str, message: str) -> None:
        """End it with an error, because of what came over it. Nothing that still comes is heard."""
        self.is_refused = True
        self.retire(encode_error(code, message), message)
        self.is_hearing = False

    def lose(self, reason: str) -> None:
        """End it at once: the peer is gone."""
        self.become(State.CLOSED)
        self.reason = reason

    def become(self, state: State) -> None:
        """Go to the next state.

        Raises:
            IllegalStateError: that is not the next of the one it has.

        """
        if state not in NEXT_STATES[self.state]:
            raise IllegalStateError(f"a session that is {self.state.value} can't be {state.value}")
        self.state = state


class Need(enum.Enum):
    """What has to come before a connection can go on."""

    BYTES = "bytes"
    """More of the client."""
    ANSWER = "answer"
    """The store's, to the run that it was given."""
    ROOM = "room"
    """The client takes what it was sent."""
    TURN = "turn"
    """Others had their turn."""
    TIME = "time"
    """Some time has passed."""
    NOTHING = "nothing"
    """It hears no more, and owes nothing."""


BYTES: Final = Need.BYTES
ANSWER: Final = Need.ANSWER
