"""`rebuild --cluster`: gives a node that has a host of its own a new directory, as high as the other hosts know.

The host that lost its disk does not know which incarnation its node had. The others do (decision 0051).
"""

from collections.abc import Mapping
from pathlib import Path
from random import SystemRandom
from typing import Final

import trio

from trio_kv.cli.cluster_file import ClusterFile, read_cluster_file
from trio_kv.cli.errors import NotDoneError
from trio_kv.cli.failures import explain_os_error
from trio_kv.cli.host import layout_of, secure
from trio_kv.cli.output import ExitCode, Output
from trio_kv.cli.rebuild import show_rebuilt
from trio_kv.storage.errors import LockedError
from trio_kv.storage.host import make_host_directory, open_host_directory
from trio_kv.storage.manifest import MANIFEST_NAME
from trio_kv.storage.rebuild import check_enough, rebuild_node
from trio_kv.transport.asking import ask_all
from trio_kv.transport.peers import Identity
from trio_kv.transport.tls import CertificateError

ASK_S: Final = 5.0
"""How long the other hosts are waited for."""


def rebuild_host(
    node: int, cluster: Path, data_dir: Path | None, output: Output, *, is_insecure: bool
) -> ExitCode:
    """Carry out `rebuild --cluster`; return the exit code.

    Raises:
        UsageError: the file can't be used, or has no such node.
        NotDoneError, StorageError: nothing was done.

    """
    file = read_cluster_file(cluster)
    place = data_dir or file.peer(node).data_dir
    file.check_access(is_insecure=is_insecure)
    try:
        known, reasons = trio.run(_ask, file, node)
    except CertificateError as error:
        raise NotDoneError(f"the other hosts would not take this one: {error}") from error
    others = [other for other in file.nodes if other != node]
    check_enough(
        file.nodes,
        node,
        {other: reasons.get(other, "it did not answer") for other in others if other not in known},
        "Start the others, and ask again. Those that are lost, too, leave nothing to do but to restore a backup into"
        " a new cluster.",
    )
    try:
        moved_to = _rebuild(file, node, place, known)
    except LockedError as error:
        raise NotDoneError(
            f"{error.message}\nIf that is the server, let it do it: trio-kv ctl rebuild {node}"
        ) from error
    except OSError as error:
        raise NotDoneError(explain_os_error(error, place)) from error
    show_rebuilt(node, moved_to, output, "When it is started, the")
    return ExitCode.OK


def _rebuild(file: ClusterFile, node: int, place: Path, known: Mapping[int, int]) -> Path | None:
    """Make a new directory, or give the one that is there a new node; return where the former node is."""
    random, highest, nodes = SystemRandom(), max(known.values()), len(file.nodes)
    if not (place / MANIFEST_NAME).exists():
        make_host_directory(
            place, cluster=file.cluster, nodes=nodes, node=node, random=random, replaces=highest
        ).close()
        return None
    with open_host_directory(place, cluster=file.cluster, nodes=nodes, node=node) as directory:
        return rebuild_node(directory, node, random, running=known.keys(), known=highest)


async def _ask(file: ClusterFile, node: int) -> tuple[Mapping[int, int], Mapping[int, str]]:
    """Return what the other hosts know of a node, and why some of them don't say it."""
    security = await trio.to_thread.run_sync(secure, file, node)
    identity = Identity(
        layout=layout_of(file, node),
        cluster=file.cluster,
        secret=file.secret,
    )
    asked = await ask_all(identity, security, timeout_s=ASK_S)
    return {process: known[node] for process, known in asked.known.items()}, asked.reasons
