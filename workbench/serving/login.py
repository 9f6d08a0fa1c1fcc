"""Entering: the login page, accounts from a file or from an OAuth provider, and the health of the server."""

import asyncio
import os
import time
from functools import cached_property
from html import escape
from typing import Any
from urllib.parse import urlsplit

from bokeh.server.auth_provider import AuthProvider
from panel.auth import AUTH_PROVIDERS, OAuthProvider
from panel.config import config
from tornado.web import HTTPError, RequestHandler

from same import __version__
from same.errors import InputError
from same.registry import choose
from workbench.serving.accounts import Accounts
from workbench.serving.lockout import Lockout
from workbench.serving.log import say

DAYS = 1.0
"""How long a login lasts."""
WRONG = "The name or the password is wrong."

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in · SAME workbench</title>
<style>
:root {{ color-scheme: light dark; font-family: system-ui, Roboto, Helvetica, Arial, sans-serif; }}
body {{ display: grid; place-content: center; min-height: 90vh; }}
form {{ display: grid; gap: 0.6rem; width: 19rem; }}
input, button {{ font: inherit; padding: 0.5rem; }}
[role=alert] {{ color: #D55E00; min-height: 1.4rem; margin: 0; }}
</style></head>
"""
_PAGE = (
    _HEAD
    + """<body><form method="post"><h1>SAME workbench</h1>
<p role="alert">{message}</p>
<label for="username">Name</label>
<input id="username" name="username" autocomplete="username" required autofocus value="{name}">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button>Log in</button></form></body></html>
"""
)
_SAID = (
    _HEAD
    + """<body><h1>SAME workbench</h1><p role="status">{message}</p><p><a href="{login}">Log in</a></p></body></html>
"""
)


class Passwords(AuthProvider):
    """Names and passwords of an auth file; a name or a password taken from it is out at its next request."""

    def __init__(self, accounts: Accounts, lockout: Lockout | None = None):
        self.accounts = accounts
        self.lockout = lockout or Lockout()
        super().__init__()

    @property
    def get_user(self) -> Any:
        """Who the signed cookie says, if the file still has the name and that password."""
        return lambda handler: _listed(handler, self.accounts)

    @property
    def login_url(self) -> str:
        """Below the prefix."""
        return "/login"

    @property
    def logout_url(self) -> str:
        """Below the prefix."""
        return "/logout"

    @cached_property
    def login_handler(self) -> type[RequestHandler]:
        """The page bound to this file and its failures."""
        return type(
            "Login", (_Login,), {"accounts": self.accounts, "lockout": self.lockout, "turns": asyncio.Semaphore(2)}
        )

    @property
    def logout_handler(self) -> type[RequestHandler]:
        """Forgets the cookie."""
        return _Logout


class OAuth(OAuthProvider):
    """One of Panel's providers; only names of the auth file may enter, with the role it says."""

    def __init__(self, provider: str, accounts: Accounts):
        choose("OAuth provider", provider, sorted(AUTH_PROVIDERS))
        needed = {"PANEL_OAUTH_KEY": config.oauth_key, "PANEL_OAUTH_SECRET": config.oauth_secret}
        if provider == "generic":
            needed |= dict.fromkeys(["PANEL_OAUTH_TOKEN_URL", "PANEL_OAUTH_AUTHORIZE_URL", "PANEL_OAUTH_USER_URL"])
        missing = [name for name, value in needed.items() if not value and not os.environ.get(name)]
        if missing:
            raise InputError(f"--oauth {provider} must find {', '.join(missing)} in the environment; set them.")
        config.oauth_provider = provider
        self.provider = provider
        self.accounts = accounts
        super().__init__()

    @cached_property
    def login_handler(self) -> type[RequestHandler]:
        """The provider's, that comes back to the login below the prefix."""
        return type("OAuthLogin", (_Returning, AUTH_PROVIDERS[self.provider]), {})

    @property
    def logout_handler(self) -> type[RequestHandler]:
        """Forgets the cookies and stays: the login would enter again at once."""
        return _Left

    @property
    def get_user_async(self) -> Any:
        """Who the provider says, if the file lists the name."""
        ask = super().get_user_async

        async def get_user(handler: RequestHandler) -> str | None:
            name = await ask(handler)
            if name and self.accounts.role(name) is None:
                say("login", user=name, address=handler.request.remote_ip, outcome="not listed")
                leave = f"{handler.application.prefix}/logout"
                reason = f"This account is not on the list. Ask who runs the server, or leave it at {leave}."
                raise HTTPError(403, reason=reason)
            return str(name) if name else None

        return get_user


def _listed(handler: RequestHandler, accounts: Accounts) -> str | None:
    cookie = handler.get_signed_cookie("user", max_age_days=DAYS)
    return accounts.holder(cookie.decode()) if cookie else None


class _Login(RequestHandler):
    accounts: Accounts
    lockout: Lockout
    turns: asyncio.Semaphore
    """Hashing is costly on purpose: no more than two at a time."""

    def get(self) -> None:
        """Show the form."""
        self._show()

    async def post(self) -> None:
        """Compare name and password, unless too many were wrong."""
        name, password = (
            self.get_body_argument("username", "")[:64],
            self.get_body_argument("password", "", strip=False),
        )
        address = self.request.remote_ip or ""
        async with self.turns:
            wait = self.lockout.wait(name, address)
            right = wait == 0 and await asyncio.to_thread(self.accounts.verify, name, password)
            if wait == 0 and not right:
                self.lockout.failed(name, address)
        say("login", user=name, address=address, outcome="locked" if wait else "welcome" if right else "wrong")
        if wait:
            self.set_status(429)
            self.set_header("Retry-After", str(int(wait) + 1))
            self._show(f"Too many wrong passwords. Try again in {int(wait) + 1} s.", name)
        elif not right:
            self.set_status(401)
            self._show(WRONG, name)
        else:
            self.lockout.succeeded(name, address)
            prefix = self.application.prefix
            self.set_signed_cookie(
                "user", self.accounts.seal(name), expires_days=DAYS, httponly=True, path=f"{prefix}/"
            )
            self.redirect(_below(prefix, self.get_query_argument("next", "")))

    def _show(self, message: str = "", name: str = "") -> None:
        self.write(_PAGE.format(message=escape(message), name=escape(name)))


def _below(prefix: str, wish: str) -> str:
    """The page asked for before the login, if it is one of ours."""
    try:
        parts = urlsplit(wish)
    except ValueError:
        return f"{prefix}/"
    ours = not parts.scheme and not parts.netloc and "\\" not in wish and wish.startswith(f"{prefix}/")
    return wish if ours and not wish.startswith("//") else f"{prefix}/"


class _Returning(RequestHandler):
    """What Panel leaves open in its handlers: servers with a prefix, pages without style sheets from elsewhere."""

    @property
    def _redirect_uri(self) -> str:
        here = f"{self.request.protocol}://{self.request.host}{self.application.prefix}/login"
        return str(config.oauth_redirect_uri or here)

    def get_state(self) -> Any:
        """What the provider brings back, with the page asked for, if it is one of ours: Panel takes ///HOST for one."""
        wish = self.get_query_argument("next", "")
        self.request.arguments["next"] = [_below(self.application.prefix, wish).encode()]
        return super().get_state()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say why the provider's answer was not taken."""
        error = kwargs["exc_info"][1]
        self.clear_all_cookies()
        say("login", address=self.request.remote_ip, outcome="refused", status=status_code)
        reason = error.reason if isinstance(error, HTTPError) else None
        message = f"The login did not succeed ({reason or status_code})."
        self.finish(_SAID.format(message=escape(message), login=f"{self.application.prefix}/login"))


class _Left(RequestHandler):
    def get(self) -> None:
        """Forget who this was."""
        self.clear_all_cookies(path=config.cookie_path)
        self.write(_SAID.format(message="You are logged out.", login=f"{self.application.prefix}/login"))


class _Logout(RequestHandler):
    def get(self) -> None:
        """Forget who this was."""
        prefix = self.application.prefix
        self.clear_cookie("user", path=f"{prefix}/")
        self.redirect(f"{prefix}/login")


class Health(RequestHandler):
    """Whether the server answers: 200 and JSON, for whoever asks, without a login and without a session."""

    began = time.monotonic()

    def get(self) -> None:
        """Answer."""
        self.write({"status": "ok", "version": __version__, "uptime_s": round(time.monotonic() - self.began, 1)})
