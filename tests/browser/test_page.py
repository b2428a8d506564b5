"""Claims about the dashboard, as somebody sees them in a browser, of a real cluster of five nodes.

The tests use one server and one browser, one after the other; each leaves a cluster behind that is whole.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest

if TYPE_CHECKING:
    from tests.browser.page import Page


READY_S = 60.0
IMAGES = Path(__file__).parents[2] / "docs" / "images"
PICTURES = (
    ("dashboard-light", 1280, 800, "light"),
    ("dashboard-narrow", 360, 780, "light"),
    ("dashboard-dark", 1280, 800, "dark"),
)
LOADED_S = 30.0
"""For so long the pictures' clients are at work, so that the lines of their speed can be seen."""
SETTLED_S = 1.0
"""After so long in a window of another size messages are under way again."""
STEPS_MAX = 10
"""How many frames there may be between the last one with a leader and the one that tells of its crash."""
LEADS_ON = {"Next", "Leave and undo", "End the tour"}
LEFT, SPACE, ESCAPE, ENTER = "\ue012", "\ue00d", "\ue00c", "\ue007"


@attrs.define
class Server:
    """A store that runs, and can be started anew on the same port and data."""

    data_dir: Path
    process: subprocess.Popen[str] | None = None
    control_port: int = 0
    port: int = 0
    """For clients, another one after each start."""

    def start(self) -> None:
        options = [
            "--port",
            "0",
            "--control-port",
            str(self.control_port),
            "--log-json",
            "--segment-bytes",
            "65536",
        ]
        command = [sys.executable, "-m", "trio_kv", "serve", "--data-dir", str(self.data_dir), *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            event = json.loads(line)
            if event["event"] == "server.started":
                self.control_port, self.port = event["control_port"], event["port"]
                return
        pytest.fail("the store did not start")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate(timeout=READY_S)

    @property
    def token(self) -> str:
        return str(json.loads((self.data_dir / "control.json").read_text())["token"])

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.control_port}/"

    @property
    def whole_address(self) -> str:
        return f"{self.address}#token={self.token}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("data"))
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def seen(server: Server, page: "Page") -> "Page":
    """Return the page, open, live and in the window of a desk, of a cluster that is whole."""
    page.size(1280, 800)
    if not page.driver.current_url.startswith(server.address):
        page.open(server.whole_address)
    page.wait_text("#connection", "connected")
    page.press(ESCAPE)
    page.click("#live")
    page.wait_whole()
    return page


def test_five_nodes_and_a_leader_are_seen(server: Server, page: "Page") -> None:
    """The page shows all nodes in the ring and in the table, one crown, and nothing of the token in its address."""
    page.open(server.whole_address)
    leader = page.wait_whole()
    assert set(page.roles()) == {1, 2, 3, 4, 5}
    assert page.run("return document.querySelectorAll('#nodes tbody tr').length") == 5
    page.wait_text("#summary", f"n{leader} leads")
    page.wait_text("#caption", f"n{leader} leads")
    assert server.token not in page.driver.current_url
    assert page.driver.current_url == server.address


def test_a_crash_by_click_brings_a_new_leader_and_the_tape_shows_the_old_one(seen: "Page") -> None:
    """Who clicks the leader and crashes it sees another one elected; a moment before the crash shows the old one."""
    old = seen.leader()
    before = seen.frame()
    seen.click(f"#ring [data-node='{old}']")
    seen.click("[data-command=crash]")
    new = seen.wait_leader(other_than=old)
    assert new != old
    seen.wait_text("#feed", f"n{old} crashed")
    seen.wait_text("#feed", f"n{new} leads term")
    seen.wait_whole()
    seen.press(SPACE)
    seen.wait_text("#past", "the cluster goes on")
    held = seen.frame()
    # From the event in the feed to its moment, and from there step by step to before it.
    seen.click_row(f"n{old} crashed")
    seen.wait("the moment of the crash", lambda: before < seen.frame() < held)
    for _ in range(STEPS_MAX):
        if seen.leader() == old:
            break
        seen.step(LEFT)
    assert seen.leader() == old
    assert f"n{old} leads" in seen.text("#summary")
    address = seen.driver.current_url
    assert "run=" in address
    assert f"frame={seen.frame()}" in address
    # The same moment after a reload, which has only the server to ask.
    seen.driver.refresh()
    seen.wait("the old leader after a reload", lambda: seen.leader() == old)
    seen.wait_text("#past", "Held at")
    assert seen.driver.current_url == address
    seen.press("l")
    assert seen.wait_leader(other_than=old) == new


