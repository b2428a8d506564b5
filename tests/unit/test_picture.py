"""Pictures of histories: what they say, and what they keep out."""

import random
import re
from xml.etree import ElementTree as ET

import attrs

from trio_kv.check.history import Fault, History, Operation
from trio_kv.check.linearizability import Verdict, check_history
from trio_kv.check.picture import VIOLATIONS_DRAWN_MAX, draw_history
from trio_kv.check.picture_density import LANES_MAX, longest_wait
from trio_kv.check.picture_svg import LEFT, RIGHT, even_axis, fit, round_moments, stretched_axis

HOSTILE = "<script>alert('x')</script>&\"\u202e\x00"


def write(client: int, call_s: float, return_s: float, value: str, key: str = "k") -> Operation:
    return Operation(client, "set", key, call_s, return_s, "ok", value=value.encode())


def read(client: int, call_s: float, return_s: float, value: str, key: str = "k") -> Operation:
    return Operation(client, "get", key, call_s, return_s, "ok", result=value.encode(), node=2)


STALE = (write(1, 1, 1.1, '"c1-7"'), write(2, 1.15, 1.198, '"c2-9"'), read(3, 1.2, 1.204, '"c1-7"'))
UNKNOWN = Operation(4, "delete", "k", 1.16, None, "unknown")
FAILED = Operation(4, "set", "k", 1.17, 1.18, "failed", value=b'"c4-1"')
FAULTS = (Fault("partition 1 | 2 3", 1.05, 1.19), Fault("kill 2", 1.2, None))


def many(clients: int, each: int) -> list[Operation]:
    rng = random.Random(1)
    operations = []
    for client in range(clients):
        for number in range(each):
            begin_s = number + rng.random() / 4
            operations.append(write(client, begin_s, begin_s + 0.5, f"{client * each + number}"))
    return operations


def draw(*operations: Operation, faults: tuple[Fault, ...] = ()) -> str:
    return draw_history(History(operations, faults), check_history(operations), "A run")


