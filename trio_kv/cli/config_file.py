"""A file of options, in TOML: each key is an option's name without its dashes, as `port = 4001`.

It says what neither the command line nor a variable says. What is in it goes the way of words that were typed, so that
the same rules read it. Cyclopts could read it as well, but passes over keys that are called like a command, and tells
of an unknown one neither the file nor what would be right.
"""

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final

from cyclopts import Argument, ArgumentCollection, CycloptsError, Token

from trio_kv.cli.toml_file import hint_key, kind_of, read_toml

CONFIG_OPTION: Final = "--config"

ORIGINS: ContextVar[Mapping[str, str]] = ContextVar("ORIGINS")
"""Where the options of the command come from that is carried out, by their names in a file: those that are not
defaults."""


def read_config_file(arguments: ArgumentCollection) -> None:
    """Let the file that `--config` names say what nobody else says.

    Args:
        arguments: all parameters of a command, with what the command line and the variables say.

    Raises:
        UsageError: the file can't be read.
        CycloptsError: a key in it can't be used; says which file, which key, and what would be right.

    """
    by_name = {name: argument for argument in arguments for name in argument.names}
    naming = by_name.get(CONFIG_OPTION)
    if naming is None or not naming.tokens or not naming.tokens[0].value:
        return
    path = naming.tokens[0].value
    for key, value in read_toml(path).items():
        argument = by_name.get(f"--{key}")
        if argument is None or argument is naming or not argument.parameter.env_var:
            raise CycloptsError(msg=f"{path}: {_explain_key(key, by_name, naming)}")
        if not isinstance(value, str | int | float):
            raise CycloptsError(
                msg=f"{path}: {key} is {kind_of(value)}; right would be one value, as {key} = ..."
            )
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not argument.tokens:
            argument.tokens.append(Token(keyword=f"{path}: {key}", value=text, source=path))


def note_origins(arguments: ArgumentCollection) -> None:
    """Keep in mind where the options of a command come from."""
    origins = {}
    for argument in arguments:
        if argument.tokens:
            token = argument.tokens[0]
            is_typed = token.source in ("", "cli")
            origins[name_of(argument)] = (
                "command line" if is_typed else str(token.keyword) if token.source == "env" else token.source
            )
    ORIGINS.set(origins)


def name_of(argument: Argument) -> str:
    """Return what an option is called in a file."""
    return argument.name.removeprefix("--")


def rank_of(token: Token) -> int:
    """Return how little a source counts: the command line is 0, a variable 1, a file 2."""
    return {"": 0, "cli": 0, "env": 1}.get(token.source, 2)


def _explain_key(key: str, by_name: Mapping[str, Argument], naming: Argument) -> str:
    known = {
        name_of(each)
        for each in by_name.values()
        if each is not naming and each.field_info.is_keyword and each.parameter.env_var
    }
    if key == CONFIG_OPTION.removeprefix("--"):
        return "a file of options can't name another one: leave config out"
    return f"there is no option {key!r}: {hint_key(key, known)}"
