"""The commands of `cluster` and their options. What they do stands in `cluster_setup`."""

from pathlib import Path
from typing import Annotated

from cyclopts import App

from trio_kv.cli.output import ExitCode
from trio_kv.cli.parsing import Node, OutputOption, flag, option
from trio_kv.cli.words import examples

CLUSTER_FILE = Path("cluster.toml")
NODES_DEFAULT = "127.0.0.1:4001,127.0.0.1:4002,127.0.0.1:4003"

app = App(
    name="cluster",
    help="Prepare a cluster whose nodes live on hosts of their own.",
    help_format="plaintext",
    help_epilogue=examples(
        "trio-kv cluster init setup --nodes 10.0.0.1:4001,10.0.0.2:4001,10.0.0.3:4001",
        "trio-kv cluster create --cluster setup/cluster.toml --node 1",
    ),
)

ClusterFilePath = Annotated[
    Path, option("The file that says who there is, the same on all hosts.", "CLUSTER")
]
OwnNode = Annotated[Node | None, option("Which of its nodes this host has.", "NODE")]


@app.command(
    help_epilogue=examples(
        "trio-kv cluster init setup                # three nodes on this machine, to try it",
        "trio-kv cluster init setup --nodes n1.example:4001,n2.example:4001,n3.example:4001 --with-certificates",
        more="No file is ever overwritten.",
    )
)
def init(
    directory: Annotated[Path, option("Where to put it.")],
    /,
    *,
    nodes: Annotated[str, option("Where the nodes reach each other: HOST:PORT,...")] = NODES_DEFAULT,
    with_certificates: Annotated[
        bool,
        flag("Make a CA and certificates, too; needs trio-kv[certificates]."),
    ] = False,
    output: OutputOption = "text",
) -> ExitCode:
    """Write a cluster.toml for a new cluster and, on demand, a small CA with certificates to try it with."""
    from trio_kv.cli.cluster_setup import init as run

    return run(directory, nodes, output, has_certificates=with_certificates)


@app.command(
    help_epilogue=examples(
        "trio-kv cluster create --cluster /etc/trio_kv/cluster.toml --node 2",
        "trio-kv cluster create --node 2 --data-dir /var/lib/trio_kv/data",
        more="This is done once in a node's life. A directory that is missing later is a lost disk: a node that began"
        " anew would have forgotten what it promised.",
    )
)
def create(
    *,
    cluster: ClusterFilePath = CLUSTER_FILE,
    node: OwnNode = None,
    data_dir: Annotated[
        Path | None, option("Where the node keeps its log. [default: as the file has it]", "DATA_DIR")
    ] = None,
    output: OutputOption = "text",
) -> ExitCode:
    """Make the data directory of this host's node, before it is started for the first time."""
    from trio_kv.cli.cluster_setup import create as run

    return run(cluster, node, data_dir, output)
