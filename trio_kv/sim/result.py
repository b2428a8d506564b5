"""What a run came to."""

import attrs


@attrs.frozen(kw_only=True)
class Result:
    """What a run came to."""

    trace_hash: str
    events: int
    operations: int
    crashes: int
    simulated_s: float
    recovered_after_s: float
    """From healing until all followed one leader."""
    coverage: dict[str, int]
    """How often each situation was reached."""
    text_hash: str = ""
    """SHA-256 of the trace's text, if it was asked for."""
