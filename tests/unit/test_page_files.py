"""The files of the dashboard are as they are promised: plain, whole, of this place alone, and short."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import trio_kv.control

PAGE = Path(trio_kv.control.__file__).parent / "page"
SCRIPTS = sorted(PAGE.glob("*.js"))
FILE_LINES_MAX = 400
INDEX = (PAGE / "index.html").read_text()


class Reader(HTMLParser):
    """Notes what the policy would forbid, which ids there are, and which files are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.files: list[str] = []
        self.forbidden: list[str] = []
        self.is_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.files += [value or "" for name, value in attrs if name in {"src", "href"}]
        self.forbidden += [f"{tag} {name}" for name in given if name == "style" or name.startswith("on")]
        self.is_script = tag == "script"
        if tag == "style":
            self.forbidden.append(tag)

    def handle_data(self, data: str) -> None:
        if self.is_script and data.strip():
            self.forbidden.append("script with text")
        self.is_script = False


@pytest.fixture(scope="module")
def reader() -> Reader:
    reader = Reader()
    reader.feed(INDEX)
    return reader


def test_nothing_stands_in_the_page_that_its_policy_forbids(reader: Reader) -> None:
    """No script, style or handler stands in the HTML: the browser would pass over it."""
    assert reader.forbidden == []


def test_nothing_comes_from_elsewhere(reader: Reader) -> None:
    """Each file that is asked for lies in the folder, also those that scripts import; no address is in any of them."""
    imported = [name for path in SCRIPTS for name in re.findall(r'from "\./([^"]+)"', path.read_text())]
    assert imported
    assert {*reader.files, *imported} <= {path.name for path in PAGE.iterdir()}
    used = {*reader.files, *imported, "index.html"}
    assert {path.name for path in PAGE.iterdir()} == used, "each file is used"
    for path in PAGE.iterdir():
        addresses = set(re.findall(r"https?://[^\s\"'`$]+", path.read_text()))
        assert addresses <= {"http://www.w3.org/2000/svg"}, path.name


def test_each_element_that_a_script_asks_for_is_there(reader: Reader) -> None:
    """Ids are there once each, and those that scripts find elements by are among them."""
    assert len(reader.ids) == len(set(reader.ids))
    asked = {name for path in SCRIPTS for name in re.findall(r'byId\("([^"]+)"\)', path.read_text())}
    made = {"keys"}
    assert asked - made <= set(reader.ids)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_an_evening_and_says_what_it_is_for(path: Path) -> None:
    """As in the rest of the house: one subject a file, told at its top, and an end before its reader tires."""
    text = path.read_text()
    assert text.startswith("// ")
    assert text.count("\n") <= FILE_LINES_MAX
