"""The replicated state machine: keys, conditions, client sessions, digests."""
