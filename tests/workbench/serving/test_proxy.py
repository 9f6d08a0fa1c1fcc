"""`--prefix` behind a small real reverse proxy that passes websockets on, as a browser and a forger meet it."""

import asyncio
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler, websocket_connect

from tests.workbench.screenshot import CHROMIUM, browser_page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium"),
]
PASSED = ("Host", "Origin", "Cookie", "Accept", "Content-Type", "User-Agent")
LEFT_OUT = {"Connection", "Content-Length", "Date", "Server", "Transfer-Encoding"}


class Proxy(WebSocketHandler):
    """Passes what it is asked, and messages both ways, to a server on this machine."""

    port = 0

    def check_origin(self, origin: str) -> bool:
        return True  # the server behind is to decide

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return self.upstream.selected_subprotocol

    def _request(self, scheme: str) -> HTTPRequest:
        given = {name: self.request.headers[name] for name in PASSED if name in self.request.headers}
        given |= {"X-Forwarded-For": self.request.remote_ip or "", "X-Forwarded-Proto": "http"}
        return HTTPRequest(
            f"{scheme}://127.0.0.1:{self.port}{self.request.uri}",
            headers=given,
            follow_redirects=False,
            decompress_response=False,
        )

    async def get(self, *_: str) -> None:
        if self.request.headers.get("Upgrade", "").lower() == "websocket":
            names = [name.strip() for name in self.request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
            try:
                self.upstream = await websocket_connect(self._request("ws"), subprotocols=names)
            except HTTPClientError as error:
                self.set_status(error.code)
                await self.finish()
            else:
                await super().get()
            return
        answer = await AsyncHTTPClient().fetch(self._request("http"), raise_error=False)
        self.set_status(answer.code)
        self.clear_header("Content-Type")
        for name, value in answer.headers.get_all():
            if name not in LEFT_OUT:
                self.add_header(name, value)
        await self.finish(answer.body)

    def open(self, *_: str) -> None:
        self.downwards = asyncio.create_task(self._downwards())

    async def _downwards(self) -> None:
        while (message := await self.upstream.read_message()) is not None:
            await self.write_message(message, binary=isinstance(message, bytes))
        self.close()

    async def on_message(self, message: str | bytes) -> None:
        await self.upstream.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        self.upstream.close()


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
        handler = type("Passing", (Proxy,), {"port": int(port[1])})
        loop = asyncio.new_event_loop()

        async def listen() -> None:
            HTTPServer(Application([("/same.*", handler)])).add_socket(socket)

        loop.run_until_complete(listen())
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
