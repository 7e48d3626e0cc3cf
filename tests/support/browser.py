"""Chromium without a window, driven through its debugging pipe: what a page does, not what it looks like it does."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

__all__ = ["CHROMIUM", "WHY", "Browser"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WHY = "no Chromium on this machine: apt-get install chromium"
_PATIENCE = 30.0
"""Seconds that an answer may take."""


class Browser:
    """One page, and everything that it complained about. A context manager.

    Args:
        folder: for what Chromium writes.
    """

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        hears, self._to = os.pipe()
        self._from, tells = os.pipe()
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--window-size=1400,900"]
        script = f'exec "$@" 3<&{hears} 4>&{tells}'
        self._process = subprocess.Popen(
            ["/bin/bash", "-c", script, "-", CHROMIUM, *words, f"--user-data-dir={folder}", "about:blank"],
            pass_fds=(hears, tells),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(hears)
        os.close(tells)
        self._number = itertools.count(1)
        self._rest = b""
        self._events: list[dict[str, Any]] = []
        self._session: str | None = None
        targets = self._ask("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._ask(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(_PATIENCE)
        os.close(self._to)
        os.close(self._from)

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a file, and wait until it is there."""
        self._events.clear()
        self._ask("Page.navigate", url="about:blank")
        self._ask("Page.navigate", url=page.as_uri() + fragment)
        while not self.run("location.protocol === 'file:' && document.readyState === 'complete'"):
            pass

    def run(self, expression: str) -> Any:
        """What an expression of JavaScript comes to; a promise is waited for."""
        found = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """One key, where the focus is."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        self._ask("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self._ask("Input.dispatchKeyEvent", type="keyUp", key=key)

    def click(self, selector: str) -> None:
        """The mouse, in the middle of an element."""
        x, y = self.hover(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self._ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, selector: str) -> tuple[float, float]:
        """Move the mouse there; an element that is not seen comes into view first."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{element}.scrollIntoView({{ block: 'nearest' }})")
        x, y = self.run(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({element}.getBoundingClientRect())")
        self._ask("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return x, y

    def view(self, size: tuple[int, int] | None = None, *, dark: bool = False, media: str = "screen") -> None:
        """Look at it on a screen of another size, in the dark, or as it is printed; without arguments, as before."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", media=media, features=[scheme])
        if size is None:
            self._ask("Emulation.clearDeviceMetricsOverride")
        else:
            metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
            self._ask("Emulation.setDeviceMetricsOverride", **metrics)

    def look(self, path: Path, *, dark: bool = False) -> None:
        """A picture of what is seen."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        path.write_bytes(self.picture())

    def picture(self) -> bytes:
        """What is seen, as PNG."""
        return base64.b64decode(self._ask("Page.captureScreenshot")["data"])

    def printed(self) -> bytes:
        """All of it, as PDF."""
        return base64.b64decode(self._ask("Page.printToPDF", printBackground=True)["data"])

    def complaints(self) -> list[str]:
        """Errors and warnings since the page was opened, and every address that it asked for but its own."""
        self._ask("Runtime.evaluate", expression="0")
        told = []
        for event in self._events:
            what = event["params"]
            match event["method"]:
                case "Runtime.exceptionThrown":
                    told.append(str(what["exceptionDetails"]))
                case "Log.entryAdded" if what["entry"]["level"] in {"error", "warning"}:
                    told.append(what["entry"]["text"])
                case "Runtime.consoleAPICalled" if what["type"] in {"error", "warning"}:
                    told.append(str(what["args"]))
                case "Network.requestWillBeSent" if what.get("type") != "Document":
                    told.append(what["request"]["url"])
        return told

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._number)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                found: dict[str, Any] = answer["result"]
                return found
            if "method" in answer:
                self._events.append(answer)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], _PATIENCE)
            assert ready, "the browser does not answer"
            some = os.read(self._from, 1 << 16)
            assert some, "the browser ended"
            self._rest += some
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message
