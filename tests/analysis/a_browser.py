"""A headless Chromium for the tests that look at pages as a reader does."""

from __future__ import annotations

import json
from typing import Any


class Browser:
    """One window, and everything that it said and asked for."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str, width: int = 1200, height: int = 900) -> None:
        """Load a page in a window of a size in CSS pixels; what earlier pages said and asked for is forgotten."""
        self.driver.get("about:blank")  # the earlier page may go on asking until it is left
        self.said(), self.asked()
        self.resize(width, height)
        self.driver.get(address)

    def resize(self, width: int, height: int = 900) -> None:
        """Change the window's inside, also to less than Chromium's own least width."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def said(self) -> list[str]:
        """Errors and warnings on the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]

    def asked(self) -> list[str]:
        """Addresses that were requested since the last call; what a page carries in itself is no request."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        return [address for address in asked if not address.startswith("data:")]

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of some JavaScript."""
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        """Elements by CSS."""
        return list(self.driver.find_elements("css selector", selector))

    def one(self, selector: str) -> Any:
        """The first element by CSS."""
        return self.driver.find_element("css selector", selector)
