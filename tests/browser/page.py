"""A page of the dashboard as a person uses it: waits for what can be seen, and clicks, drags and types."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

SEEN_S = 30.0
"""How long something may take until it is seen; machines of tests are slow."""
POLL_S = 0.05


class Page:
    """The page in a browser.

    Args:
        driver: the browser.

    """

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        """Load an address anew, even if only what stands behind its # is another."""
        self.driver.get("about:blank")
        self.driver.get(address)

    def run(self, script: str, *arguments: Any) -> Any:
        """Run a script in the page; return what it returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        """Return the first element of a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Return an element's text, whether it can be seen or not; "" if there is no such element."""
        return str(self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector))

    def click(self, selector: str) -> None:
        """Click an element, wherever it has to be scrolled to."""
        element = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, with nothing focused but the page."""
        self.run("document.activeElement?.blur()")
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def press_here(self, key: str) -> None:
        """Press a key where the focus is."""
        ActionChains(self.driver).send_keys(key).perform()

    def step(self, key: str) -> None:
        """Press a key that leads to another moment, and wait for that."""
        before = self.frame()
        self.press(key)
        self.wait("another moment", lambda: self.frame() != before)

    def buttons(self, selector: str) -> list[WebElement]:
        """Return the buttons inside an element that can be pressed."""
        return self.driver.find_elements(By.CSS_SELECTOR, f"{selector} button:not(:disabled)")

    def click_row(self, part: str) -> None:
        """Click the time of the newest event in the feed whose sentence holds a part."""
        script = """
            const rows = [...document.querySelectorAll('#feed li')];
            rows.find((row) => row.textContent.includes(arguments[0])).querySelector('button').click();
        """
        self.run(script, part)

    def drag(self, selector: str, right: int, down: int) -> None:
        """Drag an element so many pixels, in steps."""
        chain = ActionChains(self.driver, duration=40).click_and_hold(self.find(selector))
        for _ in range(4):
            chain = chain.move_by_offset(right // 4, down // 4)
        chain.release().perform()

    def wait(self, what: str, is_there: Callable[[], Any], seen_s: float = SEEN_S) -> Any:
        """Return what a function returns once that is true.

        Raises:
            AssertionError: it does not become true; shows what the page says instead.

        """
        deadline = time.monotonic() + seen_s
        while not (found := is_there()):
            if time.monotonic() > deadline:
                shown = [
                    self.text(selector) for selector in ("#connection", "#summary", "#caption", "#act-said")
                ]
                raise AssertionError(f"not seen within {seen_s} s: {what}; the page says {shown}")
            time.sleep(POLL_S)
        return found

    def wait_text(self, selector: str, part: str) -> str:
        """Return an element's text once it holds a part."""
        return str(
            self.wait(f"{part!r} in {selector}", lambda: part in (text := self.text(selector)) and text)
        )

    # What a person would look for.

    def roles(self) -> dict[int, str]:
        """Return what each node in the ring is, by the word under it."""
        script = """
            return [...document.querySelectorAll('#ring [data-node]')].map(
                (node) => [node.dataset.node, node.querySelector('.node-role').textContent])
        """
        return {int(node): role for node, role in self.run(script)}

    def leaders(self) -> list[int]:
        """Return the nodes with a crown: while it is cut off, an old leader may have one beside the new one."""
        return [node for node, role in self.roles().items() if role == "leader"]

    def leader(self) -> int | None:
        """Return the node with the crown, if there is exactly one."""
        leaders = self.leaders()
        return leaders[0] if len(leaders) == 1 else None

    def wait_leader(self, *, other_than: int | None = None) -> int:
        """Return the node that leads, once one does and all can be seen."""
        return int(self.wait("a leader", lambda: (leader := self.leader()) != other_than and leader))

    def wait_whole(self) -> int:
        """Return the leader, once there is one and all others follow."""
        self.wait(
            "all follow", lambda: sorted(self.roles().values())[:-1] == ["follower"] * 4 and self.leader()
        )
        return self.wait_leader()

    def frame(self) -> int:
        """Return the number of the frame that is shown."""
        shown = self.text("#when").rpartition("frame ")[2]
        return int(shown or 0)

    def other_leader(self, old: int | None) -> int | None:
        """Return a node that leads beside one that may think that it still does."""
        return next((node for node in self.leaders() if node != old), None)

    def messages(self) -> list[tuple[int, int]]:
        """Return where in the drawing there are messages that can be seen, while the view is held."""
        script = """
            const inverse = document.querySelector('#ring').getScreenCTM().inverse();
            const seen = [...document.querySelectorAll('#flights .flight')].filter(
                (each) => getComputedStyle(each).opacity === '1');
            return seen.map((each) => {
                const box = each.getBoundingClientRect();
                const point = new DOMPoint(box.left + box.width / 2, box.top + box.height / 2).matrixTransform(inverse);
                return [Math.round(point.x), Math.round(point.y)];
            });
        """
        return [(x, y) for x, y in self.run(script)]

    def outward(self, node: int) -> tuple[int, int]:
        """Return how far to drag a node to be far out of the ring."""
        script = """
            const middle = (box) => [box.left + box.width / 2, box.top + box.height / 2];
            const boxes = [document.querySelector('#ring'), arguments[0]].map((each) => each.getBoundingClientRect());
            return boxes.flatMap(middle);
        """
        x, y, node_x, node_y = self.run(script, self.find(f"#ring [data-node='{node}'] .body"))
        # Sideways: there is room to the left and to the right of all nodes but not above the first.
        return (
            (60 if node_x >= x - 5 else -60, 12 if node_y >= y else -12) if abs(node_x - x) > 20 else (0, -60)
        )

    def axe(self) -> list[str]:
        """Return what axe-core, which has been loaded, finds wrong: a rule and the elements that break it."""
        script = """
            const done = arguments[arguments.length - 1];
            axe.run({resultTypes: ['violations']}).then((found) => done(found.violations.map(
                (rule) => `${rule.id}: ${rule.nodes.map((node) => node.target.join(' ')).join(', ')}`)));
        """
        return list(self.driver.execute_async_script(script))

    def picture(self, path: Path) -> None:
        """Take a picture of the window."""
        path.write_bytes(self.driver.get_screenshot_as_png())

    def ask(self, key: str, value: str) -> None:
        """Write a key through the page's console."""
        self.run(
            "[document.querySelector('#ask-key').value, document.querySelector('#ask-value').value] = arguments",
            key,
            value,
        )
        self.click("#ask button[value=SET]")
        self.wait_text("#ask-said", f"SET {key}: done")

    def size(self, width: int, height: int) -> None:
        """Let the window have a size, whatever the browser's own least is."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def theme(self, theme: str) -> None:
        """Let the system of who looks be light or dark."""
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        # Two pictures of the screen, so that what follows sees the new ones.
        self.driver.execute_async_script(
            "requestAnimationFrame(() => requestAnimationFrame(() => arguments[arguments.length - 1]()))"
        )
