"""`config`: what is in force for a server that is started so, and where that comes from. No option holds a secret."""

import sys
from collections.abc import Mapping
from typing import Annotated, Any

import attrs
from cyclopts import App, Parameter

from trio_kv.cli.config_file import ORIGINS, name_of
from trio_kv.cli.options import ServeOptions
from trio_kv.cli.output import ExitCode, Output, show, show_json
from trio_kv.cli.parsing import flag, option
from trio_kv.cli.terminal import is_terminal, open_console
from trio_kv.cli.words import examples
from trio_kv.trace.text import printable_lines

DEFAULT_OPTIONS = ServeOptions()

app = App(
    name="config",
    help_format="plaintext",
    help_epilogue=examples(
        "trio-kv config                            # what `serve` would do here",
        "trio-kv config --config store.toml --port 4001 --json",
        more="The command line counts more than a variable, a variable more than the file, and the file more than the"
        " default.",
    ),
)


@app.default
def config(
    *,
    options: Annotated[ServeOptions, Parameter(name="*")] = DEFAULT_OPTIONS,
    output: Annotated[Output, option("For people, or as JSON.", "", "--output", "-o")] = "text",
    is_json: Annotated[bool, flag("The same as --output json.", "", "--json")] = False,
) -> ExitCode:
    """Show every option of `serve`, its value, and where that comes from; nothing is started."""
    _show(options, ORIGINS.get({}), "json" if is_json else output)
    options.check()
    return ExitCode.OK


def _show(options: ServeOptions, origins: Mapping[str, str], output: Output) -> None:
    rows = {name: (value, origins.get(name, "default")) for name, value in _values(options).items()}
    if output == "json":
        show_json({name: {"value": value, "from": origin} for name, (value, origin) in rows.items()})
        return
    if not is_terminal(sys.stdout):
        for name, (value, origin) in rows.items():
            show(f"{name}\t{_text(value)}\t{origin}")
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for title in ("option", "value", "from"):
        table.add_column(title, overflow="fold")
    for name, (value, origin) in rows.items():
        cells = [printable_lines(text) for text in (name, _text(value), origin)]
        table.add_row(*cells, style="dim" if origin == "default" else "")
    open_console(sys.stdout).print(table, markup=False)


def _values(options: ServeOptions) -> dict[str, Any]:
    """Return what JSON can say of each option, by its name in a file."""
    names = {
        argument.field_info.name: name_of(argument)
        for argument in app.assemble_argument_collection()
        if argument.field_info.name in attrs.fields_dict(ServeOptions)
    }
    values = attrs.asdict(options, recurse=False)
    return {
        name: value if isinstance(value, str | int | float | None) else str(value)
        for name, value in ((names[field], values[field]) for field in values)
    }


def _text(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
