"""Words for people."""

import pytest

from trio_kv.cli.words import count, join


@pytest.mark.parametrize(
    ("number", "shown"), [(0, "0 keys"), (1, "1 key"), (2, "2 keys"), (1_234_567, "1,234,567 keys")]
)
def test_one_of_a_thing_is_singular(number: int, shown: str) -> None:
    """A number and its noun agree, and long numbers can be read."""
    assert count(number, "key") == shown
    assert count(number, "entry", "entries").endswith("entry" if number == 1 else "entries")


def test_words_are_joined_as_people_do() -> None:
    """Commas, and one `and`."""
    assert [join(words) for words in (["a"], ["a", "b"], [1, 2, 3])] == ["a", "a and b", "1, 2 and 3"]
