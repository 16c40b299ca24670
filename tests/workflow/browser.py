"""A headless Chromium, driven over the WebDriver protocol; test-only."""

import base64
import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


class Browser:
    """One window; every call waits for its answer."""

    def __init__(self, address: str):
        self._address = address
        options = {"binary": CHROMIUM, "args": ARGUMENTS}
        logging = {"browser": "ALL", "performance": "ALL"}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": logging}
        answer = self._post("/session", {"capabilities": {"alwaysMatch": wanted}})
        self._session = f"/session/{answer['sessionId']}"

    def _post(self, path: str, values: dict[str, Any]) -> Any:
        data = json.dumps(values).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, page: Path) -> None:
        """Load a file."""
        self._post(f"{self._session}/url", {"url": page.as_uri()})

    def run(self, script: str, *arguments: object) -> Any:
        """Return what the body of a function returns in the page."""
        return self._post(f"{self._session}/execute/sync", {"script": script, "args": arguments})

    def emulate(self, width: int, height: int = 900, scheme: str = "light") -> None:
        """Show the page at a width, in light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._command("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._command("Emulation.setEmulatedMedia", {"features": features})

    def _command(self, name: str, values: dict[str, Any]) -> Any:
        return self._post(f"{self._session}/goog/cdp/execute", {"cmd": name, "params": values})

    def screenshot(self, path: Path) -> None:
        """Write the whole page as a PNG."""
        answer = self._command("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(answer["data"]))

    def print(self, path: Path) -> None:
        """Write the page as a PDF."""
        path.write_bytes(base64.b64decode(self._post(f"{self._session}/print", {})))

    def complaints(self) -> list[str]:
        """Return the messages on the console, violations of the page's policy among them."""
        entries = self._post(f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries]

    def requests(self) -> list[str]:
        """Return the addresses that pages asked for."""
        entries = self._post(f"{self._session}/se/log", {"type": "performance"})
        events = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [e["params"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return [params["request"]["url"] for params in sent]

    def close(self) -> None:
        """End the browser."""
        request = urllib.request.Request(self._address + self._session, method="DELETE")
        urllib.request.urlopen(request, timeout=60).close()


@contextmanager
def start_browser(folder: Path) -> Iterator[Browser]:
    """Give a browser whose profile lies in `folder`; it ends with the block."""
    assert DRIVER
    environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder)}
    process = subprocess.Popen(
        [DRIVER, "--port=0"], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        found = next(m for line in lines if (m := re.search(r"on port (\d+)\.", line)))
        browser = Browser(f"http://127.0.0.1:{found[1]}")
        try:
            yield browser
        finally:
            browser.close()
    finally:
        process.terminate()
        process.wait(30)
