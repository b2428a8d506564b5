"""The commands and their options. What they do stands in the modules beside this one.

One-shot commands don't import Trio: a script that calls them in a loop feels every tenth of a second.
"""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import attrs
import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number
from msgspec import UNSET

from trio_kv import __version__
from trio_kv.cli import chaos, config, control, sim, top, wal
from trio_kv.cli.bench import command as bench
from trio_kv.cli.command_line import explain_misplaced, is_only_help, reorder
from trio_kv.cli.errors import UsageError
from trio_kv.cli.failures import explain_failure
from trio_kv.cli.options import ServeOptions
from trio_kv.cli.output import ExitCode, Output, parse_value, read_value, say, show_answer
from trio_kv.cli.parsing import (
    DATA_DIR_DEFAULT,
    PARAMETER,
    Host,
    NaturalNumber,
    Node,
    ReplyOutput,
    ServerPort,
    TimeToLive,
    flag,
    option,
    read_variables,
)
from trio_kv.cli.status import show_status
from trio_kv.cli.streams import StandardStreams
from trio_kv.cli.trace import command as trace
from trio_kv.cli.way import WayOptions
from trio_kv.cli.words import examples
from trio_kv.client.addresses import DEFAULT_PORT
from trio_kv.client.client import Client
from trio_kv.kv.operations import Cas, Delete, Get, Set
from trio_kv.wire.operations import TIMEOUT_S_DEFAULT, TIMEOUT_S_MAX, Request, Status

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
for command in (bench, chaos, config, control, wal, sim, top, trace):
    app.command(command.app)


def _check_timeout(_type: object, timeout_s: float) -> None:
    if timeout_s > TIMEOUT_S_MAX:
        raise ValueError(f"over the protocol's limit of {TIMEOUT_S_MAX:g}")


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Target(WayOptions):
    """Which server to ask, and how long to wait."""

    host: Annotated[Host, option("Address of the server.", "HOST")] = "127.0.0.1"
    port: Annotated[ServerPort, option("Its port for clients.", "PORT")] = DEFAULT_PORT
    timeout_s: Annotated[
        float,
        option(
            "Seconds to wait, at most 60.",
            *("TIMEOUT", "--timeout"),
            validator=[Number(gt=0), _check_timeout],
        ),
    ] = TIMEOUT_S_DEFAULT

    def connect(self, on_reconnected: Callable[[str], None] | None = None) -> Client:
        """Return a client; it connects when it is first used."""
        return Client(
            self.host,
            self.port,
            timeout_s=self.timeout_s,
            on_reconnected=on_reconnected,
            token=self.token(),
            tls=self.tls(),
        )


Key = Annotated[str, option("1 to 4096 bytes; behind -- if it begins with a hyphen.")]
Value = Annotated[str, option("JSON; what is no JSON is taken as a string; - takes all of stdin.")]
Revision = Annotated[NaturalNumber | None, option("Only if the key has this revision; 0: must not exist.")]

DataDir = Annotated[Path, option("Where the nodes keep their logs and snapshots.", "DATA_DIR")]

DEFAULT_TARGET = Target()
DEFAULT_OPTIONS = ServeOptions()


@app.default
def default(*, options: Annotated[ServeOptions, Parameter(name="*")] = DEFAULT_OPTIONS) -> ExitCode:
    """Run the store, as `serve` does."""
    return serve(options=options)


@app.command(
    help_epilogue=examples(
        "python -m trio_kv serve --nodes 3 --data-dir /var/lib/trio_kv",
        "python -m trio_kv serve --ephemeral --port 0 --log-json",
        "TRIO_KV_PORT=4001 python -m trio_kv serve --trace run.jsonl",
    )
)
def serve(*, options: Annotated[ServeOptions, Parameter(name="*")] = DEFAULT_OPTIONS) -> ExitCode:
    """Run the store: a cluster of nodes in one process, and its doors."""
    options.check()
    from trio_kv.cli.serve import serve as run_server

    return run_server(options)


@app.command(
    help_epilogue=examples(
        "trio-kv client                            # a shell; `help` inside tells the commands",
        "echo 'get snack' | trio-kv client",
        'echo \'{"op":"status"}\' | trio-kv client',
    )
)
def client(*, target: Target = DEFAULT_TARGET) -> ExitCode:
    """Open a shell that takes commands and raw lines of the protocol."""
    from trio_kv.cli.shell import run_shell

    return run_shell(target.connect(on_reconnected=say))


@app.command(
    help_epilogue=examples(
        "trio-kv get snack",
        "trio-kv get snack --output json          # with revision, node and term",
        "trio-kv get snack --stale                # from one follower, at once",
        "trio-kv get notes --raw >notes.txt       # a string as it is, to the byte",
    )
)
def get(
    key: Key,
    /,
    *,
    stale: Annotated[bool, flag("Be content with what one follower knows.")] = False,
    raw: Annotated[
        bool,
        flag("Print a string as the text that it is, to the byte, with no line end added; all else as JSON."),
    ] = False,
    output: ReplyOutput = "table",
    target: Target = DEFAULT_TARGET,
) -> ExitCode:
    """Print the value of a key: a string as bare text where that is not ambiguous, all else as JSON."""
    if raw and output == "json":
        raise UsageError("--raw prints the value alone, and --output json all of the answer: leave out one")
    return _ask(Get(key), output, target, is_stale=stale, is_raw=raw)


