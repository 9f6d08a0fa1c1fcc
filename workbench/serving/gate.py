"""The gate before every request: which hosts and origins may ask, what is not for the web, and headers on every answer.

Bokeh compares a websocket's origin with its list in some releases of tornado only, sets no policies and offers pages to
be embedded elsewhere; this stands before all of its handlers, static files and websockets among them.
"""

import ipaddress
import re
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import tornado.httputil as httputil

from same.errors import InputError
from workbench.serving.log import say

POLICY = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",  # what Bokeh's own pages need
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' blob: data:",  # Panel's components are fetched from blobs of the page's own
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
HEALTH = "/health"
_EMBEDDING = ("/autoload.js", "/metadata")
_COMPONENT = re.compile(r"/components/(?!(?:panel|panel_material_ui|bokeh)[./])")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[\w.-]+)(?::(\d{1,5}))?")


@dataclass(frozen=True)
class Refusal:
    """Why a request is not answered."""

    status: int
    reason: str
    location: str = ""
    """Where it should have gone."""


def allowed_hosts(given: Iterable[str]) -> frozenset[str]:
    """Check host names as `--allow-websocket-origin` takes them.

    Raises:
        InputError: one is no host or host:port, or has a wildcard.
    """
    hosts = [host.lower() for host in given]
    for host in hosts:
        if not _HOST.fullmatch(host):
            raise InputError(
                f"--allow-websocket-origin must be HOST or HOST:PORT, without scheme, path or *; got {host!r}."
            )
    return frozenset(hosts)


def forwarded(headers: httputil.HTTPHeaders, address: str, protocol: str) -> tuple[str, str]:
    """Where a request came from before the proxy, and how.

    Only what the proxy itself wrote counts: the last entry of X-Forwarded-For and X-Forwarded-Proto. Tornado lets
    X-Real-Ip and X-Scheme override them, which a proxy passes on as the visitor sent them.

    Args:
        headers: of the request.
        address: of the proxy, kept where it says none.
        protocol: that the proxy spoke, kept where it says none.
    """
    last = {name: headers.get(name, "").rpartition(",")[2].strip() for name in ("X-Forwarded-For", "X-Forwarded-Proto")}
    with suppress(ValueError):
        address = str(ipaddress.ip_address(last["X-Forwarded-For"]))
    scheme = last["X-Forwarded-Proto"]
    return address, scheme if scheme in ("http", "https") else protocol


class Gate(httputil.HTTPServerConnectionDelegate):
    """Stands between the HTTP server and the application.

    Args:
        application: what answers when nothing is wrong.
        hosts: HOST (any port of the web's own) or HOST:PORT that a request may name as its host or origin.
        prefix: path below which the application lives, "" or "/name".
        proxied: whether what a proxy says of its visitors is believed.
    """

    def __init__(
        self,
        application: httputil.HTTPServerConnectionDelegate,
        hosts: frozenset[str],
        prefix: str,
        proxied: bool = False,
    ):
        self.application = application
        self.hosts = hosts
        self.prefix = prefix
        self.proxied = proxied

    def start_request(self, server_conn: object, request_conn: httputil.HTTPConnection) -> httputil.HTTPMessageDelegate:
        """Take a request that begins."""
        return _Request(self, server_conn, _Connection(request_conn))

    def refusal(self, method: str, target: str, headers: httputil.HTTPHeaders) -> Refusal | None:
        """Say what forbids a request, if anything does."""
        path, _, query = target.partition("?")
        if unquote(path).removeprefix(self.prefix) == HEALTH:
            return None
        if not self._known(headers.get("Host", "")):
            return Refusal(403, "This host name is not allowed. Start the server with --allow-websocket-origin HOST.")
        asked = headers.get("Upgrade", "").lower() == "websocket" or method not in ("GET", "HEAD")
        origin = headers.get("Origin", headers.get("Sec-WebSocket-Origin", ""))
        if asked and origin and not self._known(_place(origin)):
            return Refusal(403, "This origin is not allowed. Start the server with --allow-websocket-origin HOST.")
        inside = "/" + re.sub("/+", "/", unquote(path)).removeprefix(self.prefix).lstrip("/")
        if inside.endswith(_EMBEDDING) or _COMPONENT.match(inside):
            return Refusal(404, "There is nothing here.")
        if self.prefix and path == self.prefix:
            return Refusal(302, "Moved.", f"{self.prefix}/{'?' if query else ''}{query}")
        return None

    def _known(self, host: str) -> bool:
        parts = _HOST.fullmatch(host.lower())
        if parts is None:
            return False
        return host.lower() in self.hosts or (parts[2] in (None, "80", "443") and parts[1] in self.hosts)


