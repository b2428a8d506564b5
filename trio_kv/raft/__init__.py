"""Raft, as a pure function of what happens to one node.

**The problem.** Several nodes must agree on one growing list of commands, the log, although any of them
may stop and start again at any time, and the network may lose, delay, double and reorder what they say
to each other. What a majority has on disk must stay; what only a minority has may go.

**Terms and leaders** (paper §5.1, §5.2). Time is cut into terms. A term has at most one leader, because
a node votes once a term and a leader needs a majority. A node that hears no leader for a randomly drawn
time asks first whether it would win (a pre-vote, thesis §9.6), which disturbs nobody, and only then
enters a new term and stands for election. A vote goes only to a log that is at least as up to date as
the voter's (§5.4.1), so a leader's log holds everything that was ever committed.

**The log** (§5.3). Only the leader appends commands. It sends entries along with what stands right
before them; a follower that has something else there says so, with a hint where to look, and drops its
own tail where it contradicts the leader's. So two logs that have the same term at the same index are
equal up to there.

**Commitment** (§5.4.2). An entry is committed once a majority has it *on disk* and it belongs to the
leader's own term; everything before it is committed along with it. A leader therefore opens its term
with an entry of its own, a no-op (§8).

**Reads** (thesis §6.4). Reads need no entry: a leader that proves by a round of heartbeats that it still
leads may let a read be answered from what was committed when the read came. Followers ask the leader for
that index.

**What the disk must hold.** Term and vote before anybody hears of them, entries before they are
acknowledged: `Ready` keeps the messages that say so back until the write behind them is done. The commit
index needs no disk: it is found again.

**Snapshots** (§7). A log can't grow for ever: what a durable snapshot holds is forgotten, and a follower that
needs it gets the snapshot instead, chunk by chunk.

**What this is not** (see docs/divergence.md): membership is fixed, and there is no lease.

Where to look: `node.Raft` is the class to drive and lists the driver's duties; `follower`, `candidate`
and `leader` hold a rule each where the paper has it, and `role` the rules of voting, the same for all;
`server.Server` is the state that they move on; `persistence` knows what the disk still lacks; `log`,
`progress`, `reads` and `voters` are the parts they share.
"""
