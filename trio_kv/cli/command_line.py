"""The order of words: which command a line is for, and what stands in front of it.

Cyclopts wants a command's options behind its word. People write them in front as well, as git and docker take them, so
those are moved behind: `--port 4001 get k` is `get --port 4001 k`. A word is a command if all that stands in front of
it are whole options of that command. So `--data-dir get` stays what it is, a directory of the name `get`.
"""

import difflib
from collections.abc import Iterator, Sequence

from cyclopts import App, Argument

from trio_kv.cli.parsing import is_number

HYPHEN = "-"
DELIMITER = "--"
"""Behind it all words are data."""
HELP_FLAGS = ("--help", "-h")
VERSION_FLAGS = ("--version",)


def reorder(app: App, tokens: Sequence[str]) -> list[str]:
    """Return the words of a command line with the command's options behind its words."""
    found = _reorder(app, [], list(tokens))
    words = list(tokens) if found is None else found
    return _protect_hyphens(app, words) if HYPHEN in words else words


def _protect_hyphens(app: App, words: Sequence[str]) -> list[str]:
    """Return words among which a lone hyphen is data.

    It stands for stdin or stdout by custom, but is an option for cyclopts: so data goes behind `--`, and the value
    of an option behind `=`.
    """
    place = 0
    while place < len(words) and words[place] in set(command_names(app)):
        app, place = app[words[place]], place + 1
    command, options, data = list(words[:place]), options_of(app), list[str]()
    while place < len(words) and words[place] != DELIMITER:
        word = words[place]
        size = _option_size(options, word)
        if size > 1 and words[place + 1 : place + size] == [HYPHEN]:
            command.append(f"{word}={HYPHEN}")
        elif size:
            command += words[place : place + size]
        else:
            is_option = word.startswith(HYPHEN) and word != HYPHEN and not is_number(word)
            (command if is_option else data).append(word)
        place += max(size, 1)
    return [*command, DELIMITER, *data, *words[place + 1 :]]


def _reorder(app: App, before: list[str], tokens: list[str]) -> list[str] | None:
    """Return the words in order, or None if no token is a command. `before` stood in front of the app's own word."""
    commands = set(command_names(app))
    for place, word in enumerate(tokens):
        if word == DELIMITER:
            return None
        if word not in commands:
            continue
        options, behind = [*before, *tokens[:place]], tokens[place + 1 :]
        found = _reorder(app[word], options, behind)
        if found is None and end_of_options(app[word], options) == len(options):
            found = [*options, *behind]
        if found is not None:
            return [word, *found]
    return None


def command_names(app: App) -> Iterator[str]:
    """Yield the words of an app's commands; its flags for help are none."""
    return (name for name in app if not name.startswith("-"))


def end_of_options(app: App, tokens: Sequence[str]) -> int:
    """Return how many of the words, from the first on, are options of a command, whole with their values."""
    if not tokens:
        return 0
    options = options_of(app)
    place = 0
    while place < len(tokens):
        size = _option_size(options, tokens[place])
        if not size or place + size > len(tokens):
            return place
        place += size
    return place


def options_of(app: App) -> list[Argument]:
    """Return the options of a command, or of all commands of a group."""
    if app.default_command:
        return [argument for argument in app.assemble_argument_collection() if argument.field_info.is_keyword]
    return [argument for name in command_names(app) for argument in options_of(app[name])]


def _option_size(options: Sequence[Argument], token: str) -> int:
    """Return how many words an option takes that begins with this one; 0 if it is none."""
    if token in HELP_FLAGS + VERSION_FLAGS:
        return 1
    name, equals, _ = token.partition("=")
    for argument in options:
        for known in argument.names:
            if name == known or name in argument.negatives:
                return 1 if equals or not argument.token_count()[0] or name in argument.negatives else 2
            is_short = len(known) == 2 and known.startswith("-") and known != "--"
            if is_short and token.startswith(known) and argument.token_count()[0]:
                return 1  # its value is attached, as in -ojson
    return 0


def is_only_help(app: App, tokens: Sequence[str]) -> bool | None:
    """Return whether help, or the version, is all that a line asks for; None if it asks for neither.

    What stands beside it was meant to be done, and is not: `cas lock -h` has won no lock.
    """
    words = list(tokens)
    end = words.index(DELIMITER) if DELIMITER in words else len(words)
    rest = [word for word in words[:end] if word not in HELP_FLAGS + VERSION_FLAGS]
    if len(rest) == end:
        return None
    while rest and rest[0] in set(command_names(app)):
        app = app[rest.pop(0)]
    return not rest and end == len(words)


def explain_misplaced(app: App, tokens: Sequence[str]) -> str | None:
    """Return what to say of a word that stands where a command should, and is none."""
    command: list[str] = []
    while tokens and tokens[0] in set(command_names(app)):
        command.append(tokens[0])
        app, tokens = app[tokens[0]], tokens[1:]
    names = sorted(command_names(app))
    place = end_of_options(app, tokens)
    if not names or not tokens or tokens[0] == DELIMITER:
        return None
    if place == len(tokens):
        return None if app.default_command else _lacks_command(command, names)
    word = tokens[place]
    if word in names:
        return _explain_front(app[word], [*command, word], tokens[:place], tokens[place + 1 :])
    if word.startswith("-"):
        # Cyclopts explains an option that a command does not know, but takes it for a command of a group.
        return None if app.default_command else explain_option(word, options_of(app))
    near = difflib.get_close_matches(word, names, 1)
    hint = f"did you mean {' '.join([*command, near[0]])}?" if near else f"there are {', '.join(names)}"
    return f"there is no command {' '.join([*command, word])!r}: {hint}"


def _explain_front(app: App, command: list[str], front: Sequence[str], behind: Sequence[str]) -> str:
    """Return what to say of words in front of a command, or a group, that are not all whole options of it."""
    while names := sorted(command_names(app)):
        word = next((each for each in behind if each in names), None)
        if word is None:
            return _lacks_command(command, names)
        command, app = [*command, word], app[word]
    options = options_of(app)
    return f"{' '.join(command)}: {explain_option(front[end_of_options(app, front)], options)}"


def _lacks_command(command: Sequence[str], names: Sequence[str]) -> str:
    return f"{' '.join(command)} needs a command: there are {', '.join(names)}"


def explain_option(word: str, options: Sequence[Argument]) -> str:
    """Return what to say of a word that looks like an option and is none."""
    name = word.partition("=")[0]
    known = sorted({each for argument in options for each in argument.names if each.startswith("--")})
    if name in known:
        return f"{word} is one word too many: behind -- it is data; options stand in front of that"
    near = _nearest_option(name.lstrip("-"), [each.lstrip("-") for each in known])
    hint = f"did you mean --{near}?" if near else f"there are {', '.join(known)}"
    return f"there is no option {name}: {hint}"


def _nearest_option(word: str, known: Sequence[str]) -> str | None:
    """Return the option that has the word in it, or one that is spelled nearly so; the hyphens in front say nothing."""
    holding = [each for each in known if word in each.split("-")]
    return next(iter(holding or difflib.get_close_matches(word, known, 1)), None)
