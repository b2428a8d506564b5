"""One browser for each file of tests. Where there is none, or no Selenium, the tests are skipped and say so.

`nox -s browser` installs what is missing and asks for it by TRIO_KV_BROWSER=required: then nothing is skipped.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from tests.browser.page import Page

BINARY = "chromium"
DRIVER = "chromedriver"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,800",
    # A name that somebody else made point here, as in DNS rebinding.
    "--host-resolver-rules=MAP elsewhere.test 127.0.0.1",
)


def missing() -> str:
    """Return what the tests lack here, or ""."""
    try:
        import selenium  # noqa: F401, PLC0415
    except ImportError:
        return "no selenium"
    return "" if shutil.which(BINARY) and shutil.which(DRIVER) else f"no {BINARY} with its {DRIVER}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of this folder with a word where they can't be run."""
    reason = missing()
    if not reason or os.environ.get("TRIO_KV_BROWSER") == "required":
        return
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(
                pytest.mark.skip(reason=f"{reason} here; `nox -s browser` installs it where root may")
            )


def start_browser(profile: Path) -> "Chrome":
    """Return a new browser with an empty profile."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService  # noqa: PLC0415

    options = ChromeOptions()
    options.binary_location = shutil.which(BINARY) or BINARY
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return Chrome(options, ChromeService(shutil.which(DRIVER)))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Page"]:
    """Give a page of a browser that is closed at the end."""
    from tests.browser.page import Page  # noqa: PLC0415

    driver = start_browser(tmp_path_factory.mktemp("profile"))
    try:
        yield Page(driver)
    finally:
        driver.quit()
