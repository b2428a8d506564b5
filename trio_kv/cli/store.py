"""The commands that ask the store, an operation each, and the shell. `main` has all of them, and the others.

How to tell what came of one stands in `output`; pages, watches and transactions stand in `ranges`.
"""

from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number
from msgspec import UNSET, UnsetType

from trio_kv.cli.errors import UsageError
from trio_kv.cli.output import ExitCode, parse_value, read_text, read_value, show_answer
from trio_kv.cli.parsing import NUMBER_MAX, Count, NaturalNumber, TimeToLive, flag, option
from trio_kv.cli.status import show_status
from trio_kv.cli.target import Asking, Target
from trio_kv.cli.words import examples
from trio_kv.kv.operations import Cas, Delete, Get, Incr, Set
from trio_kv.wire.operations import Request, Status

app = App(name="store", help_format="plaintext")

Key = Annotated[str, option("1 to 4096 bytes; behind -- if it begins with a hyphen.")]
Value = Annotated[
    str | None,
    option("JSON; what is no JSON is taken as a string; - takes all of stdin.", show_default=False),
]
ValueFile = Annotated[Path | None, option("The value is all of this file; - is stdin.")]
Revision = Annotated[NaturalNumber | None, option("Only if the key has this revision; 0: must not exist.")]
Stale = Annotated[bool, flag("Be content with what one follower knows.")]

Member = TypeVar("Member")

DEFAULT_TARGET = Target()
DEFAULT_ASKING = Asking()


def _or_unset(value: Member | None) -> Member | UnsetType:
    return UNSET if value is None else value


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

    return run_shell(target)


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
    stale: Stale = False,
    raw: Annotated[
        bool,
        flag("Print a string as the text that it is, to the byte, with no line end added; all else as JSON."),
    ] = False,
    asking: Asking = DEFAULT_ASKING,
) -> ExitCode:
    """Print the value of a key: a string as bare text where that is not ambiguous, all else as JSON."""
    if raw and asking.output != "text":
        raise UsageError(
            f"--raw prints the value alone, and --output {asking.output} more of the answer: leave out one"
        )
    return _ask(Get(key), asking, is_stale=stale, is_raw=raw)


@app.command(
    help_epilogue=examples(
        "trio-kv set snack chips",
        "trio-kv set limits '{\"retries\": 3}'",
        "trio-kv set snack nuts --if-revision 17",
        "trio-kv set code 4711 --ttl 60",
        "trio-kv set notes - <notes.txt",
        "trio-kv set notes --file notes.txt",
        'trio-kv set copy -- "$(trio-kv get snack)"',
    )
)
def set(
    key: Key,
    value: Value = None,
    /,
    *,
    file: ValueFile = None,
    if_revision: Revision = None,
    ttl: TimeToLive = None,
    asking: Asking = DEFAULT_ASKING,
) -> ExitCode:
    """Give a key a value."""
    return _ask(Set(key, read_value(value, file), _or_unset(if_revision), _or_unset(ttl)), asking)


@app.command(
    help_epilogue=examples("trio-kv delete snack", "trio-kv delete snack --if-revision 17"),
)
def delete(key: Key, /, *, if_revision: Revision = None, asking: Asking = DEFAULT_ASKING) -> ExitCode:
    """Remove a key and print the value it had."""
    return _ask(Delete(key, _or_unset(if_revision)), asking)


@app.command(
    help_epilogue=examples(
        "trio-kv cas lock alice                    # only if there is no lock",
        "trio-kv cas lock bob --expected alice",
    )
)
def cas(
    key: Key,
    value: Value = None,
    /,
    *,
    file: ValueFile = None,
    expected: Annotated[
        str | None,
        option("The value it must have now; left out: the key must not exist."),
    ] = None,
    ttl: TimeToLive = None,
    asking: Asking = DEFAULT_ASKING,
) -> ExitCode:
    """Give a key a value if it now has the expected one."""
    old = UNSET if expected is None else parse_value(expected)
    return _ask(Cas(key, read_value(value, file), old, _or_unset(ttl)), asking)


@app.command(
    help_epilogue=examples(
        "trio-kv incr visits",
        "trio-kv incr stock -3",
        "trio-kv incr tries --ttl 60               # a key that ends",
    )
)
def incr(
    key: Key,
    by: Annotated[int, option("How much; may be negative.", validator=Number(gte=-NUMBER_MAX))] = 1,
    /,
    *,
    ttl: TimeToLive = None,
    asking: Asking = DEFAULT_ASKING,
) -> ExitCode:
    """Add to a whole number, once, and print the sum; a missing key counts as 0."""
    return _ask(Incr(key, by, _or_unset(ttl)), asking)


