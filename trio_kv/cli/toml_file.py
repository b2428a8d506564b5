"""Reading a file in TOML that a person has written: what can't be read, or has a key that there is not, is told."""

import difflib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from trio_kv.cli.errors import UsageError

FILE_BYTES_MAX: Final = 1 << 20


def read_toml(path: str | Path) -> dict[str, Any]:
    """Return what a file holds.

    Raises:
        UsageError: it can't be read, or is no TOML; says which and why.

    """
    try:
        # Not to wait for a writer, if it is a pipe.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    if len(content) > FILE_BYTES_MAX:
        raise UsageError(f"{path} has more than {FILE_BYTES_MAX} bytes, which no file of options has")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not TOML: {str(error) or 'nested too deep'}") from error


def hint_key(key: str, known: Iterable[str]) -> str:
    """Return what would be right in the place of a key that there is not."""
    known = sorted(known)
    near = difflib.get_close_matches(key.lower().replace("_", "-"), known, 1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"


def kind_of(value: object) -> str:
    """Return what a value is, as a person calls it.

    >>> kind_of({}), kind_of([1]), kind_of("x"), kind_of(True)
    ('a table', 'a list', "'x'", 'true')
    """
    match value:
        case dict():
            return "a table"
        case list():
            return "a list"
        case bool():
            return str(value).lower()
        case str() | int() | float():
            return repr(value)
        case _:
            return "a date or a time"
