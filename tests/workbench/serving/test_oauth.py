"""Logging in at an OAuth provider: a real server, a real client with cookies, and a provider of a few lines."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.cookiejar import CookieJar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlencode, urlsplit
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import pytest

from workbench.serving.accounts import Accounts

pytestmark = pytest.mark.slow


class Provider(BaseHTTPRequestHandler):
    """Says of whoever comes that it is `email`, and sends them back with a code that is good for a token."""

    email = ""
    asked: dict[str, list[str]] = {}  # noqa: RUF012 - of the provider, whoever handles the request

    def do_GET(self) -> None:
        place = urlsplit(self.path)
        query = parse_qs(place.query)
        if place.path == "/authorize":
            back = urlencode({"code": "abc", "state": query["state"][0]})
            self._answer(302, "", Location=f"{query['redirect_uri'][0]}?{back}")
        else:
            known = self.headers["Authorization"] == "Bearer token-of-abc"
            self._answer(200 if known else 401, json.dumps({"email": Provider.email}))

    def do_POST(self) -> None:
        Provider.asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self._answer(200, json.dumps({"access_token": f"token-of-{Provider.asked['code'][0]}"}))

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, body: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture(scope="module")
def address(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that sends its visitors to the provider."""
    accounts = Accounts(tmp_path_factory.mktemp("oauth") / "users.json")
    accounts.add("ada@lab.example", "viewer", None)
    provider = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    Thread(target=provider.serve_forever, daemon=True).start()
    there = f"http://localhost:{provider.server_port}"
    settings = {"KEY": "workbench", "SECRET": "hush", "AUTHORIZE_URL": f"{there}/authorize"}
    settings |= {"TOKEN_URL": f"{there}/token", "USER_URL": f"{there}/user"}
    variables = {f"PANEL_OAUTH_{name}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "workbench.cli", "serve", "--runs", str(runs), "--port", "0", "--prefix", "/same"]
    command += ["--auth", str(accounts.path), "--oauth", "generic"]
    quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, env={**os.environ, **variables}, **quiet) as server:
        port = re.search(r":(\d+)/same", server.stdout.readline())
        assert port, "the server must print its address"
        yield f"http://localhost:{port[1]}/same"
        server.terminate()
    provider.shutdown()


@pytest.fixture
def visitor() -> OpenerDirector:
    """A client that keeps cookies and follows where it is sent."""
    return build_opener(HTTPCookieProcessor(CookieJar()))


def test_who_is_listed_enters_by_the_provider(address: str, visitor: OpenerDirector) -> None:
    Provider.email = "ada@lab.example"
    with visitor.open(f"{address}/") as page:
        assert "SAME workbench" in page.read().decode()
        assert urlsplit(page.url).path == "/same/"
    assert Provider.asked["client_secret"] == ["hush"]


@pytest.mark.parametrize("wish", ["///elsewhere.example/", "//elsewhere.example/", "/elsewhere/"])
def test_who_asks_for_a_page_elsewhere_comes_back_to_the_front_page(
    address: str, visitor: OpenerDirector, wish: str
) -> None:
    Provider.email = "ada@lab.example"
    with visitor.open(f"{address}/login?{urlencode({'next': wish})}") as page:
        assert page.url == f"{address}/"


def test_who_leaves_must_log_in_again(address: str, visitor: OpenerDirector) -> None:
    Provider.email = "ada@lab.example"
    visitor.open(f"{address}/").close()
    with visitor.open(f"{address}/logout") as page:
        assert "You are logged out." in page.read().decode()
    Provider.asked = {}
    visitor.open(f"{address}/").close()
    assert Provider.asked


def test_who_is_not_listed_is_told_so(address: str, visitor: OpenerDirector) -> None:
    Provider.email = "eve@elsewhere.example"
    with pytest.raises(HTTPError, match="This account is not on the list") as refused:
        visitor.open(f"{address}/")
    assert refused.value.code == 403


def test_a_code_that_was_not_asked_for_is_refused(address: str, visitor: OpenerDirector) -> None:
    Provider.email = "ada@lab.example"
    with pytest.raises(HTTPError) as refused:
        visitor.open(f"{address}/login?{urlencode({'code': 'abc', 'state': 'made-up'})}")
    assert refused.value.code == 401
    assert "The login did not succeed (state mismatch)" in refused.value.read().decode()
    with visitor.open(f"{address}/health") as health:
        assert health.status == 200