@app.command(
    help_epilogue=examples(
        "trio-kv set snack chips",
        "trio-kv set limits '{\"retries\": 3}'",
        "trio-kv set snack nuts --if-revision 17",
        "trio-kv set code 4711 --ttl 60",
        "trio-kv set notes - <notes.txt",
        'trio-kv set copy -- "$(trio-kv get snack)"',
    )
)
def set(
    key: Key,
    value: Value,
    /,
    *,
    if_revision: Revision = None,
    ttl: TimeToLive = None,
    output: ReplyOutput = "table",
    target: Target = DEFAULT_TARGET,
) -> ExitCode:
    """Give a key a value."""
    text, revision = read_value(value), UNSET if if_revision is None else if_revision
    return _ask(Set(key, text, revision, UNSET if ttl is None else ttl), output, target)


@app.command(
    help_epilogue=examples("trio-kv delete snack", "trio-kv delete snack --if-revision 17"),
)
def delete(
    key: Key,
    /,
    *,
    if_revision: Revision = None,
    output: ReplyOutput = "table",
    target: Target = DEFAULT_TARGET,
) -> ExitCode:
    """Remove a key and print the value it had."""
    return _ask(Delete(key, UNSET if if_revision is None else if_revision), output, target)


@app.command(
    help_epilogue=examples(
        "trio-kv cas lock alice                    # only if there is no lock",
        "trio-kv cas lock bob --expected alice",
    )
)
def cas(
    key: Key,
    value: Value,
    /,
    *,
    expected: Annotated[
        str | None,
        option("The value it must have now; left out: the key must not exist."),
    ] = None,
    ttl: TimeToLive = None,
    output: ReplyOutput = "table",
    target: Target = DEFAULT_TARGET,
) -> ExitCode:
    """Give a key a value if it now has the expected one."""
    old = UNSET if expected is None else parse_value(expected)
    text = read_value(value)
    return _ask(Cas(key, text, old, UNSET if ttl is None else ttl), output, target)


def _ask(
    operation: Get | Set | Delete | Cas,
    output: Output,
    target: Target,
    *,
    is_stale: bool = False,
    is_raw: bool = False,
) -> ExitCode:
    with target.connect() as store:
        answer = store.ask(Request(operation, is_stale=is_stale, meta=output == "json"))
    return show_answer(answer, output, has_value=operation.has_result, is_raw=is_raw)


@app.command(
    help_epilogue=examples("trio-kv status", "trio-kv status --output json"),
)
def status(*, output: ReplyOutput = "table", target: Target = DEFAULT_TARGET) -> ExitCode:
    """Show every node, the leader with a star: role, state, term, how far its log goes; and what is wrong.

    Below the nodes stands, in words, why one is not up, what is broken on purpose, and what ends it.
    """
    with target.connect() as store:
        answer = store.ask(Request(Status()))
    if answer.code != "ok":
        return show_answer(answer, output, has_value=False)
    return show_status(msgspec.json.decode(answer.line), output)


@app.command(
    help_epilogue=examples("trio-kv keys", "trio-kv keys user/ --limit 0", "trio-kv keys --output json"),
)
def keys(
    prefix: Annotated[str, option("What the keys begin with.")] = "",
    /,
    *,
    limit: Annotated[NaturalNumber, option("How many to show at most; 0 for all.")] = 1000,
    door: control.SlowDoorOptions = control.DEFAULT_SLOW_DOOR,
) -> ExitCode:
    """List the keys of a running cluster on this machine, in order: those of one moment after the command began.

    A node takes a snapshot for it, as for a backup. Keys that could be misread are shown as JSON strings.
    """
    from trio_kv.cli.keys import keys as list_keys

    return list_keys(prefix, door, limit=limit)


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
    output: ReplyOutput = "table",
) -> ExitCode:
    """Make a new cluster, in a new data directory, that begins with what a backup holds."""
    from trio_kv.cli.backup import restore as run_restore

    return run_restore(file, data_dir, nodes=nodes, output=output)


@app.command(
    help_epilogue=examples("trio-kv rebuild 2", "trio-kv rebuild 2 --data-dir /var/lib/trio_kv"),
)
def rebuild(
    node: control.NodeNumber,
    /,
    *,
    data_dir: DataDir = DATA_DIR_DEFAULT,
    output: ReplyOutput = "table",
) -> ExitCode:
    """Give a node whose files are lost or damaged a new directory, while no server runs.

    The other nodes fill it when the server is started. The old directory is moved aside, never deleted. With a running
    server: `trio-kv ctl rebuild`.
    """
    from trio_kv.cli.rebuild import rebuild as run_rebuild

    return run_rebuild(node, data_dir, output)


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
