"""The commands and their options. What they do stands in the modules beside this one.

One-shot commands don't import Trio: a script that calls them in a loop feels every tenth of a second.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NoReturn

from cyclopts import App, Parameter

from trio_kv import __version__
from trio_kv.cli import chaos, cluster, config, control, sim, store, top, wal
from trio_kv.cli.bench import command as bench
from trio_kv.cli.command_line import explain_misplaced, is_only_help, reorder
from trio_kv.cli.errors import UsageError
from trio_kv.cli.failures import explain_failure
from trio_kv.cli.options import ServeOptions
from trio_kv.cli.output import ExitCode, say
from trio_kv.cli.parsing import (
    DATA_DIR_DEFAULT,
    PARAMETER,
    Node,
    ReplyOutput,
    flag,
    option,
    read_variables,
)
from trio_kv.cli.streams import StandardStreams
from trio_kv.cli.target import Quiet, Target
from trio_kv.cli.trace import command as trace
from trio_kv.cli.words import examples

EXIT_CODES = (
    "Exit codes: 0 done · 1 not done: not found, refused, or a condition did not hold · 2 usage, also help in the"
    " place of a word · 3 not done: no connection, or no leader · 4 outcome unknown · 70 an unexpected error · 74 done,"
    " but the output could not be written · 130 interrupted. Those of chaos, sim, trace and wal are in their help."
)


app = App(
    name="trio-kv",
    help="A replicated key-value store on Raft. Without a command: serve.",
    version=__version__,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=PARAMETER,
    config=read_variables,
    help_format="plaintext",
    help_epilogue=examples(
        "python -m trio_kv                         # five nodes, clients on port 3001",
        "trio-kv set snack chips && trio-kv get snack",
        "trio-kv status",
        "trio-kv top                               # the same as it changes, with rates and events",
        "trio-kv ctl crash 1",
        "trio-kv backup today.snap",
        more=EXIT_CODES,
    ),
)
for command in (bench, chaos, cluster, config, control, wal, sim, top, trace):
    app.command(command.app)
app.command(store.app, name="*")

DataDir = Annotated[Path, option("Where the nodes keep their logs and snapshots.", "DATA_DIR")]

DEFAULT_OPTIONS = ServeOptions()
DEFAULT_TARGET = Target()
STREAM = Path("-")
"""Stands for stdin, or stdout."""


@app.default
def default(*, options: Annotated[ServeOptions, Parameter(name="*")] = DEFAULT_OPTIONS) -> ExitCode:
    """Run the store, as `serve` does."""
    return serve(options=options)


@app.command(
    help_epilogue=examples(
        "python -m trio_kv serve --nodes 3 --data-dir /var/lib/trio_kv",
        "python -m trio_kv serve --ephemeral --port 0 --log-json",
        "TRIO_KV_PORT=4001 python -m trio_kv serve --trace run.jsonl",
        "python -m trio_kv serve --processes 2",
        "python -m trio_kv serve --cluster /etc/trio_kv/cluster.toml --node 2",
    )
)
def serve(*, options: Annotated[ServeOptions, Parameter(name="*")] = DEFAULT_OPTIONS) -> ExitCode:
    """Run the store: a cluster of nodes in one process or in several, or one node of several hosts, and its doors."""
    if options.cluster is not None:
        from trio_kv.cli.host import for_host

        options = for_host(options)
    options.check()
    from trio_kv.cli.serve import serve as run_server

    return run_server(options)


@app.command(
    help_epilogue=examples(
        "trio-kv backup today.snap",
        "trio-kv backup today.snap --data-dir /var/lib/trio_kv --force",
    )
)
def backup(
    file: Annotated[Path, option("Where to put it. It gets its name when it is whole.")],
    /,
    *,
    force: Annotated[bool, flag("Replace a file that is there.")] = False,
    door: control.SlowDoorOptions = control.DEFAULT_SLOW_DOOR,
) -> ExitCode:
    """Copy all data of a running cluster into a file: every write acknowledged before is in it."""
    from trio_kv.cli.backup import backup as run_backup

    return run_backup(file, door, is_forced=force)


@app.command(
    help_epilogue=examples(
        "trio-kv restore today.snap --data-dir new-data",
        "trio-kv restore trio_kv-data/node-3/snapshot-*.snap --data-dir new-data --nodes 3",
    )
)
def restore(
    file: Annotated[Path, option("A backup, or the newest .snap file of any node.")],
    /,
    *,
    data_dir: DataDir = DATA_DIR_DEFAULT,
    nodes: Annotated[Node, option("Nodes of the new cluster, 1 to 9.", "NODES")] = 5,
    output: ReplyOutput = "text",
) -> ExitCode:
    """Make a new cluster, in a new data directory, that begins with what a backup holds."""
    from trio_kv.cli.backup import restore as run_restore

    return run_restore(file, data_dir, nodes=nodes, output=output)


@app.command(
    help_epilogue=examples(
        "trio-kv rebuild 2",
        "trio-kv rebuild 2 --data-dir /var/lib/trio_kv",
        "trio-kv rebuild 2 --cluster /etc/trio_kv/cluster.toml",
    ),
)
def rebuild(
    node: control.NodeNumber,
    /,
    *,
    data_dir: DataDir = DATA_DIR_DEFAULT,
    cluster_file: Annotated[
        Path | None,
        option(
            "Where nodes have hosts of their own, the file of all. On the node's.", "CLUSTER", "--cluster"
        ),
    ] = None,
    is_insecure: Annotated[bool, flag("As serve has it.", "INSECURE", "--insecure")] = False,
    output: ReplyOutput = "text",
) -> ExitCode:
    """Give a node whose files are lost or damaged a new directory, while no server has it.

    The other nodes fill it when it is started. The old directory is moved aside, never deleted. With a running
    server: `trio-kv ctl rebuild`. On hosts of their own the others must run: they are asked what the node was.
    """
    if cluster_file is not None:
        from trio_kv.cli.rebuild_host import rebuild_host

        place = None if data_dir == DATA_DIR_DEFAULT else data_dir
        return rebuild_host(node, cluster_file, place, output, is_insecure=is_insecure)
    from trio_kv.cli.rebuild import rebuild as run_rebuild

    return run_rebuild(node, data_dir, output)


@app.command(
    name="export",
    help_epilogue=examples(
        "trio-kv export >today.jsonl",
        "trio-kv export today.jsonl --prefix user/",
        "trio-kv export --from-backup today.snap | jq .key",
        more='A line a key, in the order of the keys: {"key":"lock","value":"alice","revision":7,"ttl":12.5}; "ttl", in'
        " seconds, for keys alone that end.",
    ),
)
def export_lines(
    file: Annotated[
        Path, option("Where to put it: a file, which gets its name when it is whole, or -.")
    ] = STREAM,
    /,
    *,
    prefix: Annotated[str, option("Only keys that begin so.")] = "",
    from_backup: Annotated[Path | None, option("Take what a backup holds, and ask no server.")] = None,
    force: Annotated[bool, flag("Replace a file that is there.")] = False,
    is_quiet: Quiet = False,
    door: control.SlowDoorWay = control.DEFAULT_SLOW_WAY,
) -> ExitCode:
    """Write keys and values of a running cluster on this machine as JSON lines: one state, all of the same moment.

    A node takes a snapshot for it, as for a backup: every write acknowledged before is in it.
    """
    from trio_kv.cli.transfer import export_keys

    source = door if from_backup is None else from_backup
    return export_keys(source, file, prefix, is_forced=force, is_quiet=is_quiet)


@app.command(
    name="import",
    help_epilogue=examples(
        "trio-kv import today.jsonl",
        "trio-kv export | trio-kv import --port 4001",
        "jq -c '{key: .name, value: .}' people.jsonl | trio-kv import",
        more='A line is {"key":"lock","value":"alice"}, and may have a "ttl" in seconds; a "revision" is passed over.'
        " Keys that are there are overwritten, others stay.",
    ),
)
def import_lines(
    file: Annotated[Path, option("What to read: a file of JSON lines, or - for stdin.")] = STREAM,
    /,
    *,
    output: ReplyOutput = "text",
    is_quiet: Quiet = False,
    target: Target = DEFAULT_TARGET,
) -> ExitCode:
    """Give keys the values that JSON lines say, in their order, many in one transaction."""
    from trio_kv.cli.transfer import import_keys

    return import_keys(file, target, output, is_quiet=is_quiet)


@app.command(
    help_epilogue=examples(
        'eval "$(trio-kv completion bash)"         # for this shell',
        "trio-kv completion fish >~/.config/fish/completions/trio-kv.fish",
        'trio-kv completion zsh >"${fpath[1]}/_trio-kv"',
    )
)
def completion(shell: Annotated[Literal["bash", "zsh", "fish"], option("The shell.")], /) -> ExitCode:
    """Print a script by which a shell completes commands and options."""
    from trio_kv.cli.output import show

    show(app.generate_completion(prog_name="trio-kv", shell=shell))
    return ExitCode.OK


def main(tokens: Sequence[str] | None = None) -> int:
    """Carry out a command line and return its exit code.

    Args:
        tokens: the arguments; those of the process if None.

    """
    try:
        return _carry_out(sys.argv[1:] if tokens is None else tokens)
    except (Exception, BaseExceptionGroup, KeyboardInterrupt) as error:  # noqa: BLE001 - the net under all commands
        return explain_failure(error)


def run() -> NoReturn:
    """Carry out the process' command line and exit."""
    streams = StandardStreams()
    sys.exit(streams.end(main()))


def _carry_out(tokens: Sequence[str]) -> int:
    """Carry out a command line and return its exit code; all that goes wrong is raised."""
    refusal = _refusal()
    if refusal is not None:
        raise UsageError(refusal)
    words = reorder(app, tokens)
    is_help = is_only_help(app, words)
    if is_help is None:
        misplaced = explain_misplaced(app, words)
        if misplaced is not None:
            raise UsageError(misplaced)
    code: int = app(words, exit_on_error=False, print_error=False) or ExitCode.OK
    if is_help is False:
        say("this is help, and nothing of the rest was done; a word that begins with - is data behind --")
        return ExitCode.USAGE
    return code


def _refusal() -> str | None:
    """Return why nothing at all can be done, if so."""
    if os.name == "nt":
        return "Windows is not supported: the log needs fdatasync and POSIX locks. Try WSL"
    if not __debug__:
        return "python -O removes the asserts that guard the data: run without it"
    return None
