"""What the tests of ``analysis`` share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from a_browser import Browser


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A Chromium that keeps nothing and that no name but this machine's leads anywhere."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if None in found.values():
        missing = ", ".join(name for name, path in found.items() if path is None)
        pytest.skip(f"{missing} not found (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    profile = tmp_path_factory.mktemp("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",  # tests run as root in containers
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--force-prefers-reduced-motion",
        f"--user-data-dir={profile}",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(found["chromedriver"], log_output=os.devnull)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(120)
    yield Browser(driver)
    driver.quit()
    shutil.rmtree(Path(profile), ignore_errors=True)
