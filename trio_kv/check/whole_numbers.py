"""Whole numbers as `incr` counts with them, for the judges. Shares no code with `kv`."""


def is_whole(text: bytes) -> bool:
    """Return whether a text is that of a whole number of up to 18 digits."""
    digits = text.removeprefix(b"-")
    return digits.isdigit() and len(digits) <= 18 and (digits == b"0" or not digits.startswith(b"0"))


def add(text: bytes, by: int) -> bytes:
    """Return the text of a whole number and so much more."""
    return b"%d" % (int(text) + by)
