"""The state machine equals a model of it that was written independently."""

import pytest

from tests.reference_model import Comparison


@pytest.mark.parametrize("seed", range(2))
def test_the_state_machine_equals_the_model(seed: int) -> None:
    """Replies, keys in their order, what ends when, digests of two machines; across cuts, snapshots, restarts."""
    comparison = Comparison(seed)
    comparison.run(10_000)
    assert comparison.model.ended > 50
    assert set(comparison.codes) == {
        "ok",
        "missing",
        "conflict",
        "session_expired",
        "bad_request",
        "overloaded",
    }
