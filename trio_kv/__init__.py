"""A replicated key-value store on Raft and Trio: run it, watch it, break it, prove it right.

`python -m trio_kv` starts a whole cluster in one process. The packages are the rooms of a house: each uses
only rooms on lower floors, and `docs/architecture.md` draws the plan.
"""

__version__ = "0.1.0"
