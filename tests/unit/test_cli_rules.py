"""Rules that hold for all commands and all their options, found by looking at the commands themselves."""

import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import attrs
import pytest
from cyclopts import App, Argument, CycloptsError

from tests.samples import one_of_each
from trio_kv.cli import chaos_options, wal
from trio_kv.cli.command_line import command_names, reorder
from trio_kv.cli.failures import explain_misuse
from trio_kv.cli.main import app, main
from trio_kv.cli.output import ExitCode
from trio_kv.cli.parsing import CONTRADICTIONS, READERS, read_host, read_number, read_whole, scalar_of
from trio_kv.cli.ranges import parse_document
from trio_kv.cli.trace import feed
from trio_kv.sim import campaign


@attrs.frozen
class Command:
    """A command, and what it can be told."""

    words: tuple[str, ...]
    parameters: tuple[Argument, ...]

    @property
    def options(self) -> list[Argument]:
        return [each for each in self.parameters if each.field_info.is_keyword]

    @property
    def data(self) -> list[str]:
        """Words that will do where a word must stand."""
        return [sample(each) for each in self.parameters if not each.field_info.is_keyword]


def commands(app: App, words: tuple[str, ...] = ()) -> Iterator[Command]:
    if app.default_command:
        arguments = app.assemble_argument_collection()
        yield Command(
            words, tuple(each for each in arguments if get_origin(each.hint) or each.hint in READERS)
        )
    for name in command_names(app):
        yield from commands(app[name], (*words, name))


def sample(parameter: Argument) -> str:
    """Return a word that a parameter takes."""
    scalar, default = scalar_of(parameter.hint), parameter.field_info.default
    if get_origin(scalar) is Literal:
        return str(get_args(scalar)[-1])
    if scalar in {int, float} and isinstance(default, int | float):
        return str(default)
    if parameter.name == "--config":
        return os.devnull
    if scalar is str and parameter.name == "--host":
        return "localhost"
    if scalar is str and parameter.field_info.name == "node":
        return "leader"
    return {int: "4", float: "4", str: "word", Path: "place"}[scalar]


def typed(option: Argument) -> list[str]:
    """Return an option as it may be typed."""
    return [option.name] if scalar_of(option.hint) is bool else [option.name, sample(option)]


def read(tokens: list[str]) -> tuple[Any, dict[str, Any]]:
    """Return what a command line means: the command, and what it is given."""
    command, bound, _ = app.parse_args(reorder(app, tokens), exit_on_error=False, print_error=False)
    return command, dict(bound.arguments)


COMMANDS = list(commands(app))
NAMED = [command for command in COMMANDS if command.words]
"""Without a word it is `serve`."""
NUMBERS = [
    (command, parameter)
    for command in NAMED
    for parameter in command.parameters
    if scalar_of(parameter.hint) in {int, float}
]
WITH_VARIABLE = [
    (command, option) for command in NAMED for option in command.options if option.parameter.env_var
]
WITHOUT_OUTPUT = {("client",), ("completion",), ("export",), ("trace", "export"), ("trace", "merge")}
"""What they print has one form."""
SIGNED = {("incr", "by")}
"""Whole numbers that may be negative."""
NEVER_WHOLE = ("1.5", "٣", "-1", "9" * 19)
"""No option takes these, whatever its limits."""
NEVER_A_NUMBER = ("inf", "nan", "-1", "1e300")


def refusal(tokens: list[str]) -> str:
    """Return what is said of a command line that is refused before anything is done."""
    with pytest.raises(CycloptsError) as refused:
        read(tokens)
    return explain_misuse(refused.value)


def name(value: object) -> str:
    if isinstance(value, Command):
        return " ".join(value.words) or "(none)"
    return value.name if isinstance(value, Argument) else ""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith("TRIO_KV_"):
            monkeypatch.delenv(variable)


def test_all_commands_are_found() -> None:
    """What is walked over are the commands that there are, with their options."""
    assert {"serve", "get", "sim", "chaos"} < {command.words[0] for command in COMMANDS if command.words}
    assert ("ctl", "crash") in {command.words for command in COMMANDS}
    assert len(NUMBERS) > 60
    assert len(WITH_VARIABLE) > 100
    for command in COMMANDS:
        if command.words not in WITHOUT_OUTPUT:
            assert "--output" in {each.name for each in command.options} or command.words in {(), ("serve",)}


@pytest.mark.parametrize("command", COMMANDS, ids=name)
def test_every_parameter_is_read_by_a_rule_of_ours(command: Command) -> None:
    """Each has a type that a rule is there for."""
    for parameter in command.parameters:
        scalar = scalar_of(parameter.hint)
        assert scalar in READERS or get_origin(scalar) is Literal, parameter.name