def test_dragging_a_node_away_parts_the_network_and_heals_it(seen: "Page") -> None:
    """A leader that is dragged out of the ring is cut off: another one leads; undo heals."""
    old = seen.leader()
    assert old is not None
    right, down = seen.outward(old)
    seen.drag(f"#ring [data-node='{old}'] .body", right, down)
    seen.wait_text("#act-said", "Parted")
    new = seen.wait("a leader of the others", lambda: seen.other_leader(old))
    assert new != old
    assert seen.run("return document.querySelectorAll('#ring .link.cut').length") == 4
    seen.click("#broken .done button")
    seen.wait(
        "no link is cut", lambda: seen.run("return document.querySelectorAll('#ring .link.cut').length") == 0
    )
    seen.wait_whole()


def test_sides_are_chosen_without_a_mouse(seen: "Page") -> None:
    """The dialog parts the network by keys alone, and says beforehand who can go on."""
    seen.run("document.querySelector('[data-command=partition]').focus()")
    seen.press_here(ENTER)
    seen.wait_text("#ask-sides .fate", "n")
    seen.run("document.querySelector('#ask-sides button[type=submit]').focus()")
    seen.press_here(ENTER)
    seen.wait(
        "links are cut", lambda: seen.run("return document.querySelectorAll('#ring .link.cut').length") > 0
    )
    seen.wait(
        "all can be mended", lambda: seen.run("return !document.querySelector('#broken .good').disabled")
    )
    seen.click("#broken .good")
    seen.wait_whole()


def test_messages_stay_on_their_links_when_the_window_changes(seen: "Page") -> None:
    """What is seen of a moment is at the same places of the drawing in a window of another size."""
    seen.press(SPACE)
    for _ in range(STEPS_MAX):
        if seen.messages():
            break
        seen.step(LEFT)
    before = seen.messages()
    assert before
    seen.size(360, 780)

    def are_there() -> bool:
        places = zip(before, seen.messages(), strict=True)
        return all(abs(x - now_x) <= 2 and abs(y - now_y) <= 2 for (x, y), (now_x, now_y) in places)

    seen.wait("the messages at their places", are_there)


def test_a_request_is_seen_on_its_way(seen: "Page") -> None:
    """SET and GET in the page are those of the store, and each shows its hops."""
    for action, shown in (("SET", "a majority has it on disk"), ("GET", '"chips"')):
        seen.click(f"#ask button[value={action}]")
        seen.wait_text("#ask-said", shown)
        assert seen.run("return document.querySelectorAll('#hops li').length") > 2


@pytest.mark.parametrize("tour", [2, 3])
def test_a_tour_of_the_network_is_walked_through(seen: "Page", tour: int) -> None:
    """A partition, and a write that nobody acknowledged: each step can be seen, and all is whole at the end."""
    seen.click("#tour-open")
    seen.click(f"#tour .tours li:nth-child({tour}) button")
    for step in range(1, 5):
        seen.wait_text("#tour-title", f"{step} of 4")
        for button in seen.buttons("#tour"):
            if button.text not in LEADS_ON:
                button.click()
        # The last step has nothing to be seen, but an answer.
        done = "Next" if step < 4 else "End the tour"
        seen.wait_text("#tour button.primary:not(:disabled)", done)
        seen.click("#tour button.primary:not(:disabled)")
    seen.wait_whole()


def test_a_tour_breaks_something_real_and_undoes_it(seen: "Page") -> None:
    """The first tour stops the leader, waits for the new one, and brings the old one back."""
    old = seen.leader()
    assert old is not None
    seen.click("#tour-open")
    seen.click("#tour .tours button")
    for step, does in enumerate(("", "Stop the leader", "An election", "", "Start it again"), start=1):
        seen.wait_text("#tour-title", f"{step} of 5")
        if does in {button.text for button in seen.buttons("#tour")}:
            seen.click("#tour .primary")
        if does:
            seen.wait_text("#tour .tour-state", "There it is")
        if step == 2:
            # The tour may have it a picture earlier than the nodes.
            seen.wait("the leader to be stopped", lambda: seen.roles()[old] == "stopped")
        next(button for button in seen.buttons("#tour") if button.text in {"Next", "End the tour"}).click()
    seen.wait_whole()
    assert seen.run("return document.querySelector('#tour').hidden")


