"""A line of the shell, word by word: which words an operation takes, and where a JSON value ends.

Words are parted by blanks. One that begins with a brace, a bracket or a quote is a JSON value, if it is one, and may
hold blanks; so may the value that stands last. Nothing here asks the store.
"""

import json
from typing import Any, Final

import attrs
import msgspec
from msgspec.structs import fields

from trio_kv.cli.errors import UsageError
from trio_kv.cli.output import parse_value
from trio_kv.client.txns import parse_txn
from trio_kv.client.values import BLANKS
from trio_kv.wire.operations import OPERATIONS, Operation, Txn, Watch

COMMANDS: Final = {name: kind for name, kind in OPERATIONS.items() if not kind.needs_id}
"""The operations that are one request and one answer."""
WATCH: Final = "watch"
TEXTS: Final = ("KEY", "PREFIX", "AFTER")
"""Words that are taken as they stand."""

PROMPT: Final = "trio-kv> "

OUTPUTS: Final = ("pretty", "text", "table", "json")
"""How answers look: those of `--output`, and text with objects over several lines and in colours."""

LEAVING: Final = frozenset({"exit", "quit", "\\q", "\\quit"})

OWN_WORDS: Final = {
    "\\help": ("[COMMAND]", "this, or what a command takes"),
    "\\timing": ("[on|off]", "how long each answer takes"),
    "\\output": (f"[{'|'.join(OUTPUTS)}]", "how answers look"),
    "\\connect": ("HOST[:PORT]", "go on with another server"),
    "\\quit": ("", "leave, as exit and Ctrl-D"),
}
"""What speaks to the shell itself: what stands behind the word, and what it is for."""

HELP_COLUMNS: Final = 29
"""Of the words in `HELP`; what they are for stands behind them, or below longer ones."""


def _help_line(words: str, purpose: str) -> str:
    gap = " " if len(words) < HELP_COLUMNS else f"\n  {'':<{HELP_COLUMNS}}"
    return f"  {words:<{HELP_COLUMNS - 1}}{gap}{purpose}"


HELP: Final = "\n".join(
    [
        *(_help_line(f"{name} {kind.words}", kind.purpose) for name, kind in COMMANDS.items()),
        _help_line(f"{WATCH} {Watch.words}", f"{Watch.purpose}; Ctrl-C ends it"),
        _help_line('{"key": ...}', "a line of the protocol, answered as it comes"),
        *(_help_line(f"{name} {words}", purpose) for name, (words, purpose) in OWN_WORDS.items()),
        _help_line("help, exit", "as \\help and \\quit"),
        'What has spaces and is not the last word is written as a JSON string: get "my key".',
    ]
)


class CommandError(UsageError):
    """A line that is no command, in words for a person."""


@attrs.frozen
class Arguments:
    """What stands behind the command's word, taken off from the left; a CommandError tells what is wrong with it."""

    rest: str

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing but white space."""
        return not self.rest.strip(BLANKS)

    def take(self, name: str) -> tuple[str, "Arguments"]:
        """Return the next word, or the next JSON value as it stands, and what is behind it."""
        rest = self.rest.lstrip(BLANKS)
        if not rest:
            raise CommandError(f"{name} is missing")
        end = _json_end(rest) if rest[0] in '"{[' else None
        if end is None:
            end = next((place for place, character in enumerate(rest) if character in BLANKS), len(rest))
        return rest[:end], Arguments(rest[end:])

    def take_text(self, name: str) -> tuple[str, "Arguments"]:
        """Return the next word as a text: itself, or what a JSON string says."""
        word, rest = self.take(name)
        return (_decode_string(word) if word.startswith('"') else word), rest

    def end(self) -> None:
        """Make sure that nothing is left."""
        if rest := self.rest.strip(BLANKS):
            raise CommandError(f"{rest!r} is too much; see help")


def read_txn_words(arguments: Arguments) -> Txn:
    """Return a transaction out of the lists that stand on a line.

    Raises:
        CommandError: a list is missing or can't be, or something is too much.

    """
    texts: dict[str, bytes] = {}
    for name in ("if", "then", "else"):
        if name == "else" and arguments.is_empty:
            break
        text, arguments = arguments.take(name.upper())
        texts[name] = bytes(parse_value(text))
    arguments.end()
    try:
        return parse_txn(texts)
    except ValueError as error:
        raise CommandError(str(error)) from error


def read_members(kind: type[Operation], arguments: Arguments) -> dict[str, Any]:
    """Return the members of an operation out of the words of a line; a value that stands last may hold spaces.

    Raises:
        CommandError: a word is missing, or too much.

    """
    members: dict[str, Any] = {}
    words, types = kind.words.split(), {each.name: each.type for each in fields(kind)}
    for place, word in enumerate(words, 1):
        name = word.strip("[]")
        if name.startswith("--"):
            flag, _, name = name.partition("=")
            rest = arguments.rest.lstrip(BLANKS)
            if rest.split(maxsplit=1)[:1] == [flag]:
                raise CommandError(
                    f'write {flag}={name}, without a space; a key of that name is "{flag}", with the quotes'
                )
            if rest.startswith(f"{flag}="):
                text, arguments = arguments.take(name)
                members[name.lower()] = _read_member(text.removeprefix(f"{flag}="), name, types[name.lower()])
            continue
        if name != word and arguments.is_empty:
            break
        if name in TEXTS:
            members[name.lower()], arguments = arguments.take_text(name)
        elif name == word and place == len(words) and not arguments.is_empty:
            members[name.lower()], arguments = parse_value(arguments.rest.strip(BLANKS)), Arguments("")
        else:
            text, arguments = arguments.take(name)
            members[name.lower()] = _read_member(text, name, types[name.lower()])
    arguments.end()
    return members


def _read_member(text: str, name: str, kind: Any) -> Any:
    """Return a word as a member of that type.

    Raises:
        CommandError: it is none.

    """
    try:
        return msgspec.json.decode(parse_value(text), type=kind)
    except msgspec.ValidationError as error:
        raise CommandError(f"{name} can't be {text}: {error}") from error


def _json_end(text: str) -> int | None:
    """Return where the JSON value at the start of `text` ends, or None if there is none."""
    try:
        # As text a number may have any length.
        _, end = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return end


def _decode_string(text: str) -> str:
    try:
        return msgspec.json.decode(text, type=str)
    except msgspec.DecodeError as error:
        raise CommandError(f"{text} is no JSON string: {error}") from error


def split_commands(text: str) -> list[str]:
    """Return the commands of a text of several lines: one a line, but for JSON that goes on over the end of it."""
    commands: list[str] = []
    begun = ""
    for line in text.split("\n"):
        begun = f"{begun}\n{line}" if begun else line
        if is_whole(begun):
            commands.append(begun)
            begun = ""
    return [*commands, begun] if begun else commands


def is_whole(text: str) -> bool:
    """Return whether a command ends with this line, and not in the middle of an object or a list.

    An empty line ends it in any case.
    """
    if text.rpartition("\n")[2].strip(BLANKS) == "":
        return True
    rest = text
    while rest := rest.lstrip(BLANKS):
        if rest[0] in "{[" and _is_begun(rest):
            return False
        _, arguments = Arguments(rest).take("")
        rest = arguments.rest
    return True


def _is_begun(text: str) -> bool:
    """Return whether a text is the beginning of a JSON value, and ends before it does."""
    try:
        json.JSONDecoder(parse_int=str, parse_float=str).raw_decode(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text.rstrip(BLANKS)) or error.msg.startswith("Unterminated string")
    except RecursionError:
        return False
    return False
