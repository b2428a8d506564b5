"""`rebuild`: gives a node whose files are lost or damaged a new directory, while no server runs."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from random import SystemRandom
from typing import Any

from trio_kv.cli.errors import NotDoneError
from trio_kv.cli.failures import explain_os_error
from trio_kv.cli.output import ExitCode, Output, show, show_json
from trio_kv.storage.data_directory import open_data_directory
from trio_kv.storage.errors import LockedError
from trio_kv.storage.manifest import MANIFEST_NAME
from trio_kv.storage.rebuild import rebuild_node


def rebuild(node: int, data_dir: Path, output: Output) -> ExitCode:
    """Carry out `rebuild`; return the exit code. Raises NotDoneError or StorageError if nothing was done."""
    try:
        if not (data_dir / MANIFEST_NAME).exists():
            raise NotDoneError(f"there is no cluster in {data_dir}: name its --data-dir")
        with open_data_directory(data_dir, random=SystemRandom()) as directory:
            if node not in directory.nodes:
                nodes = ", ".join(map(str, directory.nodes))
                raise NotDoneError(f"there is no node {node}: the nodes are {nodes}")
            moved_to = rebuild_node(directory, node, SystemRandom())
    except LockedError as error:
        there = f"--data-dir {shlex.quote(str(data_dir))}"
        raise NotDoneError(
            f"{error.message}\nIf that is the server, let it do it: trio-kv ctl rebuild {node} {there}"
        ) from error
    except OSError as error:
        raise NotDoneError(explain_os_error(error, data_dir)) from error
    show_rebuilt(node, moved_to, output, "When the server is started, the")
    return ExitCode.OK


def show_rebuilt(node: int, moved_to: Path | None, output: Output, beginning: str) -> None:
    """Show that a node has a new directory; see `describe_rebuilt`."""
    members = {"node": node, "moved_to": None if moved_to is None else str(moved_to)}
    if output == "json":
        show_json(members)
    else:
        show(describe_rebuilt(node, members, beginning))


def describe_rebuilt(node: int, members: Mapping[str, Any], beginning: str) -> str:
    """Return what a person is told of a rebuild that has begun.

    Args:
        node: which node.
        members: `moved_to`, if there was an old directory.
        beginning: of the sentence that tells what happens next, up to "other nodes".

    """
    moved_to = members.get("moved_to")
    moved = f"Its old one is now {moved_to}: remove it when the node is up again.\n" if moved_to else ""
    return (
        f"Node {node} has a new, empty directory.\n{moved}"
        f"{beginning} other nodes fill it. Until it has all that was committed, it votes for nobody and counts\n"
        "for no majority; `trio-kv status` shows how far it is."
    )