def test_keys_can_be_switched_off(seen: "Page") -> None:
    """`?` shows the help, Escape closes it, Space holds the view; without single keys none of them does a thing."""
    seen.press("?")
    assert seen.run("return document.querySelector('#help').open")
    seen.click("#keys")
    seen.press(ESCAPE)
    assert not seen.run("return document.querySelector('#help').open")
    seen.press("?", SPACE)
    assert not seen.run("return document.querySelector('#help').open")
    assert seen.run("return document.querySelector('#past').hidden")
    seen.click("#help-open")
    seen.click("#keys")
    seen.press(ESCAPE)
    seen.press(SPACE)
    seen.wait_text("#past", "the cluster goes on")


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (1280, "dark"), (360, "light")])
def test_axe_finds_no_fault(seen: "Page", width: int, theme: str) -> None:
    """Everybody can use the page: no rule of WCAG that axe-core can check is broken, whatever is open."""
    path = os.environ.get("AXE")
    if not path:
        pytest.skip("no axe-core here; `nox -s browser` installs it where there is npm")
    seen.size(width, 800)
    seen.theme(theme)
    seen.run(Path(path).read_text())
    for opens in ("", "#help-open", "[data-command=partition]", "#tour-open"):
        if opens:
            seen.run("document.querySelector(arguments[0]).click()", opens)
        assert seen.axe() == []
        seen.press(ESCAPE)


@pytest.fixture
def load(server: Server) -> Iterator[None]:
    """Let some clients write and read, now and then."""
    options = ["--port", str(server.port), "--connections", "4", "--rate", "12", "--duration", "300"]
    command = [sys.executable, "-m", "trio_kv", "bench", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.kill()


@pytest.mark.usefixtures("load")
def test_pictures_of_the_documentation(seen: "Page", tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """The documentation shows the page as it is: in light and dark, on a desk and on a phone. Nothing is cut off."""
    is_kept = pytestconfig.getoption("pictures")
    folder = IMAGES if is_kept else tmp_path
    for key, value in (("snack", "chips"), ("drink", "tea")):
        seen.ask(key, value)
    leader = seen.wait_leader()
    seen.wait_text("#clients-summary", "4 clients")
    time.sleep(LOADED_S if is_kept else 0)
    seen.ask("snack", "nuts")
    seen.click(f"#ring [data-node='{leader}']")
    seen.run("document.activeElement.blur()")
    for name, width, height, theme in PICTURES:
        seen.size(width, height)
        seen.theme(theme)
        time.sleep(SETTLED_S if is_kept else 0)
        if theme == "dark":
            seen.click("[data-command=partition]")
            seen.click("#ask-sides button[type=submit]")
            # It had one side to itself.
            seen.wait("a leader of the others", lambda: seen.other_leader(leader))
            seen.wait("the old one asks around", lambda: seen.roles()[leader] == "asks around")
        seen.run("for (const each of document.querySelectorAll('*')) each.scrollTop = 0")
        assert seen.run("return document.documentElement.scrollWidth <= innerWidth"), (
            f"{name} is wider than its window"
        )
        seen.picture(folder / f"{name}.png")
        assert (folder / f"{name}.png").stat().st_size > 10_000
    seen.size(1280, 800)
    seen.click("#broken .good")


def test_a_wrong_token_gets_nothing(server: Server, page: "Page") -> None:
    """Without the token no node is drawn, and the page says how to get in."""
    page.open(f"{server.address}#token=wrong")
    page.run("sessionStorage.clear()")
    page.open(f"{server.address}#token=wrong")
    page.wait_text("#gate-why", "does not know this token")
    assert page.roles() == {}
    assert page.frame() == 0
    page.find("#gate-token").send_keys(server.whole_address)
    page.click("#gate-form button")
    page.wait_whole()


def test_another_host_and_another_origin_get_nothing(server: Server, page: "Page") -> None:
    """A name that points here is refused, and so is the WebSocket of a page from elsewhere, even with the token."""
    page.open(f"http://elsewhere.test:{server.control_port}/")
    assert "127.0.0.1" in page.text("body")
    assert page.run("return document.querySelector('#ring')") is None
    page.open("data:text/html,<title>elsewhere</title>")
    script = """
        const [address, token, done] = arguments;
        const socket = new WebSocket(address);
        socket.onopen = () => socket.send(JSON.stringify({auth: token}));
        socket.onmessage = (message) => done(message.data);
        socket.onclose = () => done("closed");
    """
    address = f"ws://127.0.0.1:{server.control_port}/ws"
    assert page.driver.execute_async_script(script, address, server.token) == "closed"


def test_the_page_comes_back_after_a_restart(server: Server, seen: "Page") -> None:
    """When the server is gone the page says so; when it is there again, the page is too, without a reload."""
    server.kill()
    seen.wait_text("#connection", "lost")
    server.start()
    seen.wait_text("#connection", "connected")
    seen.wait_whole()
    frame = seen.frame()
    seen.wait("new frames", lambda: seen.frame() > frame)
