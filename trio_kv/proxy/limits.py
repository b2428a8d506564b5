"""How long the texts of a request may be at this door, where that is less than the protocol allows."""

from collections.abc import Iterator
from typing import Any, Final

import attrs
import msgspec

from trio_kv.kv.operations.operation import KEY_BYTES_MAX
from trio_kv.kv.operations.scan import PAGE_ITEMS_MAX, Scan
from trio_kv.kv.reply import Reply
from trio_kv.wire.client_sessions import Numbered, OpenOrRenew
from trio_kv.wire.operations import LINE_BYTES_LIMIT, Request

VALUE_BYTES_LIMIT: Final = LINE_BYTES_LIMIT
"""No value can be longer: it stands in a line."""


@attrs.frozen
class Limits:
    """The limits of a door. A door's alone: the log holds what any door ever took."""

    key_bytes_max: int = KEY_BYTES_MAX
    """Of each key, and of each prefix."""
    value_bytes_max: int = VALUE_BYTES_LIMIT
    """Of the text of each value that is to be stored, or compared."""

    page_items_max: int = PAGE_ITEMS_MAX
    """Of each page of a scan: who asks for more gets as many."""

    @property
    def is_wide(self) -> bool:
        """Whether no request can be over them that the protocol takes."""
        return (
            self.key_bytes_max >= KEY_BYTES_MAX
            and self.value_bytes_max >= VALUE_BYTES_LIMIT
            and self.page_items_max >= PAGE_ITEMS_MAX
        )

    def narrow(self, request: Request) -> Request:
        """Return a request that asks for no more than there is at this door."""
        operation = request.operation
        if not isinstance(operation, Scan) or operation.limit <= self.page_items_max:
            return request
        page = msgspec.structs.replace(operation, limit=self.page_items_max)
        return msgspec.structs.replace(request, operation=page)

    def refuse(self, operation: msgspec.Struct) -> Reply | None:
        """Return the answer to an operation that is over a limit; None if it is within all of them."""
        if self.is_wide or isinstance(operation, OpenOrRenew):
            return None
        if isinstance(operation, Numbered):
            # The id of a session is no key.
            operation = operation.operation
        for name, text in texts_of(operation):
            size, most = len(text), self.value_bytes_max
            if isinstance(text, str):
                size, most = len(text.encode()), self.key_bytes_max
            if size > most:
                return Reply("too_large", message=f'"{name}" has {size} bytes; this server takes {most}')
        return None


def texts_of(operation: Any) -> Iterator[tuple[str, str | msgspec.Raw]]:
    """Yield the texts in an operation, and in the parts that it has: keys as strings, values as JSON."""
    for name in operation.__struct_fields__:
        part = getattr(operation, name)
        if isinstance(part, str | msgspec.Raw):
            yield name, part
        elif isinstance(part, msgspec.Struct):
            yield from texts_of(part)
        elif isinstance(part, list | tuple):
            for each in part:
                if isinstance(each, msgspec.Struct):
                    yield from texts_of(each)
