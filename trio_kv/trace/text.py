"""Texts of others' making (keys, values, names of files, words of the system), made fit to be shown.

Two things are kept away: what a terminal would obey instead of show (control characters, also the C1 ones, and marks
that turn the direction of writing), and what an encoding lacks (half of a surrogate pair, which is how Python holds the
bytes of a file name that is not UTF-8). Both are shown as the escapes that JSON has for them, so that a JSON text stays
the same JSON.
"""

import codecs
from typing import Any

import msgspec

ESCAPED = "trio_kv.escaped"
"""Name of an error handler for `str.encode`: what the encoding lacks is shown as a JSON escape."""


def printable(text: str) -> str:
    r"""Return a text with each character that is not printable (`str.isprintable`) as a JSON escape.

    >>> printable('"red \x9b31m"')
    '"red \\u009b31m"'
    """
    return _escape_all(text, kept="")


def printable_json(text: str) -> str:
    """Return a JSON text that says the same, of printable characters and white space only."""
    # White space stands between its values only: inside a string it is escaped already.
    return _escape_all(text, kept="\t\n\r")


def printable_lines(text: str) -> str:
    """Return a text of several lines, or of JSON, for people: its lines stay lines, other white space is a blank."""
    return printable_json(text.translate({ord("\t"): " ", ord("\r"): " "}))


def encodable(text: str) -> str:
    """Return a text with each lone surrogate, which UTF-8 can't say, as a JSON escape."""
    return text.encode(errors=ESCAPED).decode()


def encode_json(members: Any) -> bytes:
    """Return what JSON says of `members`, with escapes for what it would be wrong or unsafe to print.

    Args:
        members: dicts, lists and tuples of what msgspec encodes; of anything else, its `str`.

    """
    try:
        data = _encode(members)
    except UnicodeEncodeError:
        data = _encode(_encodable_members(members))
    # JSON itself escapes the controls of ASCII but the last one.
    is_plain = data.isascii() and b"\x7f" not in data
    return data if is_plain else printable_json(data.decode()).encode()


def _encodable_members(members: Any) -> Any:
    match members:
        case str():
            return encodable(members)
        case dict():
            return {_encodable_members(name): _encodable_members(value) for name, value in members.items()}
        case list() | tuple():
            return [_encodable_members(value) for value in members]
        case None | bool() | int() | float() | msgspec.Raw():
            return members
        case _:
            return encodable(str(members))


def _escape_all(text: str, kept: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in kept else _escape(char) for char in text)


def _escape(char: str) -> str:
    if char in _SHORT:
        return _SHORT[char]
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _escape_lacking(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_encode = msgspec.json.Encoder(enc_hook=str).encode
codecs.register_error(ESCAPED, _escape_lacking)
