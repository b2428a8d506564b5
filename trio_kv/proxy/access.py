"""Who may ask for what: the tokens of a door, what one client has shown of them, and how long a request's texts may be.

A door has one `Doorkeeper`. A client whose requests need looking at has an `Admission` by it, which is asked request by
request, at the time when the request's turn has come: a token that was taken away, or may only read from now on, counts
for nothing from then on, whatever was sent before. A door without tokens, whose limits are the protocol's own, has
nothing to look at, and its clients have none.

A token is compared in constant time: by its digest, with all that there are. Whoever guesses is slowed down: after a
wrong token each further one from the same host has to wait before it is looked at, longer each time. Nobody else waits.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from trio_kv.kv.operations.operation import Query
from trio_kv.kv.reply import Reply
from trio_kv.proxy.limits import Limits
from trio_kv.raft.events import Event
from trio_kv.trace.vocabulary import ClientAuthenticated, ClientNotAuthenticated
from trio_kv.wire.operations import Auth, Ping, Request, Status
from trio_kv.wire.watches import Unwatch, Watch

TOKEN_BYTES_MIN: Final = 16
"""A shorter token could be guessed."""
TOKEN_BYTES_MAX: Final = 1024
NAME_CHARACTERS_MAX: Final = 64
FIRST_DELAY_S: Final = 0.1
"""How long the try after a first wrong token waits; each further one twice as long."""
DELAY_MAX_S: Final = 3.0
FORGOTTEN_S: Final = 60.0
"""A host from which no wrong token came for so long is a new one."""
HOSTS_MAX: Final = 4096
"""Hosts whose wrong tokens are remembered; beyond it the one that was silent for the longest time is forgotten."""
TRIES_MAX: Final = 10
"""So many wrong tokens end a connection."""


@attrs.frozen
class Holder:
    """Who may show a token, and what that opens."""

    name: str
    is_reader: bool
    """Whether it opens reads alone."""


Tokens = Mapping[bytes, Holder]
"""The holders, by the digests of their tokens."""


def digest_of(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode()).digest()


def parse_tokens(text: str) -> Tokens:
    """Return the tokens of a file with one `NAME TOKEN` or `NAME TOKEN read` a line; `#` begins a comment.

    Raises:
        ValueError: a line is none of these, or there is no token at all; says which, and never what the token is.

    """
    tokens: dict[bytes, Holder] = {}
    names: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        problem = _find_problem(words, names)
        if problem is None:
            names.add(words[0])
            holder = Holder(words[0], is_reader=len(words) == 3)
            if tokens.setdefault(digest_of(words[1]), holder) is not holder:
                problem = "this token has another name as well: give each name one of its own"
        if problem is not None:
            raise ValueError(f"line {number}: {problem}")
    if not tokens:
        raise ValueError("it holds no token: write one NAME TOKEN a line")
    return tokens


def _find_problem(words: list[str], names: set[str]) -> str | None:
    name = words[0]
    if len(words) not in (2, 3) or words[2:] not in ([], ["read"]):
        return "a line is NAME TOKEN, or NAME TOKEN read"
    if len(name) > NAME_CHARACTERS_MAX or not name.isprintable():
        return f"a name has at most {NAME_CHARACTERS_MAX} printable characters"
    if name in names:
        return f"the name {name} stands twice"
    size = len(words[1].encode())
    if not TOKEN_BYTES_MIN <= size <= TOKEN_BYTES_MAX:
        return f"a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} bytes, this one {size}; make it of random ones"
    return None


@attrs.define
class _Failures:
    count: int = 0
    last_s: float = 0.0


class Doorkeeper:
    """What one door knows of tokens, and of who guesses.

    Args:
        tokens: all there are; None for a door that asks for none.
        limits: how long the texts of a request may be.
        now: the clock of the run, in seconds.
        emit: where events go.

    """

    def __init__(
        self, tokens: Tokens | None, limits: Limits, now: Callable[[], float], emit: Callable[[Event], object]
    ) -> None:
        """Know of no guesses; see the class."""
        self.tokens = tokens
        self.limits = limits
        self.emit = emit
        self._now = now
        self._failures: dict[str, _Failures] = {}
        """By host, the one that was silent for the longest time first."""

    def admit(self, client: int, peer: str) -> "Admission | None":
        """Return what looks at a client's requests; None if there is nothing to look at.

        Args:
            client: its number, for events.
            peer: its address, a port behind the last colon.

        """
        if self.tokens is None and self.limits.is_wide:
            return None
        return Admission(self, client, peer)

    def find(self, token: str) -> bytes | None:
        """Return the digest of a token that opens the door."""
        digest, found = digest_of(token), None
        for known in self.tokens or ():
            if hmac.compare_digest(known, digest):
                found = known
        return found

    def delay_s(self, host: str) -> float:
        """Return how long a try from a host has to wait."""
        failures = self._failures.get(host)
        if failures is None or self._now() - failures.last_s > FORGOTTEN_S:
            return 0.0
        # The exponent has a limit, since it is the client's to raise.
        return float(min(FIRST_DELAY_S * 2 ** min(failures.count - 1, 10), DELAY_MAX_S))

    def note_failure(self, host: str) -> None:
        """Remember a wrong token."""
        now = self._now()
        failures = self._failures.pop(host, None)
        if failures is None or now - failures.last_s > FORGOTTEN_S:
            failures = _Failures()
        self._failures[host] = _Failures(failures.count + 1, now)
        if len(self._failures) > HOSTS_MAX:
            del self._failures[next(iter(self._failures))]


class Admission:
    """What one client may do.

    Args:
        keeper: of the door.
        client: its number, for events.
        peer: its address.

    """

    def __init__(self, keeper: Doorkeeper, client: int, peer: str) -> None:
        """Have seen no token; see the class."""
        self._wrong_count = 0
        """How many tokens it has shown that open nothing."""
        self._has_waited = False
        """Whether the token that is next was let wait as long as it has to."""
        self._keeper = keeper
        self._client = client
        self._peer = peer
        self._host = peer.rpartition(":")[0]
        self._digest: bytes | None = None

    @property
    def needs_token(self) -> bool:
        """Whether nothing is answered before a token was shown."""
        return self._keeper.tokens is not None

    @property
    def is_void(self) -> bool:
        """Whether the token that was shown opens the door no more."""
        tokens, digest = self._keeper.tokens, self._digest
        return digest is not None and tokens is not None and digest not in tokens

    @property
    def is_given_up(self) -> bool:
        """Whether no further token is looked at."""
        return self._wrong_count >= TRIES_MAX

    def delay_s(self) -> float:
        """Return how long to wait before the next token is shown. Nothing, once that was waited for."""
        if self._has_waited or self.is_given_up or not self.needs_token:
            return 0.0
        delay_s = self._keeper.delay_s(self._host)
        self._has_waited = delay_s > 0
        return delay_s

    def show(self, request: Request) -> Reply:
        """Look at the token of a request; what was shown before counts no more."""
        keeper, operation = self._keeper, request.operation
        self._has_waited = False
        if keeper.tokens is None:
            return Reply("ok")
        if self.is_given_up:
            return Reply("unauthorized", message="too many tokens were shown that open nothing here")
        assert isinstance(operation, Auth)
        self._digest = keeper.find(operation.token)
        if self._digest is None:
            self._wrong_count += 1
            keeper.note_failure(self._host)
            keeper.emit(ClientNotAuthenticated(self._client, self._peer, self._wrong_count))
            return Reply("unauthorized", message="this token opens nothing here")
        holder = keeper.tokens[self._digest]
        role = "read" if holder.is_reader else "write"
        keeper.emit(ClientAuthenticated(self._client, self._peer, holder.name, role))
        return Reply("ok")

    @property
    def holder_name(self) -> str | None:
        """Whose token was shown; None: nobody's, or it opens nothing any more."""
        tokens, digest = self._keeper.tokens, self._digest
        holder = None if tokens is None or digest is None else tokens.get(digest)
        return None if holder is None else holder.name

    def refuse(self, request: Request) -> Reply | None:
        """Return why a request must not be carried out; None if it may."""
        keeper, operation = self._keeper, request.operation
        if isinstance(operation, Auth):
            return None
        if keeper.tokens is not None:
            holder = None if self._digest is None else keeper.tokens.get(self._digest)
            if holder is None:
                return Reply("unauthorized", message=_SHOW_FIRST if self._digest is None else _NO_MORE)
            if holder.is_reader and not only_reads(operation):
                message = f"the token of {holder.name} may only read, and {operation.name} is more than that"
                return Reply("unauthorized", message=message)
        return keeper.limits.refuse(operation)

    def narrow(self, request: Request) -> Request:
        """Return a request that may be carried out, as the door carries it out."""
        return self._keeper.limits.narrow(request)


_SHOW_FIRST = 'show a token first: {"op": "auth", "token": ...}'
_NO_MORE = "the token that was shown opens nothing here any more; show another one"


def only_reads(operation: object) -> bool:
    """Return whether an operation changes nothing. What is not known to read alone counts as a write."""
    if isinstance(operation, Query | Ping | Status | Watch | Unwatch):
        return True
    # A transaction may have nothing but reads in both branches.
    return not getattr(operation, "is_write", True)
