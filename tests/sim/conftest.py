"""What tests of the simulator share."""

import pytest

from trio_kv.raft.messages import RequestVote
from trio_kv.raft.role import Role


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a bug into the code under test: a node votes twice in a term."""
    real = Role.on_request_vote

    def on_request_vote(self: Role, now: float, message: RequestVote) -> None:
        if self.raft.vote not in {None, self.raft.id}:
            self.raft.vote = None
        real(self, now, message)

    monkeypatch.setattr(Role, "on_request_vote", on_request_vote)
