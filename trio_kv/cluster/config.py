"""How a cluster of one process is run."""

import attrs
from attrs import validators

from trio_kv.cluster.inbox import PEERS_MAX, REQUESTS_MAX
from trio_kv.raft.config import RaftConfig


@attrs.frozen(kw_only=True)
class ClusterConfig:
    """What all nodes of a cluster share."""

    raft: RaftConfig = attrs.field(factory=RaftConfig)
    restart_delay_min_s: float = attrs.field(default=1.0, validator=validators.gt(0))
    """A crashed node comes back after this long; each further crash in a row doubles it."""
    restart_delay_max_s: float = attrs.field(default=30.0, validator=validators.gt(0))
    restart_calm_s: float = attrs.field(default=60.0, validator=validators.gt(0))
    """A node that lived this long has no crashes in a row behind it any more."""
    inbox_peers_max: int = attrs.field(default=PEERS_MAX, validator=validators.ge(1))
    """Messages of peers that wait at a node; further ones are lost, and sent again."""
    inbox_requests_max: int = attrs.field(default=REQUESTS_MAX, validator=validators.ge(1))
    """Requests of the gateway that wait at a node; further ones are refused."""