def _ask(
    operation: Get | Set | Delete | Cas | Incr,
    asking: Asking,
    *,
    is_stale: bool = False,
    is_raw: bool = False,
) -> ExitCode:
    with asking.connect() as store:
        answer = store.ask(Request(operation, is_stale=is_stale, meta=asking.output != "text"))
    return show_answer(
        answer, asking.output, has_value=operation.has_result, is_raw=is_raw, is_quiet=asking.is_quiet
    )


@app.command(
    help_epilogue=examples(
        "trio-kv scan                              # all keys and values, up to 1000",
        "trio-kv scan user/ --keys-only --limit 0",
        "trio-kv scan user/ --count",
        "trio-kv scan --after user/7 --limit 10 --output table",
        "trio-kv scan --limit 0 --output json | jq .revision",
    )
)
def scan(
    prefix: Annotated[str, option("What the keys begin with.")] = "",
    /,
    *,
    after: Annotated[str | None, option("Only keys above this one; below it with --reverse.")] = None,
    limit: Annotated[NaturalNumber, option("How many to show at most; 0 for all.")] = 1000,
    reverse: Annotated[bool, flag("The last key first.")] = False,
    keys_only: Annotated[bool, flag("Print keys, and no values.")] = False,
    count: Annotated[bool, flag("Print how many there are, and nothing else.")] = False,
    stale: Stale = False,
    asking: Asking = DEFAULT_ASKING,
) -> ExitCode:
    """Print keys and values in the order of the keys' bytes.

    Up to 1000 keys, or 1 MiB, are one state of the store; what is more is read page by page, while others write. For
    one state of all keys: `trio-kv export`.
    """
    from trio_kv.cli.ranges import Range, show_count, show_range

    wanted = Range(
        prefix=prefix,
        after=after,
        limit=limit,
        is_reversed=reverse,
        has_values=not keys_only,
        is_stale=stale,
    )
    with asking.connect() as store:
        if count:
            return show_count(store, wanted, asking)
        return show_range(store, wanted, asking)


@app.command(
    help_epilogue=examples(
        "trio-kv watch                             # all that changes from now on; Ctrl-C ends it",
        "trio-kv watch user/ --from 17 --output json",
        "trio-kv watch --key lock --count 1        # wait for the next change",
    )
)
def watch(
    prefix: Annotated[str, option("What the keys begin with.")] = "",
    /,
    *,
    key: Annotated[str | None, option("One key instead.")] = None,
    first: Annotated[
        NaturalNumber | None,
        Parameter(name="--from", help="The first revision to tell of. [default: the next one]"),
    ] = None,
    count: Annotated[Count | None, option("End after so many revisions. [default: never]")] = None,
    asking: Asking = DEFAULT_ASKING,
) -> ExitCode:
    """Print what changes, as it comes, one line a change: revision, what happened, key, value.

    Nothing is left out and nothing comes twice, whatever connections are lost. Ctrl-C ends it with exit code 0.
    """
    from trio_kv.cli.ranges import show_changes

    if key is not None and prefix:
        raise UsageError("a watch is of one --key or of a PREFIX: leave out one of them")
    with asking.connect() as store:
        changes = store.watch(prefix if key is None else None, key=key, first=first)
        try:
            return show_changes(changes, asking.output, count=count)
        except KeyboardInterrupt:
            return ExitCode.OK  # this is how a watch ends


@app.command(
    help_epilogue=examples(
        'trio-kv txn \'{"then": [{"op": "set", "key": "a", "value": 1}, {"op": "incr", "key": "n"}]}\'',
        'trio-kv txn \'{"if": [{"key": "lock", "exists": false}], "then": [{"key": "lock", "value": "me"}]}\'',
        "trio-kv txn - <move.json",
    )
)
def txn(
    txn: Annotated[
        str | None,
        option(
            '{"if": [...], "then": [...], "else": [...]} as in the protocol; - takes stdin.',
            show_default=False,
        ),
    ] = None,
    /,
    *,
    file: Annotated[Path | None, option("It stands in this file; - is stdin.")] = None,
    asking: Asking = DEFAULT_ASKING,
) -> ExitCode:
    """Carry out operations together or not at all; exit code 1 if a condition did not hold, so that `else` was."""
    from trio_kv.cli.ranges import parse_document, show_txn

    operation = parse_document(read_text(txn, file, "TXN"))
    with asking.connect() as store:
        return show_txn(operation, store.ask(Request(operation)), asking.output, is_quiet=asking.is_quiet)


@app.command(
    help_epilogue=examples("trio-kv status", "trio-kv status --output json"),
)
def status(*, asking: Asking = DEFAULT_ASKING) -> ExitCode:
    """Show every node, the leader with a star: role, state, term, how far its log goes; and what is wrong.

    Below the nodes stands, in words, why one is not up, what is broken on purpose, and what ends it.
    """
    with asking.connect() as store:
        answer = store.ask(Request(Status()))
    if answer.code != "ok":
        return show_answer(answer, asking.output, has_value=False)
    return show_status(msgspec.json.decode(answer.line), asking.output)
