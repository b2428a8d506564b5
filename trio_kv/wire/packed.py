"""Messages of one kind byte and a msgpack array of members: what the codecs between processes share.

Members are decoded by types, whose limits are all that is believed of them: nothing that a peer says of a length makes
anything large.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

Number = Annotated[int, Meta(ge=0)]
"""Which any whole number of msgpack is that isn't negative: up to 64 bits."""

encode: Final = msgspec.msgpack.Encoder().encode
"""Return the bytes of a tuple of members."""


def decoder(members: Any) -> Callable[[Any], Any]:
    """Return what decodes the members of a message, given their type."""
    return msgspec.msgpack.Decoder(members).decode


class Kinds:
    """The messages of one codec, each with a letter of its own."""

    def __init__(self, members: Mapping[bytes, Any], error: type[ValueError]) -> None:
        """Take the type of the members of each kind, and what to raise for bytes that are no message."""
        self._decoders = {kind: decoder(types) for kind, types in members.items()}
        self._error = error

    def split(self, data: bytes) -> tuple[bytes, Any]:
        """Return the kind and the members of a message; raise the codec's error where it is none."""
        kind = data[:1]
        decode = self._decoders.get(kind)
        if decode is None:
            raise self._error(
                f"no message begins with {kind!r}: right would be one of {sorted(self._decoders)}"
            )
        return kind, self.decode(decode, data[1:])

    def decode(self, decode: Callable[[Any], Any], data: Any) -> Any:
        """Return what `decode` makes of a part of a message; raise the codec's error where it can't."""
        try:
            return decode(data)
        except (ValueError, RecursionError) as error:
            raise self._error(f"malformed: {error}") from error
