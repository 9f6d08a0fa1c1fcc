"""From the options of `workbench serve` to a guarded server: what is refused, what Bokeh is told."""

import ipaddress
import os
import re
import secrets
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from tornado.web import RequestHandler

from same.errors import InputError
from workbench.serving.accounts import Accounts
from workbench.serving.gate import HEALTH, Gate, allowed_hosts
from workbench.serving.log import say
from workbench.serving.login import Health, OAuth, Passwords

LARGEST_BODY = 1 << 20
LARGEST_MESSAGE = 4 << 20
"""Bytes that a browser may send at once."""
SHORTEST_SECRET = 32
HTTP = 80
_PREFIX = re.compile(r"(/[\w.~-]+)*/?")
_STATIC = re.compile(r"/(static|components)/")


def is_local(address: str) -> bool:
    """Whether an address is reached from this machine only."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def checked_prefix(prefix: str) -> str:
    """Return a prefix as "" or "/name".

    Raises:
        InputError: it is not a path of plain names.
    """
    plain = prefix if prefix.startswith("/") or not prefix else f"/{prefix}"
    if not _PREFIX.fullmatch(plain) or {".", ".."} & set(plain.split("/")):
        raise InputError(f"--prefix must be a path such as /same; got {prefix!r}.")
    return plain.rstrip("/")


def check_scheduler(address: str | None) -> None:
    """Refuse what is no address of a Dask scheduler."""
    if address is None:
        return
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("tcp", "tls") and parts.hostname and parts.port
    except ValueError:
        good = False
    if not good:
        raise InputError(f"--scheduler must be tcp://HOST:PORT or tls://HOST:PORT; got {address!r}.")


def accounts(auth: Path | None, oauth: str | None) -> Accounts | None:
    """Open the file of accounts.

    Raises:
        InputError: it cannot be used, or OAuth is asked for without one.
    """
    if auth is None:
        if oauth is not None:
            raise InputError("--oauth must come with --auth FILE, which says who may enter and as what.")
        return None
    found = Accounts(auth)
    found.check()
    return found


def hosts(address: str, port: int, given: tuple[str, ...]) -> frozenset[str]:
    """Names by which the server may be called: its own with its port, and those that were given."""
    own = {"localhost", "127.0.0.1"} if is_local(address) else {"localhost", socket.gethostname().lower()}
    try:
        listening = ipaddress.ip_address(address)
        if listening.is_unspecified:
            family = socket.AF_INET if listening.version == 4 else socket.AF_INET6
            found = [item for items in psutil.net_if_addrs().values() for item in items]
            own |= {item.address for item in found if item.family == family}
        else:
            own.add(str(listening))
    except ValueError:
        own.add(address.lower())
    names = {_in_link(name) for name in own}
    bare = names if port == HTTP else set()  # browsers do not say the port that is usual
    return allowed_hosts(given) | {f"{name}:{port}" for name in names} | bare


def shown(address: str) -> str:
    """Name that leads to a server, as a link has it: one of its own."""
    if address in ("localhost", "127.0.0.1"):
        return "localhost"
    try:
        listening = ipaddress.ip_address(address)
    except ValueError:
        return address
    return socket.gethostname() if listening.is_unspecified else _in_link(str(listening))


def _in_link(name: str) -> str:
    """Put an IPv6 address into brackets, without its zone, which browsers do not send."""
    return f"[{name.partition('%')[0]}]" if ":" in name else name


def options(found: Accounts | None, oauth: str | None, prefix: str) -> dict[str, Any]:
    """What Panel's and Bokeh's server is told.

    Raises:
        InputError: the secret that signs cookies could be guessed.
    """
    cookie_secret = os.environ.get("PANEL_COOKIE_SECRET") or secrets.token_urlsafe(SHORTEST_SECRET)
    if len(cookie_secret) < SHORTEST_SECRET:
        raise InputError(
            f"PANEL_COOKIE_SECRET must have {SHORTEST_SECRET} characters or more, made at random; got "
            f"{len(cookie_secret)}. Take what `openssl rand -hex 32` says, or unset it."
        )
    chosen: dict[str, Any] = {
        "cookie_secret": cookie_secret,
        "cookie_path": f"{prefix}/",
        "secret_key": secrets.token_bytes(32),
        "sign_sessions": True,
        "use_xheaders": False,  # the gate reads them
        "websocket_max_message_size": LARGEST_MESSAGE,
        "http_server_kwargs": {"max_body_size": LARGEST_BODY},
        "log_function": _log_request,
        "keep_alive_milliseconds": 30_000,
        "session_history": 0,
    }
    if prefix:
        chosen["prefix"] = prefix
    if found is not None:
        chosen["auth_provider"] = OAuth(oauth, found) if oauth else Passwords(found)
    return chosen


def stand_before(server: Any, allowed: frozenset[str], prefix: str, local: bool) -> None:
    """Put the gate between a server's socket and its application, and the answer to who asks for its health.

    Forwarded headers are believed from a proxy on this machine only: nobody else can reach a local address.
    """
    application = server._tornado
    application._websocket_origins = set(allowed)  # as an option it may hold no IPv6 address
    application.add_handlers(".*", [(f"(?:{re.escape(prefix)})?{HEALTH}", Health)])
    server._http.request_callback = Gate(application, allowed, prefix, local)


def _log_request(handler: RequestHandler) -> None:
    request, status = handler.request, handler.get_status()
    if request.path.endswith(HEALTH) or (status < 400 and _STATIC.search(request.path)):
        return
    about = {"method": request.method, "path": request.path, "status": status, "address": request.remote_ip}
    user = handler.current_user if status != 403 else None
    say("request", **about, ms=round(1000 * request.request_time(), 1), user=user)
