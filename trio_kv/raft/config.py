"""The numbers of one consensus group, each with its unit and its limit."""

import attrs
from attrs import validators


@attrs.frozen(kw_only=True)
class RaftConfig:
    """How a node of a fixed membership behaves.

    Raises:
        ValueError: a number is out of its range, or the time-outs don't fit together.

    """

    election_timeout_min_s: float = attrs.field(default=0.2, validator=validators.gt(0))
    election_timeout_max_s: float = attrs.field(default=0.4)
    heartbeat_interval_s: float = attrs.field(default=0.06, validator=validators.gt(0))
    commit_delay_s: float = attrs.field(default=0.005, validator=validators.ge(0))
    """A commit index that rides on nothing else is told on its own after this long; 0: at once."""
    spare_delay_s: float = attrs.field(default=0.03, validator=validators.ge(0))
    """A follower that no commit waits for is sent together what has gathered in this time; 0: at once."""
    append_bytes_max: int = attrs.field(default=1 << 20, validator=validators.ge(1))
    """An AppendEntries takes entries until it has more bytes than this; it takes one in any case."""
    append_entries_max: int = attrs.field(default=1024, validator=validators.ge(1))
    append_window: int = attrs.field(default=16, validator=validators.ge(1))
    """AppendEntries in flight to one follower; further entries wait for an answer."""
    append_window_entries: int = attrs.field(default=2048, validator=validators.ge(1))
    """So many entries in flight to one follower fill the window, too: a heartbeat comes behind them."""
    append_window_bytes: int = attrs.field(default=2 << 20, validator=validators.ge(1))
    """And so many bytes."""
    committed_entries_max: int = attrs.field(default=1024, validator=validators.ge(1))
    """Entries in one `Ready.committed`: applying them must not take long, also after a start with a long log."""
    log_entries_kept: int = attrs.field(default=4096, validator=validators.ge(0))
    """Entries kept behind a snapshot for followers that are a little late."""
    write_stall_s: float = attrs.field(default=2.0, validator=validators.gt(0))
    """A leader whose oldest write is not durable after this long steps down (scenario E1)."""

    @election_timeout_max_s.validator
    def _is_above_min(self, _: object, value: float) -> None:
        if value <= self.election_timeout_min_s:
            raise ValueError(f"election_timeout_max_s must be above election_timeout_min_s, not {value}")

    @heartbeat_interval_s.validator
    def _is_below_election(self, _: object, value: float) -> None:
        if value * 2 > self.election_timeout_min_s:
            raise ValueError(
                f"heartbeat_interval_s must be at most half of election_timeout_min_s, not {value}"
            )