def drawings(page: str) -> list[ET.Element]:
    """Return the drawings of a page; each is well-formed."""
    return [ET.fromstring(part) for part in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def by_class(drawing: ET.Element, kind: str) -> list[ET.Element]:
    return [each for each in drawing.iter() if kind in each.get("class", "").split()]


def test_page_stands_for_itself() -> None:
    """Nothing is loaded from elsewhere, and nothing runs."""
    page = draw(*STALE, faults=FAULTS).lower()
    for word in ("http:", "https:", "url(", "src=", "href=", "@import", "<script", "<link", "<iframe"):
        assert word not in page, word
    assert not re.search(r"<[^>]* on\w+=", page)


def test_all_words_from_outside_are_escaped() -> None:
    """Keys, values, faults and the title can't become markup, nor change how other words are read."""
    operations = [attrs.evolve(each, key=HOSTILE) for each in STALE]
    operations.append(read(5, 3, 4, HOSTILE, HOSTILE))
    history = History(tuple(operations), (Fault(HOSTILE, 1, 2),))
    page = draw_history(history, check_history(operations), HOSTILE)
    assert "<script" not in page
    assert "\u202e" not in page
    assert "\x00" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;&quot;" in page
    drawings(page)


def test_violation_is_named_and_marked() -> None:
    """The verdict, the sentence and the illegal step stand out."""
    page = draw(*STALE, faults=FAULTS)
    assert '<span class="badge violation">violation</span>' in page
    assert "Stale read of key k" in page
    assert "client 3 read &quot;c1-7&quot; at 1.204&nbsp;s" in page
    window = drawings(page)[0]
    assert len(by_class(window, "illegal")) == 1
    assert [each.text for each in by_class(window, "bad")] == ['get: "c1-7"']
    assert len(by_class(window, "strong")) == 2
    assert len(by_class(window, "aside")) == 1, "the write of what was read is drawn, too"
    assert 'class="worst"' in page


def test_bars_say_everything_when_pointed_at() -> None:
    """Each bar has a title with client, key, operation, moments and node."""
    titles = [each.text for each in drawings(draw(*STALE))[1].iter("title")]
    assert 'client 3, key k\nget: "c1-7"\nasked at 1.200000 s, answered at 1.204000 s by node 2' in titles


def test_unknown_outcome_is_open_ended() -> None:
    """A bar of unknown outcome goes on to the edge, with an arrow; a failed one is told by its looks."""
    lanes = drawings(draw(*STALE, FAILED, UNKNOWN))[1]
    bar = by_class(lanes, "unknown")[0]
    assert len(by_class(lanes, "open")) == 1
    assert len(by_class(lanes, "failed")) == 1
    assert float(bar.get("width", 0)) > 20
    alone = drawings(draw(*STALE, UNKNOWN))[1]
    bar = by_class(alone, "unknown")[0]
    assert float(bar.get("x", 0)) + float(bar.get("width", 0)) >= RIGHT - 3


def test_faults_are_labelled_bands() -> None:
    """Each kind of fault has a row with its name; a fault without an end goes to the edge."""
    lanes = drawings(draw(*STALE, faults=FAULTS))[1]
    words = ["".join(each.itertext()) for each in lanes.iter("text")]
    assert any("partition 1 | 2 3" in each for each in words)
    assert {"kill", "partition"} <= set(words)
    bands = by_class(lanes, "band")
    assert len(bands) == 2
    kill = bands[0]
    assert float(kill.get("x", 0)) + float(kill.get("width", 0)) >= RIGHT - 1


def test_long_run_is_drawn_as_density() -> None:
    """A long run is a chart and a lane for each client, in cells that say what they stand for."""
    page = draw(*many(10, 100), UNKNOWN, faults=FAULTS)
    (density,) = drawings(page)
    assert len(by_class(density, "strong")) == 0
    assert "client 9" in [each.text for each in density.iter("text")]
    titles = [each.text or "" for each in density.iter("title")]
    answered = sum(
        int(found[1]) for each in titles if (found := re.search(r"client \d+: (\d+) answered", each))
    )
    assert answered >= 1000
    assert len(by_class(density, "mark")) == 1
    assert "1,001 operations · 10 clients" in page
    assert "Longest time without an answer: 0.894 s, from 28.679 s on." in page


def test_page_says_what_is_left_out() -> None:
    """Operations, clients and violations that are not drawn are counted or named."""
    crowd = many(LANES_MAX + 3, 40)
    assert "The lanes of 3 more clients are not drawn." in draw(*crowd)
    stale = [write(900, 0, 0.1, '"old"'), write(900, 0.2, 0.3, '"new"'), read(901, 38, 39, '"old"')]
    later = [attrs.evolve(each, value=b'"x%d"' % number) for number, each in enumerate(crowd)]
    page = draw(*stale, *later)
    assert re.search(r"[\d,]+ more of these between the first call and the last return are not drawn", page)
    broken = [
        attrs.evolve(each, key=f"k{number:02}")
        for number in range(VIOLATIONS_DRAWN_MAX + 2)
        for each in STALE
    ]
    assert (
        f"Not drawn: the violations of k{VIOLATIONS_DRAWN_MAX:02}, k{VIOLATIONS_DRAWN_MAX + 1:02}."
        in draw(*broken)
    )


def test_history_without_verdict() -> None:
    """A run can be drawn before it is judged, and without operations."""
    page = draw_history(History(STALE, FAULTS))
    assert "badge" not in page.split("</style>")[1]
    assert len(drawings(page)) == 1
    assert "There are no operations." in draw_history(History(()))


def test_other_verdicts() -> None:
    """Valid and undecided histories are said to be so."""
    assert "Linearizable: all operations have an order." in draw(*STALE[:2])
    undecided = draw_history(History(STALE), Verdict(3, 1, (), ("k",)))
    assert "Not decided: k." in undecided
    assert '<span class="badge unknown">unknown</span>' in undecided


def test_all_at_one_moment() -> None:
    """A history without extent can be drawn: a simulated clock may stand still."""
    assert len(drawings(draw(write(1, 5, 5, "1"), read(2, 5, 5, "2")))) == 2


def test_stretched_axis() -> None:
    """Moments keep their order, and those close together get room."""
    axis = stretched_axis([0, 1e-6, 2e-6, 1000])
    places = [axis.at(each) for each in (-5, 0, 1e-6, 2e-6, 500, 1000, 2000)]
    assert places == sorted(places)
    assert places[2] - places[1] > 100
    assert (axis.at(axis.from_s), axis.at(axis.to_s)) == (LEFT, RIGHT)


def test_marks_are_round() -> None:
    """Moments are marked at round numbers, neither too few nor too many."""
    for span_s in (0.0003, 0.07, 1, 3.3, 42, 600, 86_400):
        marks = round_moments(even_axis(5, 5 + span_s))
        assert 3 <= len(marks) <= 13, span_s
        assert all(5 <= each <= 5 + span_s for each in marks)


def test_fit() -> None:
    """Words that don't fit end with a sign of it, or are left out."""
    assert fit("partition", 100) == "partition"
    assert fit("partition", 40) == "part…"
    assert fit("partition", 20) == ""
    assert fit("partition", -5) == ""


def test_longest_wait() -> None:
    """The longest time without an answer counts only answers of known outcome."""
    operations = [write(1, 0, 1, "1"), write(1, 2, 3, "2"), FAILED, write(1, 9, 10, "3")]
    assert longest_wait(operations) == (7, 3)
    assert longest_wait([UNKNOWN]) == (0, 0)
