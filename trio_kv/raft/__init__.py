"""Raft, as a pure function of what happens to one node.

**The problem.** Several nodes must agree on one growing list of commands, the log, although any of them may stop and
start again at any time, and the network may lose, delay, double and reorder what they say to each other. What a
majority has on disk must stay; what only a minority has may go.

An election
===========

Time is cut into *terms*, numbered from 1. A term has at most one leader, because a node votes once a term and a
leader needs a majority of the *voters* (`voters.Voters`), and two majorities share a node (paper §5.2).

Nodes 1, 2 and 3 are in term 4; node 1 led it and has died. (`tests/scripts/raft/elections_first.txt` shows another
one, message by message.)::

    n2 hears no leader for 0.2 to 0.4 s (`follower.Follower.on_timeout`)
    n2@4 -> n3 RequestPreVote last=9@4      would you vote for me?
    n3@4 -> n2 PreVoteReply granted         my log ends at 9@4 too, and I hear no leader either
    n2 writes to its disk: term 5, vote for itself
    n2@5 -> n3 RequestVote last=9@4         leaves when that write is durable
    n3 writes to its disk: term 5, vote for node 2
    n3@5 -> n2 VoteReply granted            leaves when that write is durable
    n2 leads term 5, and appends entry 10@5, a no-op

1. A follower's time-out is drawn anew each time, so that two rarely stand at once.
2. The pre-vote (thesis §9.6) disturbs nobody: no term changes. Without it a node that was cut off for a while would
   come back with a high term and depose a leader that works.
3. A vote goes only to a log that is at least as up to date as the voter's (§5.4.1). So a leader has all that was ever
   committed.
4. A vote is a promise, so it is on disk before it leaves: a node that crashed and forgot it could vote twice. `Ready`
   holds such messages back until the write behind them is done (`persistence`).
5. Each role is a class (`follower`, `candidate`, `leader`; what all do alike is in `role`). A role never replaces
   itself: it returns a `Transition`, and `node.Raft` makes the next role.

A write
=======

Only the leader appends. A client's command becomes entry 11 of term 5::

    n2.propose([command])                                   entry 11@5
    n2@5 -> n1, n3 AppendEntries base=10@5 [11@5] commit=10 at once, while n2's own disk writes it too
    n3 has 10@5: it appends 11@5, and writes it to its disk
    n3@5 -> n2 AppendAccepted match=11                      leaves when that write is durable
    n2's own write is durable: 2 of 3 have 11@5             committed; n2 applies it and answers the client
    n2@5 -> n3 Heartbeat round=0 base=11@5 commit=11        n3 applies it; the next append may tell it before

1. An append names the entry before its own (`base`). A follower that has another one there refuses, with a hint where
   to look, and drops its own tail where it contradicts the leader's, and only there. So two logs that have the same
   term at the same index are equal up to there (§5.3). `progress.Progress` is what the leader knows of one follower.
2. An entry is committed once a majority has it *on disk* and it is of the leader's own term (§5.4.2); all before it
   is committed along with it. That is why a leader opens its term with a no-op (§8).
3. A follower takes the leader's commit index only as far as the message has verified its log.
4. The commit index needs no disk: it is found again.

A read needs no entry (`reads`; thesis §6.4): a leader that proves by a round of heartbeats that it still leads may
let a read be answered from what was committed when the read came. Followers ask it for that index, and serve. Where the
leader and one follower are a majority, of three nodes, the follower's question is proof enough.

A log can't grow for ever (§7): what a durable snapshot holds is forgotten, and a follower that needs it gets the
snapshot instead, chunk by chunk (`install`).

Caveats
=======

- Membership is fixed: `Voters` knows two sets of voters for the time of a change, and nothing makes a change yet.
- There is no lease: each read takes a round of messages, and no clock has to be right.
- A message that can't come from a correct node raises, for example from a second leader in one term: going on would
  spread the damage. The node ends then, and comes back from its disk.
- `docs/divergence.md` lists all that differs from the paper; ids such as E3 are explained in `docs/scenarios.md`.

Where to look: `node.Raft` is the class to drive, and lists the driver's duties. `state.NodeState` is what a node
keeps. `log`, `entry`, `messages`, `events` and `ready` are the words that all of them use.
"""
