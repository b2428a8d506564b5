"""How the words of a command line and of the environment are read: one set of rules for all commands and options.

Each `read_*` takes a word, and raises ValueError with words for a person if it is something else.

- A number is what it looks like, or it is refused: a whole number is decimal digits and is never rounded, any other
  is finite. An empty path is no path.
- A choice may be typed in capitals, since variables often hold it that way.
- An empty variable is one that is not set. What Kubernetes and Docker put into a variable of ours, the address of
  a service that happens to bear our name, is passed over, and said so.
- What the command line says counts more than a variable, and that more than the file of options (`config_file`). So it
  is with two options that contradict each other. Where both come from the same place, they are refused.
- A word that begins with a hyphen is an option, but for numbers and a lone hyphen. Behind `--` it is data.

`App(default_parameter=PARAMETER, config=read_variables)` makes them hold for an app and all that is below it.
"""

import difflib
import ipaddress
import math
import re
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from cyclopts import App, Argument, ArgumentCollection, CycloptsError, Parameter, Token
from cyclopts.validators import Number

from trio_kv.cli.config_file import note_origins, rank_of, read_config_file
from trio_kv.cli.output import Output, say
from trio_kv.wire.operations import TTL_MAX_S, TTL_MIN_S

NUMBER_MAX = (1 << 63) - 1
"""The largest whole number that is taken; most options have a smaller limit of their own."""
SECONDS_MAX = 31_536_000
"""A year. A longer time is a mistake, and would not fit into every timer of the system."""

DATA_DIR_DEFAULT = Path("trio_kv-data")

_WHOLE = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_NUMBER = re.compile(r"-?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?", re.ASCII | re.IGNORECASE)
_LINK_SUFFIX = "_PORT"
_LINK = re.compile(r"(tcp|udp|sctp)://", re.ASCII | re.IGNORECASE)
_TRUE = frozenset({"1", "true", "yes", "on", "t", "y"})
_FALSE = frozenset({"0", "false", "no", "off", "f", "n"})

CONTRADICTIONS = (("--ephemeral", "--data-dir"), ("--plan", "--seeds"))
"""Options of which only one can be meant."""


def read_whole(text: str) -> int:
    """Return a whole number."""
    if not _WHOLE.fullmatch(text) or abs(int(text)) > NUMBER_MAX:
        raise ValueError(f"{text!r} is no whole number in decimal digits, such as 3")
    return int(text)


def read_number(text: str) -> float:
    """Return a finite number."""
    if not _NUMBER.fullmatch(text) or not math.isfinite(float(text)):
        raise ValueError(f"{text!r} is no number, such as 0.5")
    return float(text)


def is_number(text: str) -> bool:
    """Return whether a word is a number, so that it is no option though it begins with a hyphen."""
    return _NUMBER.fullmatch(text) is not None


def read_truth(text: str) -> bool:
    """Return what a variable says about a flag."""
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(f"{text!r} is neither 1 nor 0")
    return word in _TRUE


def read_path(text: str) -> Path:
    """Return a path."""
    if not text:
        raise ValueError("an empty path names no place; write . for the current directory")
    return Path(text)


def read_choice(text: str, choices: Sequence[str]) -> str:
    """Return the one of some words that is meant."""
    if text.lower() in choices:
        return text.lower()
    near = difflib.get_close_matches(text.lower(), choices, 1)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(choices)}"
    raise ValueError(f"{text!r} is no choice: {hint}")