def _place(origin: str) -> str:
    """HOST or HOST:PORT of an origin; nothing of what is none."""
    with suppress(ValueError):
        return urlsplit(origin).netloc
    return ""


class _Connection:
    """A connection whose answers bear the headers and whose cookies are kept to this site."""

    def __init__(self, inner: Any):
        self._inner = inner
        self.context = copy(inner.context)  # of this request: the next one may be another visitor's
        self.secure = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def write_headers(
        self, start_line: httputil.ResponseStartLine, headers: httputil.HTTPHeaders, chunk: bytes | None = None
    ) -> Any:
        for name, value in HEADERS.items():
            headers[name] = value
        if self.secure:
            headers["Strict-Transport-Security"] = "max-age=31536000"
        if headers.get("Content-Type", "").startswith("text/html"):
            headers["Cache-Control"] = "no-store"
        headers.pop("Server", None)
        cookies = headers.get_list("Set-Cookie")
        headers.pop("Set-Cookie", None)
        for cookie in cookies:
            headers.add("Set-Cookie", _kept(cookie, self.secure))
        return self._inner.write_headers(start_line, headers, chunk)


def _kept(cookie: str, secure: bool) -> str:
    said = cookie.lower()
    cookie += "" if "; httponly" in said else "; HttpOnly"
    cookie += "" if "; samesite" in said else "; SameSite=Lax"
    return cookie + ("; Secure" if secure and "; secure" not in said else "")


class _Request(httputil.HTTPMessageDelegate):
    """Looks at the head of one request and hands it on, or answers it."""

    def __init__(self, gate: Gate, server_conn: object, connection: _Connection):
        self._gate = gate
        self._server_conn = server_conn
        self._connection: Any = connection
        self._next: httputil.HTTPMessageDelegate | None = None
        self._refusal: Refusal | None = None

    def headers_received(self, start_line: Any, headers: httputil.HTTPHeaders) -> Awaitable[None] | None:
        context = self._connection.context
        if self._gate.proxied:
            context.remote_ip, context.protocol = forwarded(headers, context.remote_ip, context.protocol)
        self._connection.secure = context.protocol == "https"
        self._refusal = self._gate.refusal(start_line.method, start_line.path, headers)
        if self._refusal is None:
            _, bracket, port = headers.get("Host", "").rpartition("]")
            if bracket:
                headers["Host"] = f"localhost{port}"  # Panel's pages fail at the colons of an IPv6 address
            self._next = self._gate.application.start_request(self._server_conn, self._connection)
            return self._next.headers_received(start_line, headers)
        if self._refusal.status != 302:
            about = {"host": headers.get("Host"), "origin": headers.get("Origin")}
            where = {"address": context.remote_ip, "path": start_line.path.partition("?")[0]}
            say("refused", **where, **about, status=self._refusal.status, reason=self._refusal.reason)
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._next.data_received(chunk) if self._next else None

    def finish(self) -> None:
        if self._next:
            self._next.finish()
            return
        refusal = self._refusal or Refusal(400, "This is no request.")
        body = refusal.reason.encode() + b"\n"
        headers = httputil.HTTPHeaders({"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(len(body))})
        if refusal.location:
            headers["Location"] = refusal.location
        line = httputil.ResponseStartLine("HTTP/1.1", refusal.status, httputil.responses[refusal.status])
        self._connection.write_headers(line, headers, body)
        self._connection.finish()

    def on_connection_close(self) -> None:
        if self._next:
            self._next.on_connection_close()
