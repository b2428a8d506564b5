"""Judges over what nodes tell: from the events of a run alone, was it right?

The other judges of this room look into running nodes, step by step; these have nothing but the trace. So the same
code judges a file from a live cluster, and a simulated run that is told.

- `story` is what is known: of each node its term, log and indexes, as it told them, and what the cluster has committed.
- `terms` says which entry stands at an index of a log of which only the end is known.
- `contents` compares what entries hold, by checksums of runs of them.
- `elections`, `logs`, `commits` and `machines` are the judges, each with its properties.
- `jury` shows them each event, in order, and tells what led to the one that broke something.

What is missing from a trace makes the verdict *unknown*, never *violated*: from there on nothing is taken as known of
a node until it starts again. What the cluster once did stays true all the same: two leaders of one term are two
leaders, whatever was lost between them.
"""
