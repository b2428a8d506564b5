"""One process of a cluster that has several: its nodes, and the links to the others."""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Self

import attrs
import trio

from trio_kv.cluster.cluster import Cluster
from trio_kv.cluster.config import ClusterConfig
from trio_kv.cluster.disks import Disks
from trio_kv.cluster.elsewhere import encode_look
from trio_kv.cluster.homing import Homing
from trio_kv.cluster.node import Node
from trio_kv.cluster.others import LOOK, Others
from trio_kv.cluster.registry import FIRST_PROCESS
from trio_kv.trace.trace import Trace
from trio_kv.transport.links import Links
from trio_kv.transport.memory import MemoryNetwork
from trio_kv.transport.peers import Identity, Layout
from trio_kv.transport.secure import Plain, Security
from trio_kv.transport.tcp import Listener, TcpLinks


@attrs.frozen
class ClusterProcess:
    """The nodes of this process, and what joins them to those of others."""

    cluster: Cluster
    others: Others
    links: TcpLinks
    homing: Homing | None
    """Sees to it that the leader is where the doors are; None if they are here, as on a host they always are."""

    @classmethod
    def make(
        cls,
        disks: Disks,
        layout: Layout,
        config: ClusterConfig,
        trace: Trace,
        random: Random,
        *,
        secret: str = "",
        security: Security | None = None,
        network: MemoryNetwork | None = None,
        make_node: Callable[..., Node] = Node,
        is_host: bool = False,
    ) -> Self:
        """Make a process that does not run yet.

        Args:
            disks: where its nodes live.
            layout: all processes, and which one this is.
            config: time-outs and limits.
            trace: takes all events.
            random: seeds what the nodes draw.
            secret: what all processes of the cluster know.
            security: opens connections to others, and takes theirs; None: TCP alone.
            network: joins the nodes here; None: one of its own.
            make_node: see `Cluster`.
            is_host: see `Others`.

        """
        if network is None:
            network = MemoryNetwork(Links(Random(random.getrandbits(64))))
        identity = Identity(layout=layout, cluster=disks.cluster, secret=secret)
        cluster = Cluster(
            disks,
            config,
            trace,
            random,
            network,
            make_node=make_node,
            here=layout.here,
            process=layout.own,
        )
        others = Others(cluster.registry, network, identity, cluster.lives, is_host=is_host)
        # A half-open connection is noticed within two election time-outs.
        silence_s = 2 * config.raft.election_timeout_max_s
        cluster.others = others
        security = Plain() if security is None else security
        others.links = TcpLinks(identity, others, network, trace, security=security, silence_s=silence_s)
        others.calls[LOOK] = partial(_show, cluster)
        homing = None
        home = layout.nodes.get(FIRST_PROCESS)
        if home is not None and layout.own != FIRST_PROCESS:
            homing = Homing(cluster.registry, cluster.running, home)
        return cls(cluster, others, others.links, homing)

    async def run(self, listeners: Sequence[Listener]) -> None:
        """Run the nodes and the links until cancelled.

        Args:
            listeners: where the other processes call. They are closed at the end.

        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.cluster.run)
            nursery.start_soon(self.run_links, listeners)

    async def run_links(self, listeners: Sequence[Listener]) -> None:
        """Run the links alone, for who runs the cluster by other ways."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.others.run)
            if self.homing is not None:
                nursery.start_soon(self.homing.run)
            nursery.start_soon(self.links.run, listeners)


async def _show(cluster: Cluster, payload: bytes) -> bytes:
    """Let another process look at the nodes here."""
    del payload
    await trio.lowlevel.checkpoint()
    return encode_look(cluster.look_here())
