"""A file of options, in TOML: each key is an option's name without its dashes, as `port = 4001`.

It says what neither the command line nor a variable says. What is in it goes the way of words that were typed, so that
the same rules read it. Cyclopts could read it as well, but passes over keys that are called like a command, and tells
of an unknown one neither the file nor what would be right.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Final

from cyclopts import Argument, ArgumentCollection, CycloptsError, Token

CONFIG_OPTION: Final = "--config"
FILE_BYTES_MAX: Final = 1 << 20

ORIGINS: ContextVar[Mapping[str, str]] = ContextVar("ORIGINS")
"""Where the options of the command come from that is carried out, by their names in a file: those that are not
defaults."""


def read_config_file(arguments: ArgumentCollection) -> None:
    """Let the file that `--config` names say what nobody else says.

    Args:
        arguments: all parameters of a command, with what the command line and the variables say.

    Raises:
        CycloptsError: the file can't be used; says which, which key, and what would be right.

    """
    by_name = {name: argument for argument in arguments for name in argument.names}
    naming = by_name.get(CONFIG_OPTION)
    if naming is None or not naming.tokens or not naming.tokens[0].value:
        return
    path = naming.tokens[0].value
    for key, value in _load(path).items():
        argument = by_name.get(f"--{key}")
        if argument is None or argument is naming or not argument.parameter.env_var:
            raise CycloptsError(msg=f"{path}: {_explain_key(key, by_name, naming)}")
        if not isinstance(value, str | int | float):
            raise CycloptsError(
                msg=f"{path}: {key} is {_kind(value)}; right would be one value, as {key} = ..."
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


def _load(path: str) -> dict[str, object]:
    try:
        # Not to wait for a writer, if it is a pipe.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise CycloptsError(msg=f"{path}: {(error.strerror or str(error)).lower()}") from error
    if len(content) > FILE_BYTES_MAX:
        raise CycloptsError(msg=f"{path} has more than {FILE_BYTES_MAX} bytes, which is no file of options")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise CycloptsError(msg=f"{path} is not TOML: {str(error) or 'nested too deep'}") from error


def _explain_key(key: str, by_name: Mapping[str, Argument], naming: Argument) -> str:
    known = sorted(
        {
            name_of(each)
            for each in by_name.values()
            if each is not naming and each.field_info.is_keyword and each.parameter.env_var
        }
    )
    if key == CONFIG_OPTION.removeprefix("--"):
        return "a file of options can't name another one: leave config out"
    near = difflib.get_close_matches(key.lower().replace("_", "-"), known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    return f"there is no option {key!r}: {hint}"


def _kind(value: object) -> str:
    return (
        "a table" if isinstance(value, dict) else "a list" if isinstance(value, list) else "a date or a time"
    )
