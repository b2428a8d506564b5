"""What tests of the simulator share."""

import pytest

from trio_kv.raft.messages import RequestVote
from trio_kv.raft.node import Raft


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a bug into the code under test: a node votes twice in a term."""
    real = Raft._on_request_vote

    def on_request_vote(self: Raft, now: float, message: RequestVote) -> None:
        if self.vote not in {None, self.id}:
            self.vote = None
        real(self, now, message)

    monkeypatch.setattr(Raft, "_on_request_vote", on_request_vote)
