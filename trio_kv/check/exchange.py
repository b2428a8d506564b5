"""A request of the protocol and its reply, as the lines had them: what `check.replay` judges, and histories hold.

A request tells all that it asks for, on however many keys, and a reply all that came of it: whoever knows the protocol
can read them. Nothing here knows how a store represents either.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import attrs
import msgspec

Members = Mapping[str, msgspec.Raw]

FAILED_CODES = frozenset(
    {
        "bad_request",
        "too_large",
        "unauthorized",
        "unavailable",
        "overloaded",
        "read_only",
        "compacted",
    }
)
"""Codes that promise that nothing was applied and nothing will be."""
READS = frozenset({"get", "scan"})

decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode_list = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode


@attrs.frozen(eq=False, slots=False)
class Exchange:
    """A request, over all attempts of its client under one session and seq, and its reply.

    Raises:
        ValueError: one of them is no JSON object, or the moments contradict each other.

    """

    client: int
    request: bytes
    """A JSON object: `op`, and the members that say what is asked for."""
    call_s: float
    """When it was asked first, on the one clock of the history."""
    return_s: float | None = None
    """When it was answered first; None if it never was."""
    reply: bytes | None = None
    """The line, or a JSON object with the same members; None if none came."""

    def __attrs_post_init__(self) -> None:
        for name, text in (("request", self.request), ("reply", self.reply)):
            try:
                _ = {} if text is None else decode_members(text)
            except msgspec.DecodeError as error:
                raise ValueError(f"the {name} is no JSON object: {error}") from error
        if not math.isfinite(self.call_s):
            raise ValueError(f"call_s is {self.call_s}, not a moment")
        if self.return_s is not None and not self.call_s <= self.return_s < math.inf:
            raise ValueError(f"return_s {self.return_s} is before call_s {self.call_s}, or not a moment")
        if (self.return_s is None) != (self.reply is None):
            raise ValueError("a reply needs its return_s, and a return_s its reply")

    @cached_property
    def asked(self) -> Members:
        """The members of the request."""
        return decode_members(self.request)

    @cached_property
    def told(self) -> Members:
        """The members of the reply."""
        return {} if self.reply is None else decode_members(self.reply)

    @cached_property
    def op(self) -> str:
        """What is asked for; of a line without `op` it is a set or a get."""
        asked = self.asked
        return str(read(asked, "op", "set" if "value" in asked else "get"))

    @cached_property
    def outcome(self) -> str:
        """How it ended.

        ok; missing: there was no such key; conflict: a condition did not hold; failed: it had no effect and never will;
        unknown: it may have taken effect, or may yet.
        """
        told = self.told
        if read(told, "status") == "ok":
            return "ok"
        if not told:
            return self.lost
        code = read(told, "error")
        if code is None and "close" not in told:
            return "missing"
        # Who says good-bye in the place of a reply has answered all that it took before.
        if code is None or code in FAILED_CODES:
            return "failed"
        return "conflict" if code == "conflict" else self.lost

    @property
    def lost(self) -> str:
        """What it means if nobody says what became of it."""
        return "failed" if self.is_read else "unknown"

    @property
    def is_read(self) -> bool:
        """Whether it changes nothing, whatever comes of it."""
        return self.op in READS

    @cached_property
    def is_stale(self) -> bool:
        """Whether it may be told what was true once."""
        return self.is_read and read(self.asked, "consistency") == "stale"

    @cached_property
    def revision(self) -> int | None:
        """The revision in the reply, if it has one."""
        found = read(self.told, "revision")
        return found if isinstance(found, int) else None

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The keys that it names, in their order; a scan names none."""
        if self.op == "scan":
            return ()
        if self.op != "txn":
            return (read(self.asked, "key"),)
        parts = [part for name in ("if", "then", "else") for part in read_list(self.asked, name)]
        return tuple(sorted({read(part, "key") for part in parts}))

    @property
    def end_s(self) -> float:
        """Until when it is drawn."""
        return self.call_s if self.return_s is None else self.return_s

    @property
    def node(self) -> int:
        """Who answered; 0 if the reply does not say."""
        return int(read(self.told, "node", 0))

    @property
    def key(self) -> str:
        """What it is about, in words."""
        return f"{read(self.asked, 'prefix', '')}…" if self.op == "scan" else ", ".join(self.keys)

    def __str__(self) -> str:
        end = "never answered" if self.return_s is None else f"answered at {self.return_s:.6f} s"
        told = "nothing" if self.reply is None else self.reply.decode(errors="replace").strip()
        asked = self.request.decode(errors="replace").strip()
        return f"client {self.client}'s {asked} (asked at {self.call_s:.6f} s, {end}), told {told}"


def read(members: Members, name: str, default: Any = None) -> Any:
    """Return a member as a Python value."""
    text = members.get(name)
    return default if text is None else msgspec.json.decode(text)


def read_list(members: Members, name: str) -> list[dict[str, msgspec.Raw]]:
    """Return a member that is a list of objects; an empty list if there is none."""
    text = members.get(name)
    return [] if text is None else decode_list(text)


def encode_exchange(exchange: Exchange) -> bytes:
    """Return its line in a history, with its end.

    Raises:
        ValueError: request or reply holds an end of line within.

    """
    texts = {"request": exchange.request.strip()}
    if exchange.reply is not None:
        texts["reply"] = exchange.reply.strip()
    if any(b"\n" in text or b"\r" in text for text in texts.values()):
        raise ValueError(f"{exchange} holds an end of line; write each as one line of JSON")
    members = {"client": exchange.client, "call_s": exchange.call_s, "return_s": exchange.return_s}
    return msgspec.json.encode(members | {name: msgspec.Raw(text) for name, text in texts.items()}) + b"\n"


def decode_exchange(members: Members) -> Exchange:
    """Read a line of a history back.

    Raises:
        ValueError: it is none; it says what would be right.

    """
    kinds: Mapping[str, Any] = {"client": int, "call_s": float, "return_s": float | None}
    strange = sorted({*members} - {*kinds, "request", "reply"})
    if strange:
        raise ValueError(f"there is no member {strange[0]}; known are {', '.join(kinds)}, request, reply")
    found: dict[str, Any] = {}
    for name, kind in kinds.items():
        try:
            found[name] = msgspec.json.decode(members[name], type=kind) if name in members else None
        except msgspec.DecodeError as error:
            raise ValueError(f"{name}: {error}") from error
    if found["client"] is None or found["call_s"] is None:
        raise ValueError(f"the member {'client' if found['client'] is None else 'call_s'} is missing")
    reply = members.get("reply")
    return Exchange(**found, request=bytes(members["request"]), reply=None if reply is None else bytes(reply))
