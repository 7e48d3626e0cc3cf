"""A real Chromium without a window, told what to do by the DevTools protocol through two pipes.

https://chromedevtools.github.io/devtools-protocol/
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

__all__ = ["CHROMIUM", "WHY", "Browser", "Page", "browsing"]

CHROMIUM: Final = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
BASH: Final = shutil.which("bash")
WHY: Final = "there is no Chromium here: apt-get install chromium"
_PATIENCE: Final = 30.0
_KEYS: Final = {"Enter": ("\r", 13), "Tab": ("\t", 9), " ": (" ", 32), "Escape": ("", 27)}
_MIDDLE: Final = """(selector => {
  const found = document.querySelector(selector);
  found.scrollIntoView({ block: "center" });
  const box = found.getBoundingClientRect();
  return [box.x + box.width / 2, box.y + box.height / 2];
})"""


class Browser:
    """One process for all tests: it takes a second to start."""

    def __init__(self, folder: Path) -> None:
        assert BASH
        assert CHROMIUM
        (hears, self._say), (self._hear, says) = os.pipe(), os.pipe()
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe")
        self._process = subprocess.Popen(
            # Chromium listens at 3 and answers at 4; not every shell moves descriptors above 9
            [BASH, "-c", f'exec "$0" "$@" 3<&{hears} 4>&{says}', CHROMIUM, *flags, f"--user-data-dir={folder}"],
            pass_fds=(hears, says),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(hears)
        os.close(says)
        self._sent, self._rest, self.events = 0, b"", list[dict[str, Any]]()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """What the browser answers; what happens meanwhile is kept in `events`."""
        self._sent += 1
        asked = {"id": self._sent, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        os.write(self._say, json.dumps(asked).encode() + b"\0")
        while (told := self.hear()).get("id") != self._sent:
            self.events.append(told)
        assert "error" not in told, told
        answer: dict[str, Any] = told["result"]
        return answer

    def hear(self) -> dict[str, Any]:
        """The next message."""
        until = time.monotonic() + _PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._hear], [], [], max(until - time.monotonic(), 0))
            part = os.read(self._hear, 1 << 20) if ready else b""
            assert part, "the browser does not answer"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told

    def close(self) -> None:
        """End it, and all that it started."""
        self.call("Browser.close")
        self._process.wait(_PATIENCE)
        os.close(self._say)
        os.close(self._hear)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, file: Path) -> None:
        self._browser = browser
        self._tab = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=self._tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.look()
        self.call("Page.navigate", url=file.resolve().as_uri())
        while not self._seen("Page.loadEventFired"):
            browser.events.append(browser.hear())

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """See `Browser.call`."""
        return self._browser.call(method, self._session, **parameters)

    def _seen(self, method: str) -> list[dict[str, Any]]:
        mine = (e for e in self._browser.events if e.get("sessionId") == self._session)
        return [e["params"] for e in mine if e["method"] == method]

    @property
    def complaints(self) -> list[str]:
        """Errors of scripts, and all that reached the console or was refused."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(e) for kind in kinds for e in self._seen(kind)]

    @property
    def requests(self) -> list[str]:
        """Addresses that were asked for; the page's own is the first."""
        return [e["request"]["url"] for e in self._seen("Network.requestWillBeSent")]

    def look(self, *, width: int = 1000, height: int = 800, dark: bool = False, media: str = "screen") -> None:
        """As on a screen of this size, with a taste of the user's."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        taste = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=media, features=taste)

    def run(self, script: str) -> Any:
        """The value of an expression; the page's policy does not bind whoever sits in front of the browser."""
        told = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of the first such element."""
        x, y = self.hover(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def hover(self, selector: str) -> tuple[float, float]:
        """Move the mouse there."""
        x, y = self.run(f"{_MIDDLE}({json.dumps(selector)})")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return x, y

    def key(self, name: str) -> None:
        """Press a key, and let it go."""
        text, code = _KEYS.get(name, (name, ord(name[0].upper())))
        same = {"key": name, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", **same, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **same)

    def picture(self, *, whole: bool = False) -> bytes:
        """As PNG: what is seen, or all of it."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}} if whole else {}
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole, **clip)["data"])

    def printed(self) -> bytes:
        """As PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def close(self) -> None:
        """Away with the tab."""
        self._browser.call("Target.closeTarget", targetId=self._tab)


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """A browser, with an empty folder for what it keeps."""
    browser = Browser(folder)
    try:
        yield browser
    finally:
        browser.close()
