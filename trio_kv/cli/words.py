"""Words for people: numbers of things, and nodes."""

from collections.abc import Iterable


def count(number: int, thing: str, things: str = "") -> str:
    """Return a number of things as people say it.

    >>> count(1, "key"), count(1200, "key"), count(2, "entry", "entries")
    ('1 key', '1,200 keys', '2 entries')
    """
    return f"{number:,} {thing if number == 1 else things or f'{thing}s'}"


def join(words: Iterable[object]) -> str:
    """Return words as an enumeration.

    >>> join([1]), join([1, 2]), join([1, 2, 3])
    ('1', '1 and 2', '1, 2 and 3')
    """
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last


def examples(*lines: str, more: str = "") -> str:
    """Return what stands below a command's help: command lines, and what else there is to say."""
    return "\n".join(["Examples:\n", *(f"  $ {line}" for line in lines), *([f"\n{more}"] if more else ())])
