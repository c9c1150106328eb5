"""A page in headless Chromium over its DevTools protocol: what it draws, asks for and says at a width and a scheme."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tornado.websocket import websocket_connect

_WAIT_S = 60.0

#: What is wrong with the layout as it stands: sideways scroll of the page, boxes beyond its edge, texts of figures
#: beyond their figure or on each other, words cut off by their box.
LAYOUT = (Path(__file__).parent / "layout.js").read_text()


class Page:
    """An open tab."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._last = socket, 0
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **words: Any) -> dict[str, Any]:
        """A command and its answer; events that come before it are kept."""
        self._last += 1
        await self._socket.write_message(json.dumps({"id": self._last, "method": method, "params": words}))
        while True:
            said = json.loads(await asyncio.wait_for(self._socket.read_message(), _WAIT_S))
            if said.get("id") == self._last:
                assert "error" not in said, said
                return dict(said["result"])
            self.events.append(said)

    async def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        said = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def open(self, url: str, width: int, scheme: str) -> float:
        """Load a page at a width, in light or dark; seconds until two frames after its load event were drawn."""
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        await self.call("Emulation.setDeviceMetricsOverride", **size)
        scheme_words = [{"name": "prefers-color-scheme", "value": scheme}]
        await self.call("Emulation.setEmulatedMedia", features=scheme_words)
        self.events.clear()
        begun = time.monotonic()
        await self.call("Page.navigate", url=url)
        while not await self.ask("document.readyState == 'complete'"):
            await asyncio.sleep(0.02)
        await self.draw()
        return time.monotonic() - begun

    async def draw(self) -> None:
        """Wait until what was changed is drawn."""
        await self.ask("new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(r, 150))))")

    async def press(self, key: str, code: int) -> None:
        """A key."""
        for kind in ("rawKeyDown", "char", "keyUp"):
            if kind != "char" or key == "Enter":
                text = {"text": "\r"} if kind == "char" else {}
                await self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    async def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """Errors of console and scripts, and requests for anything but the page itself and data within it."""
        found = []
        for event in self.events:
            words = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(words["exceptionDetails"].get("text")))
            elif event["method"] == "Runtime.consoleAPICalled" and words["type"] in ("error", "warning", "assert"):
                found.append(str(words["args"]))
            elif event["method"] == "Log.entryAdded" and words["entry"]["level"] == "error":
                found.append(words["entry"]["text"])
            elif event["method"] == "Network.requestWillBeSent":
                url = words["request"]["url"]
                if not url.startswith(("file:", "data:", "blob:")):
                    found.append(f"asked for {url}")
        return found


async def with_page(browser: str, folder: Path, work: Any) -> Any:
    """What ``work(page)`` gives, with a tab of a browser that is started for it, its profile in ``folder``."""
    words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    process = subprocess.Popen(
        [browser, *words, f"--user-data-dir={folder}", "--remote-debugging-port=0", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        told = folder / "DevToolsActivePort"
        until = time.monotonic() + _WAIT_S
        while not (told.is_file() and told.read_text().count("\n")):
            assert process.poll() is None and time.monotonic() < until, "the browser did not start"
            await asyncio.sleep(0.05)
        port, place = told.read_text().split()
        root = Page(await websocket_connect(f"ws://127.0.0.1:{port}{place}"))
        tab = (await root.call("Target.createTarget", url="about:blank"))["targetId"]
        socket = await websocket_connect(f"ws://127.0.0.1:{port}/devtools/page/{tab}", max_message_size=2**28)
        try:
            return await work(Page(socket))
        finally:
            with suppress(Exception):
                await root.call("Browser.close")
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
