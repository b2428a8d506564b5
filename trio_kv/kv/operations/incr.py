"""`incr`: add to a whole number."""

import re
from collections.abc import Sequence
from typing import Annotated, Final

from msgspec import UNSET, Meta, Raw, UnsetType

from trio_kv.kv.operations.operation import Context, KeyWrite, Ttl, encode_key_and_value
from trio_kv.kv.reply import Reply

DIGITS_MAX: Final = 18
"""Of a whole number that is counted with: it fits into 64 bits everywhere."""

NUMBER_MAX: Final = 10**DIGITS_MAX - 1


class Incr(KeyWrite, frozen=True, gc=False, tag="incr"):
    """Add to the whole number that a key holds; a missing key counts as 0."""

    words = "[--ttl=TTL] KEY [BY]"
    purpose = "add BY, or 1, to a whole number, print the sum"
    has_result = True

    by: Annotated[int, Meta(ge=-NUMBER_MAX, le=NUMBER_MAX)] = 1
    ttl: Ttl | UnsetType = UNSET
    """Seconds for which the key is kept from now on; left out: as long as before."""

    @property
    def size_bytes(self) -> int:
        """Bytes of its texts."""
        return len(self.key)

    def apply(self, context: Context) -> Reply:
        """Add, if the key holds a whole number and the sum is one, too."""
        item = context.items.get(self.key)
        text = b"0" if item is None else item.value
        if not _whole_number(text):
            return context.refuse(
                self.key, item, f"the key does not hold a whole number of at most {DIGITS_MAX} digits"
            )
        total = int(bytes(text)) + self.by
        if abs(total) > NUMBER_MAX:
            return context.refuse(self.key, item, f"the sum would have more than {DIGITS_MAX} digits")
        return context.put(self.key, Raw(b"%d" % total), item, context.end_of(self.ttl, item), is_told=True)

    def encode_members(self, reply: Reply) -> Sequence[bytes | Raw]:
        """Tell the key and the sum."""
        assert reply.value is not None, f"{reply} to {self} has no value"
        return encode_key_and_value(self.key, reply.value)


_whole_number = re.compile(rb"-?(?:0|[1-9][0-9]{0,%d})" % (DIGITS_MAX - 1)).fullmatch
"""By its text: `1.0` and `1e3` are other texts, whatever they are worth."""
