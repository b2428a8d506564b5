"""The net under all commands: what an error is called in front of a person, and which exit code it has.

A finding has a code of its own in each command, and no error may borrow it: what nobody foresaw is 70, whatever the
command.
"""

import errno
import os
import traceback
from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from cyclopts import (
    Argument,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Token,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)

from trio_kv.cli.command_line import explain_option
from trio_kv.cli.errors import NotDoneError, UsageError
from trio_kv.cli.output import ExitCode, exit_code, say
from trio_kv.client.errors import NotConnectedError, OutcomeUnknownError, RefusedError
from trio_kv.wire.replies import ReplyLine

DEBUG_VARIABLE = "TRIO_KV_DEBUG"
"""If it is set, every unexpected error is told with its traceback."""


def explain_failure(error: BaseException) -> ExitCode:
    """Tell a person what went wrong, and return the exit code.

    Args:
        error: what a command raised.

    """
    if isinstance(error, CycloptsError):
        say(explain_misuse(error))
        return ExitCode.USAGE
    if isinstance(error, UnicodeEncodeError):
        say("keys and values are UTF-8")
        return ExitCode.USAGE
    code = _foreseen_code(error)
    if code is None:
        return _explain_unexpected(error)
    say(str(error))
    return code


def _foreseen_code(error: BaseException) -> ExitCode | None:
    """Return the exit code of an error whose message is for a person."""
    from trio_kv.client.control import NoDoorError
    from trio_kv.storage.errors import StorageError

    match error:
        case UsageError():
            return ExitCode.USAGE
        case NotConnectedError() | NoDoorError():
            return ExitCode.NOT_CONNECTED
        case OutcomeUnknownError():
            return ExitCode.OUTCOME_UNKNOWN
        case RefusedError(reply=ReplyLine() as reply):
            return exit_code(reply)
        case NotDoneError() | StorageError() | RefusedError():
            return ExitCode.NOT_DONE
        case _:
            return None


def _explain_unexpected(error: BaseException) -> ExitCode:
    found = list(leaves(error))
    if all(isinstance(each, KeyboardInterrupt) for each in found):
        return ExitCode.INTERRUPTED
    is_environment = all(isinstance(each, OSError | MemoryError) for each in found)
    if not is_environment or os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
    if not is_environment:
        say(
            "this is a bug of trio_kv: please report what stands above. What was done until then is not known"
        )
        return ExitCode.FAILED
    for each in found:
        say("out of memory" if isinstance(each, MemoryError) else explain_os_error(each))
    if not os.environ.get(DEBUG_VARIABLE):
        say(
            f"nobody foresaw this; what was done until then is not known. {DEBUG_VARIABLE}=1 shows where it was"
        )
    return ExitCode.FAILED


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group that are none themselves, or the error if it is no group."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


def explain_os_error(error: BaseException, place: object = None) -> str:
    """Return what the system refused, and where.

    Args:
        error: an OSError.
        place: what it was about, if the error does not say so.

    """
    where = getattr(error, "filename", None) or place
    why = (getattr(error, "strerror", None) or str(error)).lower()
    if getattr(error, "errno", None) == errno.EMFILE:
        why += "; raise the limit with ulimit -n"
    return why if where is None else f"{os.fsdecode(where) if isinstance(where, bytes) else where}: {why}"


def explain_misuse(error: CycloptsError) -> str:
    """Return what is wrong with a command line, and what would be right."""
    command = " ".join(("trio-kv", *(error.command_chain or ())))
    match error:
        case UnknownOptionError():
            text = _explain_unknown(error)
        case MissingArgumentError(argument=argument) if (
            argument is not None and argument.field_info.is_keyword
        ):
            choices = get_args(argument.hint) if get_origin(argument.hint) is Literal else ()
            what = f"one of {', '.join(choices)}" if choices else _uncapitalize(argument.parameter.help or "")
            text = f"{error.keyword or argument.name} needs a value: {what}"
        case MissingArgumentError(argument=argument) if argument is not None:
            text = f"{_name_of(argument, None)} is missing; see {command} --help"
        case UnusedCliTokensError():
            surplus = " ".join(map(repr, error.unused_tokens or ()))
            text = f"{surplus} is too much; see {command} --help"
        case ValidationError(argument=argument) if argument is not None and argument.tokens:
            token = argument.tokens[0]
            text = f"{_name_of(argument, token)} {token.value}: {_uncapitalize(error.exception_message.rstrip('.'))}"
        case CoercionError(argument=argument, msg=str()) if argument is not None:
            text = f"{_name_of(argument, error.token)}: {error.msg}"
        case _:
            text = str(error)
    return text


def _explain_unknown(error: UnknownOptionError) -> str:
    word = str(error.token.keyword or error.token.value)
    parameters = list(error.argument_collection)
    text = explain_option(word, [each for each in parameters if each.field_info.is_keyword])
    takes_data = any(not each.field_info.is_keyword for each in parameters)
    return f"{text}; a word that begins with - is data behind --" if takes_data else text


def _name_of(argument: Argument, token: Token | None) -> str:
    """Return the option or the variable by which a value came, or the name of the place where it stands."""
    if token is not None and token.keyword:
        return token.keyword
    return argument.name if argument.field_info.is_keyword else argument.name.lstrip("-").upper()


def _uncapitalize(text: str) -> str:
    return text[:1].lower() + text[1:]
