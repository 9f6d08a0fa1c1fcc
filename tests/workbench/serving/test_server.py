"""A server with a login behind a prefix, asked by real HTTP and websocket clients."""

import asyncio
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

from workbench.serving.accounts import Accounts

pytestmark = pytest.mark.slow
PASSWORD = "correct horse"


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: str


@dataclass
class Served:
    port: int
    process: "subprocess.Popen[str]"
    log: Path

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, {"Host": f"localhost:{self.port}", **given})
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read().decode())

    def login(self, name: str, password: str, query: str = "", **headers: str) -> Answer:
        form = urlencode({"username": name, "password": password})
        kind = {"Content_Type": "application/x-www-form-urlencoded"}
        return self.ask("POST", f"/same/login{query}", form, **kind, **headers)

    def cookie(self, name: str) -> str:
        return str(self.login(name, PASSWORD).headers["Set-Cookie"]).partition(";")[0]

    def logins(self) -> list[dict[str, object]]:
        return [event for event in self.events() if event["event"] == "login"]

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def served(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    accounts = Accounts(folder / "users.json")
    accounts.add("alice", "runner", PASSWORD)
    accounts.add("bob", "viewer", PASSWORD)
    accounts.add("mallory", "viewer", PASSWORD)
    command = [sys.executable, "-m", "workbench.cli", "serve", "--runs", str(runs), "--port", "0", "--prefix", "/same"]
    command += ["--auth", str(accounts.path), "--allow-websocket-origin", "lab.example"]
    log = folder / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        port = re.search(r":(\d+)/same", process.stdout.readline())
        assert port, log.read_text(encoding="utf-8")
        yield Served(int(port[1]), process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert json.loads(log.read_text(encoding="utf-8").splitlines()[-1])["event"] == "stopped"


def test_health_needs_no_login(served: Served) -> None:
    for path in ("/health", "/same/health"):
        answer = served.ask("GET", path)
        assert answer.status == 200
        assert json.loads(answer.body)["status"] == "ok"


def test_the_page_is_behind_the_login(served: Served) -> None:
    answer = served.ask("GET", "/same/?view=drift")
    assert answer.status == 302
    assert answer.headers["Location"].startswith("./login?next=")
    assert "Password" in served.ask("GET", "/same/login").body
    assert served.ask("GET", "/same/", Cookie="user=alice").status == 302
    assert served.ask("GET", "/same/", Cookie="is_guest=1").status == 302
    page = served.ask("GET", "/same/", Cookie=served.cookie("bob"))
    assert page.status == 200
    assert '"token"' in page.body


def test_after_the_login_one_is_where_one_wished_to_be_on_this_server(served: Served) -> None:
    assert served.login("alice", PASSWORD, "?next=/same/%3Fview%3Ddrift").headers["Location"] == "/same/?view=drift"
    for wish in (
        "//evil.example",
        "https://evil.example/same/",
        "/other",
        "/same/%5C..%5C",
        "javascript:alert(1)",
        "//[",
    ):
        assert served.login("alice", PASSWORD, f"?next={wish}").headers["Location"] == "/same/"


def test_cookies_are_kept_to_this_site_and_to_https(served: Served) -> None:
    plain = served.login("alice", PASSWORD).headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Lax", "Path=/same/"} <= set(plain.split("; "))
    assert "Secure" not in plain
    behind = served.login("alice", PASSWORD, X_Forwarded_Proto="https").headers
    assert behind["Set-Cookie"].endswith("; Secure")
    assert "max-age" in behind["Strict-Transport-Security"]


@pytest.mark.parametrize("path", ["/same/login", "/same/static/js/bokeh.min.js", "/nothing", "/health", "/same/"])
def test_every_answer_has_the_policies(path: str, served: Served) -> None:
    headers = served.ask("GET", path, Cookie=served.cookie("bob")).headers
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Server"] is None


@pytest.mark.parametrize("path", ["/admin", "/same/admin", "/same/autoload.js", "/same/metadata", "/rest/session_info"])
def test_there_is_no_admin_page_and_nothing_to_embed(path: str, served: Served) -> None:
    assert served.ask("GET", path, Cookie=served.cookie("alice")).status == 404


def test_a_module_cannot_be_imported_from_outside(served: Served) -> None:
    assert served.ask("GET", "/same/components/torch/nn/_css/x").status == 404
    assert served.ask("GET", "/same/components/antigravity/nn/_css/x").status == 404


def test_other_hosts_and_forms_of_other_origins_are_refused(served: Served) -> None:
    assert served.ask("GET", "/same/login", Host=f"evil.example:{served.port}").status == 403
    assert served.ask("GET", "/same/login", Host="lab.example").status == 200
    assert served.login("alice", PASSWORD, Origin="https://evil.example").status == 403


def test_wrong_passwords_lock_the_name_and_say_nothing_of_which_was_wrong(served: Served) -> None:
    first, unknown = served.login("mallory", "wrong"), served.login("<script>alert(1)</script>", "wrong")
    assert first.status == unknown.status == 401
    assert "The name or the password is wrong." in first.body
    assert "<script>alert" not in unknown.body
    assert {served.login("mallory", "wrong").status for _ in range(4)} == {401}
    locked = served.login("mallory", PASSWORD)
    assert locked.status == 429
    assert int(locked.headers["Retry-After"]) > 20
    assert served.login("bob", PASSWORD).status == 302


def test_a_visitor_cannot_choose_the_address_that_is_locked(served: Served) -> None:
    for number in range(5):
        forged = {"X_Real_Ip": f"198.51.100.{number}", "X_Scheme": "https"}
        answer = served.login("nobody", "wrong", X_Forwarded_For=f"192.0.2.{number}, 203.0.113.9", **forged)
        assert answer.status == 401
        assert answer.headers["Strict-Transport-Security"] is None
        assert served.logins()[-1]["address"] == "203.0.113.9"
    assert served.login("nobody", "wrong", X_Forwarded_For="203.0.113.9", X_Real_Ip="198.51.100.9").status == 429
    assert served.login("nobody", "wrong", X_Forwarded_For="203.0.113.10").status == 401


async def _first(place: str, token: str, headers: dict[str, str]) -> str:
    """What a websocket says at first."""
    request = HTTPRequest(f"ws://{place}/ws", headers=headers)
    opened = await websocket_connect(request, subprotocols=["bokeh", token])
    header = await opened.read_message()
    opened.close()
    return str(header)


async def _socket(served: Served, origin: str, cookie: str, token: str) -> str:
    headers = {"Origin": origin, "Cookie": cookie, "Host": f"localhost:{served.port}"}
    return await _first(f"127.0.0.1:{served.port}/same", token, headers)


def test_a_websocket_needs_the_origin_the_login_and_a_signed_token(served: Served) -> None:
    cookie, own = served.cookie("bob"), f"http://localhost:{served.port}"
    page = served.ask("GET", "/same/", Cookie=cookie)
    token = re.findall(r'"token":"([^"]+)"', page.body)[0]
    assert "ACK" in asyncio.run(_socket(served, own, cookie, token))
    refused = ((f"http://evil.example:{served.port}", cookie), ("null", cookie), (own, "user=alice"), (own, "a=b"))
    for origin, shown in refused:
        with pytest.raises(HTTPClientError, match="403"):
            asyncio.run(_socket(served, origin, shown, token))
    forged = token.partition(".")[0]
    assert "ACK" not in asyncio.run(_socket(served, own, cookie, forged))


def _has_ipv6() -> bool:
    with suppress(OSError), socket.create_server(("::1", 0), family=socket.AF_INET6):
        return True
    return False


ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="needs an IPv6 address of this machine")


@pytest.mark.parametrize(
    ("address", "near"),
    [
        ("0.0.0.0", "127.0.0.1"),
        pytest.param("::", "[::1]", marks=ipv6),
        pytest.param("::1", "[::1]", marks=ipv6),
    ],
)
def test_the_address_that_is_printed_may_be_opened(address: str, near: str, runs: Path) -> None:
    """Its websocket, too; `near` is where the name that is printed leads, as not every machine can look itself up."""
    command = [sys.executable, "-m", "workbench.cli", "serve", "--runs", str(runs), "--port", "0"]
    with subprocess.Popen(
        [*command, "--address", address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            link = urlsplit(next(word for word in process.stdout.readline().split() if word.startswith("http://")))
            connection = http.client.HTTPConnection(near.strip("[]"), link.port, timeout=60)
            connection.request("GET", "/", headers={"Host": link.netloc})
            answer = connection.getresponse()
            assert answer.status == 200
            token = re.findall(r'"token":"([^"]+)"', answer.read().decode())[0]
            own = {"Host": link.netloc, "Origin": f"http://{link.netloc}"}
            assert "ACK" in asyncio.run(_first(f"{near}:{link.port}", token, own))
        finally:
            process.terminate()


def test_an_account_that_is_taken_away_is_out(served: Served) -> None:
    cookie = served.cookie("bob")
    assert served.ask("GET", "/same/", Cookie=cookie).status == 200
    path = Path(served.process.args[served.process.args.index("--auth") + 1])  # type: ignore[index, union-attr]
    content = path.read_text(encoding="utf-8")
    path.write_text(content.replace('"bob"', '"robert"'), encoding="utf-8")
    assert served.ask("GET", "/same/", Cookie=cookie).status == 302
    path.write_text(content, encoding="utf-8")


def test_a_new_password_ends_the_logins_of_the_old_one(served: Served) -> None:
    cookie = served.cookie("bob")
    accounts = Accounts(served.log.parent / "users.json")
    accounts.add("bob", "viewer", "another password")
    assert served.ask("GET", "/same/", Cookie=cookie).status == 302
    accounts.add("bob", "viewer", PASSWORD)
    assert served.ask("GET", "/same/", Cookie=cookie).status == 302
    assert served.ask("GET", "/same/", Cookie=served.cookie("bob")).status == 200


def test_the_log_is_lines_of_json_without_passwords_and_tokens(served: Served) -> None:
    served.login("mallory\nforged", "a secret password")
    cookie = served.cookie("alice")
    token = re.findall(r'"token":"([^"]+)"', served.ask("GET", "/same/", Cookie=cookie).body)[0]
    events = served.events()
    assert {"listening", "login", "refused", "request"} <= {event["event"] for event in events}
    assert all({"time", "level"} <= set(event) for event in events)
    text = served.log.read_text(encoding="utf-8")
    assert PASSWORD not in text
    assert "a secret password" not in text
    assert token not in text
    assert cookie.partition("=")[2] not in text
