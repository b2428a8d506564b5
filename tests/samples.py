"""Which of many like cases the default run takes. The others are marked `thorough`: `--thorough` alone runs them."""

from collections.abc import Callable, Hashable, Iterable
from typing import Any

import pytest


def first_of(cases: Iterable[Any], count: int) -> list[Any]:
    """Return parameters of a test, of which the default run takes so many, the first ones.

    Args:
        cases: a value each, or a tuple of several.
        count: how many.

    """
    return [_parameters(case, is_taken=place < count) for place, case in enumerate(cases)]


def one_of_each(cases: Iterable[Any], kind: Callable[[Any], Hashable]) -> list[Any]:
    """Return parameters of a test, of which the default run takes the first of each kind.

    Args:
        cases: a value each, or a tuple of several.
        kind: gives what is the same in cases of which one is enough.

    """
    seen: set[Hashable] = set()
    parameters = []
    for case in cases:
        parameters.append(_parameters(case, is_taken=kind(case) not in seen))
        seen.add(kind(case))
    return parameters


def _parameters(case: Any, *, is_taken: bool) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=() if is_taken else pytest.mark.thorough)
