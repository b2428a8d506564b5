"""One node's brain: Raft and the state machine joined, and who waits for what. Synchronous and pure."""
