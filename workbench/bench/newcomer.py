"""A new browser that nobody looks into.

An automated browser has its inspector on, which takes the place of each thrown error in the scripts: plotly's 5 MB are
then read several times over, a third of a second that no visitor waits for. So here nothing is asked until the page is
there, but for one promise of when that is.
"""

import asyncio
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient
from tornado.websocket import websocket_connect

from same.errors import RunFailed

_OPTIONS = ("--headless=new", "--no-sandbox", "--no-first-run", "--window-size=1280,800", "--remote-debugging-port=0")
_PORT = "DevToolsActivePort"
_LOOK_MS = 10
_PROMISE = """new Promise(done => {
  const plot = one => one.matches('.js-plotly-plot') && one.querySelector('.heatmaplayer image');
  const drawn = root => [...root.querySelectorAll('*')].some(
    one => plot(one) || (one.shadowRoot && drawn(one.shadowRoot)));
  const content = () => performance.getEntriesByName('first-contentful-paint')[0].startTime;
  const look = () => drawn(document) && !document.getElementById('sketch')
    ? requestAnimationFrame(() => requestAnimationFrame(() => done([performance.now(), content()])))
    : setTimeout(look, %d);
  look();
})"""
"""Milliseconds until a heat map has been painted, and until anything at all had; since the visit began."""


def visit(browser: str, address: str, patience: float = 120.0) -> tuple[float, float]:
    """Seconds from asking for the page, with nothing cached, to the first live picture and to the first content.

    Args:
        browser: path of a Chromium.
        address: of a view that shows a heat map.
        patience: seconds, until the visit is given up.

    Raises:
        RunFailed: the browser does not start or ends, or the picture does not come.
    """
    with tempfile.TemporaryDirectory(prefix="workbench-visit-", ignore_cleanup_errors=True) as profile:
        command = [browser, *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                return asyncio.run(_visit(process, Path(profile) / _PORT, address, patience))
            except (OSError, LookupError, TypeError, ValueError, StopIteration) as error:
                raise RunFailed(f"{browser} must show {address}; {type(error).__name__}: {error}.") from error
            finally:
                process.terminate()


async def _visit(process: subprocess.Popen[bytes], port: Path, address: str, patience: float) -> tuple[float, float]:
    began = time.monotonic()
    while not (port.is_file() and port.read_text().strip()):
        if process.poll() is not None or time.monotonic() - began > patience:
            raise RunFailed(f"{process.args!r} must start and listen; it did not within {patience:g} s, or it ended.")
        await asyncio.sleep(0.1)
    where = f"http://127.0.0.1:{port.read_text().split()[0]}/json"
    pages = json.loads((await AsyncHTTPClient().fetch(where)).body)
    socket = await websocket_connect(next(one for one in pages if one["type"] == "page")["webSocketDebuggerUrl"])
    await asyncio.sleep(1.0)  # until the browser itself has started
    await _ask(socket, "Page.navigate", url=address)
    asked = {"expression": _PROMISE % _LOOK_MS, "awaitPromise": True, "returnByValue": True}
    try:
        said = await asyncio.wait_for(_ask(socket, "Runtime.evaluate", **asked), patience)
    except TimeoutError:
        raise RunFailed(f"{address} must show a heat map within {patience:g} s; it did not.") from None
    live, content = said["result"]["value"]
    return live / 1000, content / 1000


async def _ask(socket: Any, method: str, **params: Any) -> dict[str, Any]:
    number = time.monotonic_ns() % 2**31
    await socket.write_message(json.dumps({"id": number, "method": method, "params": params}))
    while True:
        said = json.loads(await socket.read_message())
        if said.get("id") == number:
            return dict(said["result"])
