"""Chromium without a window, over its DevTools protocol: pages as they are seen, at any width, light or dark."""

import asyncio
import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Tab:
    """An open tab. `errors` are exceptions, and what is written to the console as an error or a warning."""

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: aiohttp.ClientWebSocketResponse):
        self._loop, self._socket, self._count, self._events = loop, socket, 0, []
        self.errors: list[str] = []

    def open(self, path: Path, width: int, scheme: str = "light", height: int = 900) -> None:
        """Load the page; up to 600 pixels the screen is that of a phone."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width <= 600}
        self.call("Emulation.setDeviceMetricsOverride", **screen)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=path.as_uri())
        self._loop.run_until_complete(self._until("Page.loadEventFired"))

    def evaluate(self, expression: str):
        """The value of a JavaScript expression."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self) -> bytes:
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def call(self, method: str, **parameters):
        return self._loop.run_until_complete(self._call(method, parameters))

    async def _call(self, method: str, parameters: dict):
        self._count += 1
        await self._socket.send_json({"id": self._count, "method": method, "params": parameters})
        while (message := await self._receive()).get("id") != self._count:
            pass
        assert "error" not in message, message
        return message["result"]

    async def _until(self, event: str) -> None:
        while event not in self._events:
            await self._receive()
        self._events.clear()

    async def _receive(self) -> dict:
        message = json.loads(await self._socket.receive_str(timeout=60))
        self._events.append(message.get("method"))
        if message.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(message["params"]["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded":
            self.errors.append(message["params"]["entry"]["text"])
        if message.get("method") == "Runtime.consoleAPICalled" and message["params"]["type"] in ("error", "warning"):
            self.errors.append(str(message["params"]["args"]))
        return message


@contextmanager
def browser_tab(profile: Path) -> Iterator[Tab]:
    """A tab of a new browser, whose profile is kept in this folder."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--remote-debugging-port=0",
    ]
    command += [f"--user-data-dir={profile}", "about:blank"]
    loop = asyncio.new_event_loop()
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            address = next(found[1] for line in process.stderr if (found := re.search(r"ws://([^/]+)/", line)))
            session, socket = loop.run_until_complete(_connect(address))
            try:
                tab = Tab(loop, socket)
                for domain in ("Page", "Runtime", "Log"):
                    tab.call(f"{domain}.enable")
                yield tab
            finally:
                loop.run_until_complete(socket.close())
                loop.run_until_complete(session.close())
        finally:
            process.terminate()
            loop.close()


async def _connect(address: str) -> tuple[aiohttp.ClientSession, aiohttp.ClientWebSocketResponse]:
    session = aiohttp.ClientSession()
    async with session.get(f"http://{address}/json") as answer:
        pages = [one for one in await answer.json(content_type=None) if one["type"] == "page"]
    return session, await session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0)
