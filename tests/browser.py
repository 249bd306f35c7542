"""A headless Chromium, spoken to through a pipe: for tests of pages. Where there is none, `browser()` is ''."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def browser() -> str:
    """The path of a Chromium, '' if none is installed."""
    return next((found for name in NAMES if (found := shutil.which(name))), "")


class Page:
    """A page in the browser. `errors` are exceptions and messages of errors; `requests` all addresses asked for."""

    def __init__(self, send: int, receive: int):
        self._send, self._receive = send, receive
        self._rest, self._count, self._session = b"", 0, ""
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, and its result."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._send, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer.get("result", {})

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._receive, 1 << 20)
            if not more:
                raise RuntimeError("the browser has gone")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, of: dict[str, Any]) -> None:
        match event:
            case "Runtime.exceptionThrown":
                detail = of["exceptionDetails"]
                self.errors.append(detail.get("exception", {}).get("description", detail["text"]))
            case "Runtime.consoleAPICalled" if of["type"] == "error":
                self.errors.append(str([a.get("value") for a in of["args"]]))
            case "Log.entryAdded" if of["entry"]["level"] == "error":
                self.errors.append(of["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(of["request"]["url"])
            case "Page.loadEventFired":
                self._loaded = True

    def open(self, file: Path, ready: str = "true") -> None:
        """Show a file, and wait until the expression `ready` is true."""
        self._loaded = False
        self.call("Page.navigate", url=file.as_uri())
        while not self._loaded:
            self._read()
        self.wait(ready)

    def run(self, script: str) -> Any:
        """The value of an expression, of which a promise is awaited. Raises RuntimeError for an exception."""
        answer = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", "exception"))
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Wait until an expression is true. Raises RuntimeError if it does not become so."""
        script = f"""new Promise(done => {{
            const end = Date.now() + {seconds * 1000};
            const look = () => (({condition}) ? done(true) : Date.now() > end ? done(false) : setTimeout(look, 20));
            look();
        }})"""
        if not self.run(script):
            raise RuntimeError(f"still not so: {condition}")

    def click(self, selector: str, containing: str = "") -> None:
        """A real click in the middle of the first element that fits and whose text contains `containing`, once there is
        one."""
        fits = f"[...document.querySelectorAll({json.dumps(selector)})]"
        self.wait(f"{fits}.some(e => e.textContent.includes({json.dumps(containing)}))")
        found = self.run(f"""(() => {{
            const fits = [...document.querySelectorAll({json.dumps(selector)})];
            const e = fits.find(e => e.textContent.includes({json.dumps(containing)}));
            if (!e) return null;
            e.scrollIntoView({{ block: "nearest" }});
            const r = e.getBoundingClientRect();
            return [r.left + Math.min(r.width / 2, 40), r.top + r.height / 2];
        }})()""")
        assert found is not None, f"nothing fits {selector} with {containing!r}"
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=found[0], y=found[1], button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        code = {"Enter": 13, "Escape": 27}.get(key, ord(key[0]))
        for kind in ("keyDown", "keyUp"):
            given = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **given)

    def screenshot(self, file: Path) -> None:
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


def _as_three_and_four(reads: int, writes: int) -> None:
    """In the browser's process: the numbers at which it looks for its pipes."""
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (reads, writes)]  # none is 3 or 4 itself
    for fd, wanted in zip(high, (3, 4), strict=True):
        os.dup2(fd, wanted)
        os.close(fd)


@contextmanager
def opened() -> Iterator[Page]:
    """A page in a browser of its own."""
    to_browser, from_browser = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe",
            "--no-first-run", "--window-size=1500,900", "--disable-background-networking",
            f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        process = subprocess.Popen(
            [browser(), *options],
            preexec_fn=partial(_as_three_and_four, to_browser[0], from_browser[1]),
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Page(to_browser[1], from_browser[0])
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(to_browser[1])
            os.close(from_browser[0])
