"""Bugs of who may ask: tokens, roles, guesses, limits, and what is read anew."""

from typing import Any

import msgspec

from tests.mutants.registry import Patch, mutant
from trio_kv.cli import config_file, parsing
from trio_kv.kv.reply import Reply
from trio_kv.proxy import access, tls_stream
from trio_kv.proxy.access import Admission, Doorkeeper
from trio_kv.proxy.limits import Limits
from trio_kv.proxy.server import Proxy
from trio_kv.proxy.session import Session
from trio_kv.wire.operations import Request
from trio_kv.wire.replies import encode_reply

ORDER = "test_the_command_line_counts_more_than_variables_and_these_more_than_the_file"


def unit(*names: str) -> tuple[str, ...]:
    """Return tests of who may ask."""
    return tuple(f"tests/unit/test_access.py::{name}" for name in names)


def sockets(*names: str) -> tuple[str, ...]:
    """Return tests of TLS and tokens over sockets."""
    return tuple(f"tests/integration/test_tls.py::{name}" for name in names)


@mutant(
    "access: what a token opens is looked up when it is shown",
    tests=unit("test_a_token_that_is_taken_away_counts_no_more", "test_a_token_may_become_a_readers"),
)
def _(patch: Patch) -> None:
    real = Admission.show

    def show(self: Admission, request: Request) -> Reply:
        reply = real(self, request)
        # It goes on with the table of this moment.
        self._keeper = Doorkeeper(self._keeper.tokens, self._keeper.limits, lambda: 0.0, self._keeper.emit)
        return reply

    patch.setattr(Admission, "show", show)


@mutant(
    "access: a pipeline is judged before its token", tests=unit("test_a_pipeline_may_begin_with_its_token")
)
def _(patch: Patch) -> None:
    real = Session._begin_block

    def begin_block(self: Session) -> None:
        real(self)
        self._decoder.go_on(self._items, 0)
        for place in range(len(self._items)):
            self._admit(place)

    patch.setattr(Session, "_begin_block", begin_block)


@mutant("access: plain pipelines are not looked at", tests=unit("test_a_plain_pipeline_is_looked_at_as_well"))
def _(patch: Patch) -> None:
    real = Session._take_plain

    def take_plain(self: Session, items: list[Request]) -> Any:
        admission, self._admission = self._admission, None
        step = real(self, items)
        self._admission = admission
        return step

    patch.setattr(Session, "_take_plain", take_plain)


@mutant("C8 access: a reader may do what is not known to write", tests=unit("test_C8_a_reader_may_not_write"))
def _(patch: Patch) -> None:
    kinds = {"set", "delete", "cas", "incr"}
    patch.setattr(access, "only_reads", lambda operation: operation.name not in kinds)


@mutant(
    "access: a write that the store has is told as refused",
    tests=unit("test_a_write_that_the_store_has_is_unknown_whatever_became_of_its_token"),
)
def _(patch: Patch) -> None:
    def admit(self: Session, place: int) -> Any:
        item = self._items[place]
        if self._admission is None or type(item) is bytes:
            return item
        if (refusal := self._admission.refuse(item)) is not None:
            item = self._items[place] = encode_reply(item, refusal)
        return item

    patch.setattr(Session, "_admit", admit)


@mutant("access: a guess is looked at at once", tests=unit("test_a_guess_waits_before_it_is_looked_at"))
def _(patch: Patch) -> None:
    patch.setattr(Admission, "delay_s", lambda self: 0.0)


@mutant("access: everybody waits for who guesses", tests=unit("test_nobody_else_waits_for_who_guesses"))
def _(patch: Patch) -> None:
    real = Doorkeeper.note_failure
    patch.setattr(Doorkeeper, "note_failure", lambda self, host: real(self, "all"))
    real_delay = Doorkeeper.delay_s
    patch.setattr(Doorkeeper, "delay_s", lambda self, host: real_delay(self, "all"))


@mutant("access: all hosts that ever guessed are kept", tests=unit("test_guesses_are_forgotten"))
def _(patch: Patch) -> None:
    patch.setattr(access, "HOSTS_MAX", 1 << 30)


@mutant("access: an unlimited number of guesses", tests=unit("test_guesses_are_slowed_down_and_end"))
def _(patch: Patch) -> None:
    patch.setattr(Admission, "is_given_up", property(lambda self: False))


@mutant("access: the token stands in an event", tests=unit("test_events_have_names_and_no_tokens"))
def _(patch: Patch) -> None:
    real = Admission.show

    def show(self: Admission, request: Request) -> Reply:
        self._peer = f"{self._peer} {msgspec.json.encode(request.operation).decode()}"
        return real(self, request)

    patch.setattr(Admission, "show", show)


@mutant("access: a key's characters are counted, and not its bytes", tests=unit("test_limits_of_a_door"))
def _(patch: Patch) -> None:
    real = Limits.refuse

    def refuse(self: Limits, operation: Any) -> Reply | None:
        key = getattr(operation, "key", None)
        return (
            None
            if key is not None and len(key) <= self.key_bytes_max < len(key.encode())
            else real(self, operation)
        )

    patch.setattr(Limits, "refuse", refuse)


@mutant("access: a reload ends all connections", tests=sockets("test_tokens_change_beneath_open_connections"))
def _(patch: Patch) -> None:
    def change_tokens(self: Proxy, tokens: Any) -> None:
        self._keeper.tokens = tokens
        for connection in list(self._connections):
            connection.retire(b"", "reload")

    patch.setattr(Proxy, "change_tokens", change_tokens)


@mutant("tls: a handshake may take its time", tests=sockets("test_handshakes_that_stall_cost_nobody_else"))
def _(patch: Patch) -> None:
    async def shake_hands(self: Proxy, stream: Any) -> None:
        await stream.shake_hands()

    patch.setattr(Proxy, "_shake_hands", shake_hands)


@mutant(
    "tls: a door that stops waits for handshakes",
    tests=sockets("test_a_door_that_stops_waits_for_no_handshake"),
)
def _(patch: Patch) -> None:
    real = Proxy.stop

    async def stop(self: Proxy) -> None:
        self._handshakes = set()
        await real(self)

    patch.setattr(Proxy, "stop", stop)


@mutant(
    "tls: who speaks plainly is told nothing", tests=sockets("test_a_client_that_speaks_plainly_is_told_so")
)
def _(patch: Patch) -> None:
    patch.setattr(tls_stream, "SPEAKS_TLS", b"")


@mutant(
    "config: the file counts more than a variable",
    tests=(f"tests/unit/test_config.py::{ORDER}",),
)
def _(patch: Patch) -> None:
    real = config_file.read_config_file

    def read(arguments: Any) -> None:
        for argument in arguments:
            if argument.name != "--config" and argument.tokens and argument.tokens[0].source == "env":
                argument.tokens.clear()
        real(arguments)

    patch.setattr(parsing, "read_config_file", read)