@pytest.mark.parametrize(("command", "parameter"), NUMBERS, ids=name)
def test_a_number_is_what_it_looks_like_or_refused(command: Command, parameter: Argument) -> None:
    """Nothing is rounded, nothing infinite taken, and no number is without limits; the option is named."""
    for word in NEVER_WHOLE if scalar_of(parameter.hint) is int else NEVER_A_NUMBER:
        if word == "-1" and (command.words[0], parameter.field_info.name) in SIGNED:
            continue
        if parameter.field_info.is_keyword:
            tokens = [*command.words, *command.data, f"{parameter.name}={word}"]
        else:
            others = [each for each in command.parameters if not each.field_info.is_keyword]
            data = [word if each is parameter else sample(each) for each in others]
            tokens = [*command.words, "--", *data]
        shown = parameter.name if parameter.field_info.is_keyword else parameter.name.lstrip("-").upper()
        assert shown in refusal(tokens), word


@pytest.mark.parametrize("command", NAMED, ids=name)
def test_an_empty_variable_is_none(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that are set to nothing change nothing."""
    tokens = [*command.words, *command.data]
    expected = read(tokens)
    for option in command.options:
        for variable in option.parameter.env_var or ():
            monkeypatch.setenv(variable, "")
    assert read(tokens) == expected


@pytest.mark.parametrize(
    ("command", "option"), one_of_each(WITH_VARIABLE, lambda case: (case[1].name, case[1].hint)), ids=name
)
def test_a_variable_says_what_the_option_does(
    command: Command, option: Argument, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rules read it; one that is wrong is told by its own name."""
    (variable,) = option.parameter.env_var or ()
    tokens = [*command.words, *command.data]
    is_flag = scalar_of(option.hint) is bool
    monkeypatch.setenv(variable, "1" if is_flag else sample(option))
    assert read(tokens) == read([*tokens, *typed(option)])
    if scalar_of(option.hint) in {str, Path} and option.name != "--host":
        return
    monkeypatch.setenv(variable, "a b")
    assert variable in refusal(tokens)


@pytest.mark.parametrize("word", ["0", "false", "False", "no", "off"])
def test_a_flag_can_be_switched_off_by_its_variable(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every word in the variable of a flag means yes."""
    monkeypatch.setenv("TRIO_KV_EPHEMERAL", word)
    assert read(["serve"]) == read(["serve"])
    assert "is_ephemeral=True" not in str(read(["serve"])[1])
    monkeypatch.setenv("TRIO_KV_EPHEMERAL", "on")
    assert "is_ephemeral=True" in str(read(["serve"])[1])


@pytest.mark.parametrize(
    ("command", "option"),
    [(command, option) for command, option in WITH_VARIABLE if option.name.endswith("port")],
    ids=name,
)
def test_the_variable_of_a_service_with_our_name_is_passed_over(
    command: Command,
    option: Argument,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What Kubernetes and Docker set is no number of ours; it is told by its name and by what it is."""
    (variable,) = option.parameter.env_var or ()
    tokens = [*command.words, *command.data]
    expected = read(tokens)
    monkeypatch.setenv(variable, "tcp://10.0.0.1:3001")
    assert read(tokens) == expected
    told = capsys.readouterr().err
    assert variable in told
    assert "Kubernetes" in told


@pytest.mark.parametrize("command", NAMED, ids=name)
def test_an_option_means_the_same_in_front_of_the_command(command: Command) -> None:
    """Before the first word, between two words, and behind them."""
    words, data = command.words, command.data
    for option in command.options:
        behind = read([*words, *data, *typed(option)])
        lines = [[*words[:place], *typed(option), *words[place:], *data] for place in range(len(words) + 1)]
        # What is put into the same order is read once.
        for tokens in {tuple(reorder(app, line)): line for line in lines}.values():
            assert read(tokens) == behind, tokens


@pytest.mark.parametrize(
    ("line", "meaning"),
    [
        ("--port 1 get k", "get --port 1 k"),
        ("--port=1 --timeout 3 get k -- --x", "get --port=1 --timeout 3 k -- --x"),
        ("ctl --data-dir D crash 2", "ctl crash --data-dir D 2"),
        ("--data-dir D ctl -o json crash 2", "ctl crash --data-dir D -o json 2"),
        ("-ojson status", "status -ojson"),
        ("--seed 3 sim -v", "sim --seed 3 -v"),
        ("--no-trace chaos", "chaos --no-trace"),
        ("--help ctl crash", "ctl crash --help"),
        ("--data-dir get", "--data-dir get"),
        ("--port 1", "--port 1"),
        ("set get status", "set get status"),
        ("-- get k", "-- get k"),
        ("--prot 1 get k", "--prot 1 get k"),
    ],
)
def test_words_are_put_in_order(line: str, meaning: str) -> None:
    """Only whole options of the command move, and a value that is called as a command is none."""
    assert reorder(app, line.split()) == meaning.split()


def test_a_transaction_of_no_lists_is_one_that_does_nothing() -> None:
    """As on the wire, where each of the lists may be left out."""
    assert parse_document("{}") == parse_document('{"if": [], "then": [], "else": []}')


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("--port 1 gett k", "did you mean get?"),
        ("ctl --timeout 1 crsh 2", "did you mean ctl crash?"),
        ("ctl --dat-dir D crash 2", "did you mean --data-dir?"),
        ("--data-dir D ctl", "ctl needs a command"),
        ("--data-dir D wal verify d", "wal verify: there is no option --data-dir"),
        ("--nodes 3 get k", "get: there is no option --nodes"),
        ("--port 1 ctl crash 2", "ctl crash: there is no option --port: did you mean --control-port?"),
        ("set snack --if-revison", "did you mean --if-revision?"),
        ("set snack nuts --if-revison 3", "did you mean --if-revision?"),
        ("export --port 1", "did you mean --control-port?"),
        ("get k --control-port 1", "there is no option --control-port: there are --ca, "),
        ("get k -o", "-o needs a value: one of text, table, json"),
        ("ctl partition 1,2", "at least two, as 1,2/3,4,5"),
        ("get --stal", "did you mean --stale?"),
        ("delete --dry-run", "data behind --"),
        ("delete -f", "there is no option -f"),
        ("cas lock v --expected --prt", "--expected needs a value"),
        ("set k v -- --port 1", "one word too many"),
        ("set k", "VALUE is missing: type it, or name a --file"),
        ("-- get k", "'get' 'k' is too much; see trio-kv --help"),
        ("get k --port", "--port needs a value"),
        ("--host 127.0.0.1:3001", "a port has its own option"),
        ("--host [::1]:3001", "a port has its own option"),
        ("get k --host tcp://10.0.0.1", "is no host"),
        ("get k --host a..b", "can be no host's name"),
        ("get k --host=", "is no host"),
        ("get k --port 0", "must be >= 1"),
        ("--data-dir=", "empty path"),
        ("backup ''", "empty path"),
        ("ctl partition 1,٢/3", "write 1,2/3,4,5"),
        ("ctl partition 1_0/3", "write 1,2/3,4,5"),
        ("ctl cut 1-1.5", "write 1-2"),
        ("--line-bytes-max 4097 --pending-bytes-max 4096", "no line of that length"),
        ("--ephemeral --data-dir d", "--ephemeral and --data-dir can't go together"),
        ("--data-dir d --ephemeral", "--ephemeral and --data-dir can't go together"),
    ],
)
def test_what_is_mistyped_is_refused_with_what_would_be_right(
    line: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An option that there is not is never data, and a word in the wrong place is named."""
    assert main(shlex.split(line)) == 2
    shown = capsys.readouterr()
    assert hint in shown.err
    assert shown.out == ""


@pytest.mark.parametrize("command", [each for each in NAMED if each.data], ids=name)
def test_a_mistyped_option_never_takes_the_place_of_a_word(command: Command) -> None:
    """Wherever a word must stand, `--none-such` is refused; behind `--` it is a word."""
    for place in range(len(command.data)):
        data = [*command.data[:place], "--none-such", *command.data[place + 1 :]]
        assert "no option --none-such" in refusal([*command.words, *data])


@pytest.mark.parametrize("number", ["-5", "-1.5", "-1e3", "-0"])
def test_a_negative_number_is_a_value(number: str) -> None:
    """It looks like no option, so that it needs no `--`."""
    for tokens in (["set", "k", number], ["cas", "k", number, "--expected", number]):
        arguments = read(tokens)[1]
        assert arguments["value"] == number
        assert arguments.get("expected", number) == number


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("set k -", "k", "-"),
        ("set - --port 1 v", "-", "v"),
        ("--port 1 set k - --if-revision 3", "k", "-"),
        ("set --if-revision=3 - -5", "-", "-5"),
        ("set - -- -x", "-", "-x"),
        ("cas k - --expected -", "k", "-"),
    ],
)
def test_a_lone_hyphen_is_data(line: str, key: str, value: str) -> None:
    """It stands for stdin by custom, and is no option; what is mistyped beside it is refused all the same."""
    arguments = read(line.split())[1]
    assert (arguments["key"], arguments["value"]) == (key, value)
    assert arguments.get("expected", "-") == "-"
    assert "no option --none-such" in refusal(["set", "--none-such", "k", "-"])


def test_an_option_may_take_what_looks_like_one_behind_an_equals_sign() -> None:
    """`--expected=-x` is how a value that begins with a hyphen is given to an option."""
    assert read(["cas", "k", "v", "--expected=-x"])[1]["expected"] == "-x"


@pytest.mark.parametrize("flag", ["-h", "--help", "--version"])
def test_help_in_the_place_of_a_word_is_no_success(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Help alone is what was asked for; beside it something else was, and is not done."""
    for tokens in (["cas", "lock", flag], ["set", flag, "v"], ["delete", flag, "--port", "1"]):
        assert main(tokens) == 2
        assert "nothing of the rest was done" in capsys.readouterr().err
    for tokens in ([flag], ["cas", flag], [flag, "cas"], ["ctl", "crash", flag]):
        assert main(tokens) == 0
        assert capsys.readouterr().err == ""
    assert read(["set", "k", "--", flag])[1]["value"] == flag


def test_what_was_typed_stands_against_a_variable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two options that exclude each other a typed one wins over a variable; two variables are refused."""
    assert CONTRADICTIONS[0] == ("--ephemeral", "--data-dir")
    monkeypatch.setenv("TRIO_KV_DATA_DIR", "of-the-variable")
    assert "is_ephemeral=True" in str(read(["serve", "--ephemeral"])[1])
    assert "of-the-variable" not in str(read(["serve", "--ephemeral"])[1])
    assert "of-the-variable" in str(read(["serve", "--ephemeral=false"])[1])
    monkeypatch.setenv("TRIO_KV_EPHEMERAL", "0")
    assert "of-the-variable" in str(read(["serve"])[1])
    monkeypatch.setenv("TRIO_KV_EPHEMERAL", "1")
    assert "is_ephemeral=True" not in str(read(["serve", "--data-dir", "typed"])[1])
    assert main(["serve"]) == 2
    assert "TRIO_KV_EPHEMERAL and TRIO_KV_DATA_DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("[::1]", "::1"),
        ("::1", "::1"),
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("é.example",) * 2,
    ],
)
def test_a_host_may_stand_in_brackets(text: str, host: str) -> None:
    """An address is taken as it stands in front of a port, too."""
    assert read_host(text) == host


@pytest.mark.parametrize(
    "word",
    [
        "1.5",
        "0.4",
        "1.0",
        "1e1",
        "0x1",
        "0b1",
        "1_0",
        "٣",
        "+1",
        " 1",
        "1 ",
        "1\n",
        "",
        "one",
        "9" * 19,
        "1" * 5000,
    ],
)
def test_a_whole_number_is_decimal_digits(word: str) -> None:
    """What Python, C or a pocket calculator would take for one besides is refused."""
    with pytest.raises(ValueError, match="no whole number"):
        read_whole(word)


@pytest.mark.parametrize(
    "word", ["inf", "-Infinity", "nan", "1e400", "0x1p3", "1_0.5", "٣", "", ".", "e3", "half"]
)
def test_a_number_is_finite(word: str) -> None:
    """A time without end and a chance that is no number would break what computes with them."""
    with pytest.raises(ValueError, match="no number"):
        read_number(word)


@pytest.mark.parametrize(
    ("word", "number"), [("0.5", 0.5), (".5", 0.5), ("5.", 5), ("1e-3", 0.001), ("12", 12)]
)
def test_a_number_may_have_a_fraction(word: str, number: float) -> None:
    """As people write it."""
    assert read_number(word) == number


def test_the_largest_number_is_read_exactly() -> None:
    """No digit is lost on the way through a float."""
    assert read_whole(str((1 << 63) - 1)) == (1 << 63) - 1


def test_no_finding_has_the_code_of_an_unexpected_error(capsys: pytest.CaptureFixture[str]) -> None:
    """70 and 74 mean the same for all commands, and every help that tells codes tells them."""
    assert (ExitCode.FAILED, ExitCode.NOT_TOLD) == (70, 74)
    for verdicts in (chaos_options.Verdict, wal.Verdict, campaign.Verdict, feed.Finding):
        assert not {int(verdict) for verdict in verdicts} & {70, 74}
    for words in ([], ["chaos"], ["sim"], ["trace"], ["trace", "check"], ["wal"], ["wal", "verify"]):
        assert main([*words, "--help"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "70 an unexpected error" in shown
        assert "74 " in shown
