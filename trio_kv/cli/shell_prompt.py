"""The prompt of the shell on a terminal: editing, completion, and a history that outlives it.

Keys are completed by a scan, over a connection of its own with a short time-out: a server that is slow costs a
completion, and no patience. What may be a secret is not remembered.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import attrs
import msgspec
from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth

from trio_kv.cli.output import say, show_key
from trio_kv.cli.shell_words import (
    COMMANDS,
    LEAVING,
    OUTPUTS,
    OWN_WORDS,
    PROMPT,
    TEXTS,
    WATCH,
    Arguments,
    CommandError,
    is_whole,
)
from trio_kv.cli.target import Target
from trio_kv.cli.terminal import has_color
from trio_kv.client.client import Client
from trio_kv.client.errors import StoreError
from trio_kv.client.values import BLANKS
from trio_kv.wire.operations import Watch

HISTORY_VARIABLE: Final = "TRIO_KV_HISTFILE"
HISTORY_BYTES_MAX: Final = 1 << 20
"""Of a file that has more, the older half is dropped."""
COMPLETION_TIMEOUT_S: Final = 1.0
COMPLETIONS_MAX: Final = 100
SECRET_WORDS: Final = ("auth", '"auth"')
"""A line with one of these is not remembered."""
CONTINUATION: Final = "... "


@contextlib.contextmanager
def open_prompt(target: Target, environ: Mapping[str, str] = os.environ) -> Iterator[Callable[[], str]]:
    """Give a function that asks a person for a command, of one or several lines, and returns it.

    It raises EOFError for Ctrl-D and KeyboardInterrupt for Ctrl-C.

    Args:
        target: the server whose keys are completed.
        environ: says where the history is.

    """
    timeout_s = min(COMPLETION_TIMEOUT_S, target.timeout_s)
    with attrs.evolve(target, timeout_s=timeout_s).connect() as client:
        history = History(history_path(environ))
        session: PromptSession[str] = PromptSession(
            PROMPT,
            multiline=True,
            prompt_continuation=lambda *_: CONTINUATION,
            key_bindings=_bindings(),
            completer=ShellCompleter(client),
            # Not in a thread: Enter must not overtake Tab, and carry out what was to be completed first.
            complete_in_thread=False,
            complete_while_typing=False,
            history=history,
            auto_suggest=AutoSuggestFromHistory(),
            enable_history_search=True,
            color_depth=None if has_color(sys.stdout, environ) else ColorDepth.DEPTH_1_BIT,
        )
        yield session.prompt


def _bindings() -> KeyBindings:
    """Let Enter end a command that is whole, and begin another line of one that is not."""
    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        is_at_end = buffer.document.is_cursor_at_the_end
        if is_at_end and not is_whole(buffer.text):
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    return bindings


# --- history ------------------------------------------------------------------------------------------------


def history_path(environ: Mapping[str, str]) -> Path:
    """Return where the history is kept."""
    if environ.get(HISTORY_VARIABLE):
        return Path(environ[HISTORY_VARIABLE])
    state = environ.get("XDG_STATE_HOME") or Path(environ.get("HOME", "."), ".local", "state")
    return Path(state, "trio_kv", "history")


class History(FileHistory):
    """What was typed, in a file that its owner alone can read. Where that can't be, it ends with the shell."""

    def __init__(self, path: Path) -> None:
        """Make the file, or shorten it if it has become long."""
        super().__init__(path)
        self._path = path
        self._is_kept = True
        with self._or_not():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
            if path.is_file() and path.stat().st_size > HISTORY_BYTES_MAX:
                _halve(path)

    def load_history_strings(self) -> Iterable[str]:
        """Return what was typed before, the newest first."""
        strings: list[str] = []
        with self._or_not():
            strings += super().load_history_strings()
        return strings

    def append_string(self, string: str) -> None:
        """Remember what was typed, unless it begins with a blank or may hold a secret."""
        if not string.startswith((" ", "\t")) and not _is_secret(string):
            super().append_string(string)

    def store_string(self, string: str) -> None:
        """Write it down."""
        if self._is_kept:
            with self._or_not():
                super().store_string(string)

    @contextlib.contextmanager
    def _or_not(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._is_kept = False
            say(
                f"{self._path}: {(error.strerror or str(error)).lower()}: what is typed here is not remembered"
            )


def _is_secret(text: str) -> bool:
    return any(word in text.split() or (word[0] == '"' and word in text) for word in SECRET_WORDS)


def _halve(path: Path) -> None:
    """Drop the older half of a history, up to the beginning of an entry."""
    content = path.read_bytes()
    begin = content.find(b"\n# ", len(content) // 2)
    shorter = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(shorter, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content[begin:] if begin >= 0 else b"")
    shorter.replace(path)


# --- completion ---------------------------------------------------------------------------------------------


class ShellCompleter(Completer):
    """Completes commands, and keys by asking the store.

    Args:
        client: asked for keys; nobody else uses it.

    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:  # noqa: ARG002
        """Yield what the word before the cursor may become."""
        text = document.text_before_cursor.lstrip(BLANKS)
        word, rest = _first_word(text)
        if rest is None:
            names = sorted([*COMMANDS, WATCH, *OWN_WORDS, *(LEAVING - {"\\q"}), "help"])
            yield from _among(names, word)
        elif word in ("\\help", "help"):
            yield from _among(sorted([*COMMANDS, WATCH]), rest)
        elif word == "\\output":
            yield from _among(OUTPUTS, rest)
        elif word == "\\timing":
            yield from _among(("on", "off"), rest)
        else:
            begun = key_begun(word, rest)
            if begun is not None:
                yield from self._keys(begun)

    def _keys(self, begun: str) -> Iterator[Completion]:
        try:
            page = self._client.scan(_as_text(begun), limit=COMPLETIONS_MAX, has_values=False, is_stale=True)
        except (StoreError, UnicodeEncodeError):
            return
        for item in page.items:
            yield Completion(show_key(item.key), -len(begun))


def _first_word(text: str) -> tuple[str, str | None]:
    """Return the first word, and what is behind the blank that ends it, if it has ended."""
    for place, character in enumerate(text):
        if character in BLANKS:
            return text[:place], text[place:].lstrip(BLANKS)
    return text, None


def _among(words: Iterable[str], begun: str) -> Iterator[Completion]:
    return (Completion(word, -len(begun)) for word in words if word.startswith(begun))


def key_begun(command: str, rest: str) -> str | None:
    """Return the beginning of a key that stands last, if what is typed last is to be one.

    >>> key_begun("get", "us"), key_begun("cas", "lock al"), key_begun("set", "--ttl=5 "), key_begun("ping", "")
    ('us', None, '', None)
    """
    if command != WATCH and command not in COMMANDS:
        return None
    words = (Watch if command == WATCH else COMMANDS[command]).words.split()
    places = [word.strip("[]") for word in words if not word.startswith("[--")]
    typed = Arguments(rest)
    for name in places:
        while typed.rest.lstrip(BLANKS).startswith("--"):
            _, typed = typed.take("a flag")
        last = typed.rest.lstrip(BLANKS)
        try:
            _, typed = typed.take(name)
        except CommandError:  # nothing is typed yet
            return last if name in TEXTS else None
        if not typed.rest:
            return last if name in TEXTS else None
    return None


def _as_text(begun: str) -> str:
    """Return what is meant by a key that is begun, be it bare or as a JSON string."""
    if not begun.startswith('"'):
        return begun
    for text in (begun, f'{begun}"'):
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(text, type=str)
    return begun
