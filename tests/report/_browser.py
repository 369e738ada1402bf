"""Chromium without a window, asked over a pair of pipes: no network port, and no package."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

SECONDS = 120  # that one answer may take on a busy machine

# Each of these events is something that a page that is well never causes.
FAULTS = {
    "Runtime.exceptionThrown": lambda event: True,
    "Runtime.consoleAPICalled": lambda event: event["type"] in ("error", "assert", "warning"),
    "Log.entryAdded": lambda event: event["entry"]["level"] in ("error", "warning"),
    "Page.javascriptDialogOpening": lambda event: True,
}


class Page:
    """One tab.

    Attributes:
        faults: what the browser complained of since the last :meth:`open`.
    """

    def __init__(self, to: BinaryIO, back: BinaryIO) -> None:
        self._to, self._back, self._rest = to, back, b""
        self._number, self._session = 0, ""
        self.faults: list[dict[str, Any]] = []
        self._events: list[str] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self.ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, file: Path, *, width: int, dark: bool = False) -> None:
        """Show a file in a window so wide, and wait until it has loaded."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.faults, self._events = [], []
        self.ask("Page.navigate", url=file.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._next()

    def run(self, script: str) -> Any:
        """Return the value of a JavaScript expression; of a promise what it comes to."""
        found = self.ask(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def click(self, selector: str) -> None:
        """Click the first element of a CSS selector, as a person would."""
        x, y = self._middle(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, selector: str) -> None:
        """Move the pointer over the first element of a CSS selector."""
        x, y = self._middle(selector)
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def type(self, selector: str, text: str) -> None:
        """Write into a field."""
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self.ask("Input.insertText", text=text)

    def screenshot(self) -> bytes:
        """Return the window as PNG."""
        return base64.b64decode(self.ask("Page.captureScreenshot")["data"])

    def _middle(self, selector: str) -> tuple[float, float]:
        """Scroll to an element and return its middle; the event of scrolling is then over."""
        found = self.run(
            f"(async () => {{ const e = document.querySelector({json.dumps(selector)});"
            "e.scrollIntoView({block: 'center'});"
            "for (const _ of [1, 2]) await new Promise(requestAnimationFrame);"
            "const r = e.getBoundingClientRect();"
            "return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        return found[0], found[1]

    def _next(self) -> dict[str, Any]:
        """Return the next message, and note what it says of faults."""
        until = time.monotonic() + SECONDS
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._back], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the browser does not answer"
            read = os.read(self._back.fileno(), 2**20)
            assert read, "the browser has ended"
            self._rest += read
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        method = message.get("method", "")
        self._events.append(method)
        if method in FAULTS and FAULTS[method](message["params"]):
            self.faults.append(message["params"])
        return message


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Start Chromium with a profile of its own, and end it after the block."""
    there, to = os.pipe()
    back, here = os.pipe()
    words = (
        "exec chromium --headless --no-sandbox --disable-gpu --no-first-run "
        f"--disable-dev-shm-usage --user-data-dir={profile} --remote-debugging-pipe about:blank "
        f"3<&{there} 4>&{here}"
    )
    process = subprocess.Popen(
        ["bash", "-c", words],
        pass_fds=(there, here),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(there)
    os.close(here)
    try:
        with os.fdopen(to, "wb") as sent, os.fdopen(back, "rb", buffering=0) as got:
            yield Page(sent, got)
    finally:
        process.terminate()
        process.wait(SECONDS)
