"""Visitors without a browser: the page, its websocket and Bokeh's protocol, as a browser speaks it."""

import asyncio
import json
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

PATIENCE = 60.0
_TOKEN = re.compile(r'"token":"([^"]+)"')
_LARGEST = 64 << 20
_DRAWN = '"_render_count"'


@dataclass
class Seen:
    """What visitors met."""

    waits: list[float] = field(default_factory=list)
    """Seconds from moving a slider to the redrawn picture."""
    errors: list[str] = field(default_factory=list)


class Visitor:
    """One session that moves one slider of choices.

    Args:
        address: of the page, with its query, for example http://localhost:5006/?view=drift.
        slider: its label.
        pictures: how many it changes.
    """

    def __init__(self, address: str, slider: str, pictures: int):
        self.address = address
        self.slider = slider
        self.pictures = pictures
        self._socket: Any = None
        self._model, self._place, self._last = "", 0, 0

    async def enter(self) -> None:
        """Load the page, open its websocket and take the document."""
        AsyncHTTPClient.configure(None, max_clients=100)
        page = await AsyncHTTPClient().fetch(self.address, request_timeout=PATIENCE, connect_timeout=PATIENCE)
        token = _TOKEN.search(page.body.decode())
        if token is None:
            raise ValueError("the page has no token of a session")
        base, _, query = self.address.partition("?")
        origin = "/".join(base.split("/")[:3])
        request = HTTPRequest(
            f"ws{base[4:].rstrip('/')}/ws?{query}", headers={"Origin": origin}, connect_timeout=PATIENCE
        )
        self._socket = await websocket_connect(request, subprotocols=["bokeh", token[1]], max_message_size=_LARGEST)
        await self._until("ACK")
        await self._send("PULL-DOC-REQ", {})
        found = json.loads(await self._until("PULL-DOC-REPLY"))
        for model in _models(found):
            attributes = model.get("attributes", {})
            if attributes.get("label") == self.slider and "options" in attributes:
                self._model, self._last = model["id"], len(attributes["options"]) - 1
                self._place = int(attributes.get("value", 0))
        if not self._model:
            raise ValueError(f"the page has no slider {self.slider!r}")
        ready = {"type": "event", "name": "document_ready", "values": {"type": "map"}}
        said = {"kind": "MessageSent", "msg_type": "bokeh_event", "msg_data": ready}
        await self._send("PATCH-DOC", {"events": [said]})
        await self._until("OK")

    async def move(self, far: float) -> float:
        """Move the slider on by a share of its length in [0, 1), round its end.

        Returns: seconds until the last of the pictures that it changes has come.
        """
        began = time.perf_counter()
        self._place = (self._place + 1 + int(far * self._last)) % (self._last + 1)
        for name in ("value", "value_throttled"):
            change = {"kind": "ModelChanged", "model": {"id": self._model}, "attr": name, "new": self._place}
            await self._send("PATCH-DOC", {"events": [change]})
        drawn = 0
        while drawn < self.pictures:
            drawn += (await self._until("PATCH-DOC", _DRAWN)).count(_DRAWN)
        return time.perf_counter() - began

    def leave(self) -> None:
        """Close the websocket."""
        if isinstance(self._socket, WebSocketClientConnection):
            self._socket.close()

    async def _send(self, kind: str, content: Any) -> None:
        for part in ({"msgid": uuid4().hex, "msgtype": kind}, {}, content):
            await self._socket.write_message(json.dumps(part))

    async def _until(self, kind: str, holding: str = "") -> str:
        """Read messages until one is of a kind and holds a text; gives its content."""
        async with asyncio.timeout(PATIENCE):
            while True:
                header = json.loads(await self._frame())
                await self._frame()
                content = str(await self._frame())
                for _ in range(2 * header.get("num_buffers", 0)):
                    await self._frame()
                if header["msgtype"] == "ERROR":
                    raise ValueError(json.loads(content).get("text", "the server met an error"))
                if header["msgtype"] == kind and holding in content:
                    return content

    async def _frame(self) -> Any:
        frame = await self._socket.read_message()
        if frame is None:
            raise ConnectionError("the server closed the websocket")
        return frame


def _models(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value.get("type") == "object" and "id" in value:
            yield value
        for part in value.values():
            yield from _models(part)
    elif isinstance(value, list):
        for part in value:
            yield from _models(part)


async def crowd(visitors: Sequence[Visitor], seconds: float, arrival: float, begun: Callable[[], None]) -> Seen:
    """Let visitors come within `arrival` seconds; when all are in, let them move sliders for `seconds`.

    Each moves its own every one to two seconds, as people do who look at what they see. `begun` is called in between.
    """
    seen, chance = Seen(), random.Random(0)
    entered, waiting = asyncio.Event(), len(visitors)

    async def visit(index: int, visitor: Visitor) -> None:
        nonlocal waiting
        try:
            await asyncio.sleep(index * arrival / len(visitors))
            try:
                await visitor.enter()
            finally:
                waiting -= 1
                if waiting == 0:
                    begun()
                    entered.set()
            await entered.wait()
            end = time.monotonic() + seconds
            await asyncio.sleep(chance.random())
            while time.monotonic() < end:
                seen.waits.append(await visitor.move(chance.random()))
                await asyncio.sleep(1 + chance.random())
        except (OSError, ValueError, KeyError, TimeoutError, HTTPClientError) as error:
            seen.errors.append(f"{type(error).__name__}: {error}")
        finally:
            visitor.leave()

    await asyncio.gather(*(visit(index, visitor) for index, visitor in enumerate(visitors)))
    return seen