def read_host(text: str) -> str:
    """Return a host's name or address; `[::1]`, as it stands in front of a port, is the address ::1."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        ipaddress.ip_address(host)
    except ValueError:
        _check_host_name(host, text)
    return host


def _check_host_name(host: str, text: str) -> None:
    if not host.strip():
        raise ValueError("an empty word is no host; write 127.0.0.1")
    if any(character in host for character in ":/@[] "):
        raise ValueError(
            f"{text!r} is no host, such as 127.0.0.1, ::1 or localhost; a port has its own option"
        )
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError(f"{text!r} can be no host's name") from error


def convert(type_: Any, tokens: Sequence[Token]) -> Any:
    """Read one word as a parameter of a type; cyclopts calls it for each.

    Raises:
        ValueError: it is no such thing; the message begins with the word and says what would do.

    """
    scalar = scalar_of(type_)
    (token,) = tokens
    if get_origin(scalar) is Literal:
        return read_choice(token.value, get_args(scalar))
    return READERS[scalar](token.value)


READERS: dict[object, Callable[[str], object]] = {
    int: read_whole,
    float: read_number,
    bool: read_truth,
    Path: read_path,
    str: str,
}
"""What reads each type. There is none beside: an option of another type needs a rule of its own here."""


def scalar_of(type_: Any) -> Any:
    """Return the type of a value that is there: without `None`, and without what cyclopts is told about it."""
    if get_origin(type_) is Annotated:
        return scalar_of(get_args(type_)[0])
    if get_origin(type_) is tuple:
        return scalar_of(get_args(type_)[0])  # of words that may be several
    if get_origin(type_) in {Union, types.UnionType}:
        (present,) = (each for each in get_args(type_) if each is not types.NoneType)
        return scalar_of(present)
    return type_


def option(help: str, variable: str = "", *names: str, **how: Any) -> Parameter:
    """Return what is told of an option.

    Args:
        help: what it means.
        variable: the environment variable that says the same, without its prefix.
        names: what it is called; by default as the parameter.
        how: what else cyclopts is to know.

    """
    if variable:
        how["env_var"] = f"TRIO_KV_{variable}"
    if names:
        how["name"] = names
    return Parameter(help=help, **how)


def flag(help: str, variable: str = "", *names: str) -> Parameter:
    """Return an `option` that says yes when it is there, and has no opposite."""
    return option(help, variable, *names, negative=(), show_default=False)


PARAMETER = Parameter(converter=convert)

Host = Annotated[str, Parameter(converter=lambda _type, tokens: read_host(tokens[0].value))]
"""A host to listen on or to ask."""
ListenPort = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]
"""A port to listen on; 0 picks a free one."""
ServerPort = Annotated[int, Parameter(validator=Number(gte=1, lte=65535))]
"""A port on which somebody listens."""
Node = Annotated[int, Parameter(validator=Number(gte=1, lte=9))]
"""The number of a node, or how many there are."""
Count = Annotated[int, Parameter(validator=Number(gt=0, lte=NUMBER_MAX))]
"""How many; at least one."""
NaturalNumber = Annotated[int, Parameter(validator=Number(gte=0, lte=NUMBER_MAX))]
TimeToLive = Annotated[
    float | None,
    option("Seconds for which the key is kept at least.", validator=Number(gte=TTL_MIN_S, lte=TTL_MAX_S)),
]
Seconds = Annotated[float, Parameter(validator=Number(gt=0, lte=SECONDS_MAX))]
Timeout = Annotated[Seconds, option("Seconds to wait.", "TIMEOUT", "--timeout")]

OutputOption = Annotated[Output, option("For people, or as JSON.", "OUTPUT", "--output", "-o")]
ReplyOutput = Annotated[Output, option("For people, or as it came.", "OUTPUT", "--output", "-o")]
"""Of what a server said."""


def read_variables(_app: App, _commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take out again what variables should not have put in, and read the file of options. Cyclopts calls it.

    Args:
        _app: the command's.
        _commands: its words.
        arguments: all its parameters, with what the command line and the variables say.

    Raises:
        CycloptsError: two options contradict each other.

    """
    for argument in arguments:
        argument.tokens[:] = [token for token in argument.tokens if not _is_foreign(argument, token)]
    read_config_file(arguments)
    by_name = {name: argument for argument in arguments for name in argument.names}
    for first, second in CONTRADICTIONS:
        if first in by_name and second in by_name:
            _decide(by_name[first], by_name[second])
    note_origins(arguments)


def _is_foreign(argument: Argument, token: Token) -> bool:
    """Return whether a variable is not meant for us: it is empty, or somebody else has set it."""
    if token.source != "env":
        return False
    variable = str(token.keyword)
    is_link = variable.endswith(_LINK_SUFFIX) and _LINK.match(token.value) is not None
    if is_link:
        service = variable.removesuffix(_LINK_SUFFIX).lower().replace("_", "-")
        say(
            f"{variable}={token.value} is passed over: it is no port, but what Kubernetes or Docker sets beside a"
            f" service called {service}. {argument.name} says which port to use"
        )
    return is_link or not token.value


def _decide(*rivals: Argument) -> None:
    """Let the option win that was typed, or else the one that a variable says, over the file."""
    if not all(map(_says_something, rivals)):
        return
    ranks = [rank_of(argument.tokens[0]) for argument in rivals]
    typed = [argument for argument, rank in zip(rivals, ranks, strict=True) if rank == min(ranks)]
    if len(typed) != 1:
        names = " and ".join(str(argument.tokens[0].keyword) for argument in rivals)
        raise CycloptsError(msg=f"{names} can't go together: leave one of them out")
    for argument in rivals:
        if argument not in typed:
            argument.tokens.clear()


def _says_something(argument: Argument) -> bool:
    """Return whether an option is there, and not as a flag that says no."""
    if not argument.tokens or scalar_of(argument.hint) is not bool:
        return bool(argument.tokens)
    token = argument.tokens[0]
    if isinstance(token.implicit_value, bool):
        return token.implicit_value
    return token.value.strip().lower() not in _FALSE
