"""`--prefix` behind a small real reverse proxy that passes websockets on, as a browser and a forger meet it."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.netutil import bind_sockets
from tornado.websocket import websocket_connect

from tests.workbench.screenshot import CHROMIUM, browser_page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]
HOPPING = (b"connection:", b"x-forwarded-")
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def passed(below: Stream, port: int) -> None:
    """Pass one request to a server on this machine as a proxy does, then bytes both ways."""
    reader, writer = below
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[:-2]
    kept = [line for line in lines if not line.lower().startswith(HOPPING)]
    upgraded = any(line.lower().startswith(b"upgrade:") for line in kept)
    kept += [b"X-Forwarded-For: 192.0.2.7", b"X-Forwarded-Proto: http"]
    kept += [b"Connection: Upgrade" if upgraded else b"Connection: close"]
    above = await asyncio.open_connection("127.0.0.1", port)
    above[1].write(b"\r\n".join([first, *kept, b"", b""]))
    await asyncio.gather(pumped(reader, above[1]), pumped(above[0], writer))


async def pumped(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while part := await source.read(1 << 16):
            target.write(part)
            await target.drain()
        target.close()


@pytest.fixture(scope="module")
def behind(runs: Path) -> Iterator[str]:
    """The dashboard below /same, reached through a proxy; gives the proxy's address."""
    (socket,) = bind_sockets(0, "127.0.0.1")
    host = f"localhost:{socket.getsockname()[1]}"
    command = [sys.executable, "-m", "workbench.cli", "serve", "--runs", str(runs), "--port", "0", "--prefix", "/same"]
    command += ["--allow-websocket-origin", host]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        port = re.search(r":(\d+)/same", server.stdout.readline())
        assert port
        loop = asyncio.new_event_loop()
        listening = asyncio.start_server(lambda *below: passed(below, int(port[1])), sock=socket)
        loop.run_until_complete(listening)
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        yield f"http://{host}/same/"
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.terminate()


def test_a_view_is_drawn_and_follows_its_slider_through_the_proxy(behind: str) -> None:
    asked: list[str] = []
    with browser_page() as page:
        page.on("request", lambda request: asked.append(request.url))
        page.on("websocket", lambda socket: asked.append(socket.url))
        page.goto(f"{behind}?view=drift&layer=2.up")
        page.locator(".js-plotly-plot:visible .gtitle", has_text="layer 2.up").wait_for()
        slider = page.locator("input[type=range]:visible").first
        slider.focus()
        slider.press("ArrowRight")
        page.locator(".js-plotly-plot:visible .gtitle", has_text="layer 2.down").wait_for()
        page.wait_for_url(re.compile(r"/same/\?.*layer=2\.down"))
    place = behind.removeprefix("http")
    assert [url for url in asked if not url.startswith((f"http{place}", f"ws{place}", "blob:", "data:"))] == []
    assert any(url.startswith(f"ws{place}ws") for url in asked)


def test_another_host_or_origin_is_refused_through_the_proxy(behind: str) -> None:
    with browser_page() as page:
        answer = page.goto(behind.replace("localhost", "127.0.0.1"))
        assert answer is not None
        assert answer.status == 403
    token = re.findall(r'"token":"([^"]+)"', urlopen(behind).read().decode())[0]

    async def connect(origin: str) -> str:
        request = HTTPRequest(f"{behind.replace('http', 'ws', 1)}ws", headers={"Origin": origin})
        socket = await websocket_connect(request, subprotocols=["bokeh", token])
        first = await socket.read_message()
        socket.close()
        return str(first)

    assert "ACK" in asyncio.run(connect(behind.removesuffix("/same/")))
    for origin in ("http://evil.example", "null", behind.replace("localhost", "127.0.0.1").removesuffix("/same/")):
        with pytest.raises(HTTPClientError, match="403"):
            asyncio.run(connect(origin))
