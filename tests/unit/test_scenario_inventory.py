"""Which scenarios of the list are tests here, and that each of them was seen to fail.

The list names bugs of real systems: D durable state and restart, L log and commit, R reads, N snapshots, E elections,
C clients. A scenario is a test or a golden script with the id in its name; that it can fail is shown by a mutant with
the same id.
"""

import re

import pytest

from tests.mutants.all_mutants import MUTANTS
from tests.mutants.registry import ROOT

IDS = [
    f"{kind}{number}"
    for kind, last in zip("DLRNEC", (12, 9, 8, 9, 10, 10), strict=True)
    for number in range(1, last + 1)
]
NOT_YET = {
    "C4": "no locks yet",
    "C5": "no leases yet",
    "N3": "no changes of membership yet",
}
NOT_HERE = {
    "C9": "nothing is asked at an old revision, so what a node has forgotten decides nothing",
    "R5": "no read rests on a lease: each one takes a round of heartbeats, whatever the clocks say",
    "E5": "there is one version, and pre-vote can't be turned off",
    "E7": "what must not happen is an answer of another kind: a transfer to itself is refused",
}
"""Scenarios that can't occur, as nothing here does what went wrong."""
SEEN_TO_GO_WELL = {
    "D4": "the commit index is not saved, so nothing can put it ahead of the log",
    "D6": "what is applied is not saved either: a start replays the log from its snapshot",
    "N5": "a snapshot that is taken and one that is installed are jobs of one thread, one after the other",
    "N7": "followers apply all that leaders do, or nothing works",
    "E7": "see above",
}
"""Scenarios that are tests, and have no mutant: no small change of the code puts the bug back."""


def names() -> list[str]:
    """Return the names of all tests and golden scripts."""
    found = [path.stem for path in (ROOT / "tests" / "scripts").rglob("*.txt")]
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        found += re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    return found


def ids_of(name: str) -> set[str]:
    """Return the scenario ids in a name."""
    return set(re.findall(r"(?<![A-Za-z0-9])[DLRNEC]\d+(?![A-Za-z0-9])", name.replace("_", " ")))


@pytest.mark.parametrize("scenario", [each for each in IDS if each not in NOT_YET.keys() | NOT_HERE.keys()])
def test_the_scenario_is_a_test(scenario: str) -> None:
    """The id stands in the name of a test or of a golden script."""
    assert [name for name in names() if scenario in ids_of(name)]


@pytest.mark.parametrize(
    "scenario",
    [each for each in IDS if each not in NOT_YET.keys() | NOT_HERE.keys() | SEEN_TO_GO_WELL.keys()],
)
def test_the_scenario_was_seen_to_fail(scenario: str) -> None:
    """A bug of the scenario's kind is among the mutants, and something finds it."""
    assert [name for name in MUTANTS if scenario in ids_of(name)]


@pytest.mark.parametrize("path", range(1, 8))
def test_the_read_path_is_a_script_with_a_mutant(path: int) -> None:
    """Each of the seven ways in which reads of others went wrong is a golden script, and a mutant changes its page."""
    (script,) = (ROOT / "tests" / "scripts" / "raft").glob(f"read_path_{path}_*.txt")
    assert [mutant for mutant in MUTANTS.values() if any(f"[{script.stem}]" in test for test in mutant.tests)]


def test_every_script_of_a_scenario_has_a_mutant() -> None:
    """A golden script named after a scenario has a bug of its own that it was seen to find."""
    scripts = {path.stem for path in (ROOT / "tests" / "scripts" / "raft").glob("*.txt") if ids_of(path.stem)}
    # A transfer to itself, a run of the other branch of figure 8, and a stall with nobody to hand over to show how
    # things go well; there is no bug to put back.
    untested = {"elections_E7_asked_of_the_leader_itself", "commit_L1_figure_8_e", "disk_E1_alone"}
    found = {test.partition("[")[2].rstrip("]") for mutant in MUTANTS.values() for test in mutant.tests}
    assert scripts - untested <= found


def test_every_id_in_the_code_is_explained() -> None:
    """A reader who meets a scenario's id in a comment or docstring finds it on the page of scenarios."""
    page = (ROOT / "docs" / "scenarios.md").read_text()
    explained = set(re.findall(r"^\| ([A-Z]\d+) \|", page, flags=re.MULTILINE))
    named = set[str]()
    for path in sorted((ROOT / "trio_kv").rglob("*.py")):
        for listed in re.findall(r"scenarios? ((?:[A-Z]\d+(?:, | and |/)?)+)", path.read_text()):
            named |= set(re.findall(r"[A-Z]\d+", listed))
    assert named, "the code names scenarios"
    assert named <= explained
    assert set(IDS) <= explained


def test_the_list_is_up_to_date() -> None:
    """What is said to be missing is missing."""
    there = set[str]().union(*map(ids_of, names()))
    assert not there & NOT_YET.keys()
