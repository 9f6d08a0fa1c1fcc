"""Options of `workbench serve`, and what the gate lets through."""

from pathlib import Path
from socket import AF_INET, AF_INET6, gethostname
from types import SimpleNamespace

import pytest
from tornado.httputil import HTTPHeaders
from tornado.web import Application

from same.errors import InputError
from workbench.serving import guard
from workbench.serving.gate import Gate, allowed_hosts, forwarded
from workbench.serving.login import OAuth

HOSTS = frozenset({"localhost:5006", "lab.example", "other.example:8080", "[fd00::2]", "[::1]:5006"})
WEBSOCKET = {"Upgrade": "websocket"}


def status(path: str, host: str = "localhost:5006", method: str = "GET", prefix: str = "", **headers: str) -> int:
    found = Gate(Application(), HOSTS, prefix).refusal(method, path, HTTPHeaders({"Host": host, **headers}))
    return found.status if found else 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost:5006",
        "LOCALHOST:5006",
        "lab.example",
        "lab.example:443",
        "other.example:8080",
        "[::1]:5006",
        "[FD00::2]",
        "[fd00::2]:443",
    ],
)
def test_hosts_of_the_list_may_ask(host: str) -> None:
    assert status("/", host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:5006",
        "localhost",
        "lab.example:5006",
        "lab.example.evil.example",
        "",
        "a b",
        "lab.example:443:1",
        "[::1]",
        "[::2]:5006",
        "::1:5006",
        "[fd00::2]:5006",
        "[::1",
    ],
)
def test_other_hosts_may_not(host: str) -> None:
    assert status("/", host) == 403


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://evil.example:5006",
        "null",
        "file://",
        "http://lab.example@evil.example",
        "http://[::2]:5006",
        "http://[",
    ],
)
def test_a_websocket_or_a_form_of_another_origin_is_refused(origin: str) -> None:
    assert status("/ws", Origin=origin, **WEBSOCKET) == 403
    assert status("/login", method="POST", Origin=origin) == 403


def test_the_own_origin_is_not_refused() -> None:
    assert status("/ws", Origin="http://localhost:5006", **WEBSOCKET) == 200
    assert status("/ws", Origin="http://[::1]:5006", **WEBSOCKET) == 200
    assert status("/login", "lab.example", "POST", Origin="https://lab.example") == 200


@pytest.mark.parametrize(
    "path",
    [
        "/components/torch/nn/_css/x",
        "/components/%74orch/a/b/c",
        "//components/torch/a/b/c",
        "/components/os/a/_css/x",
        "/components/panelx/a/_css/x",
        "/autoload.js?bokeh-autoload-element=1",
        "/metadata",
        "/same/components/torch/a/b/c",
    ],
)
def test_modules_of_others_and_pages_to_embed_are_not_for_the_web(path: str) -> None:
    assert status(path) == 404 or status(path, prefix="/same") == 404


def test_panels_own_files_are() -> None:
    assert status("/components/panel_material_ui.widgets.slider/IntSlider/_bundle_path/x.js") == 200
    assert status("/same/components/panel.models/x/y/z", prefix="/same") == 200


def test_health_is_told_to_everybody_and_a_prefix_without_its_slash_is_led_on() -> None:
    assert status("/health", "10.0.0.7:5006") == 200
    assert status("/same/health", "10.0.0.7:5006", prefix="/same") == 200
    assert status("/same?a=1", prefix="/same") == 302


@pytest.mark.parametrize(
    ("headers", "address", "protocol"),
    [
        ({"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}, "203.0.113.9", "https"),
        ({"X-Forwarded-For": "198.51.100.77, 203.0.113.9"}, "203.0.113.9", "http"),
        ({"X-Forwarded-For": "203.0.113.9", "X-Real-Ip": "198.51.100.77", "X-Scheme": "https"}, "203.0.113.9", "http"),
        ({"X-Forwarded-For": "198.51.100.77, unknown", "X-Forwarded-Proto": "wss"}, "127.0.0.1", "http"),
        ({"X-Forwarded-For": "2001:db8::9"}, "2001:db8::9", "http"),
        ({"X-Real-Ip": "198.51.100.77"}, "127.0.0.1", "http"),
        ({}, "127.0.0.1", "http"),
    ],
)
def test_a_visitor_comes_from_where_the_proxy_says(headers: dict[str, str], address: str, protocol: str) -> None:
    assert forwarded(HTTPHeaders(headers), "127.0.0.1", "http") == (address, protocol)


@pytest.mark.parametrize("host", ["*", "*.example", "http://lab.example", "lab.example/x", "lab.example:port", ""])
def test_a_name_that_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(InputError, match="allow-websocket-origin"):
        allowed_hosts([host])


@pytest.mark.parametrize(("given", "plain"), [("", ""), ("/", ""), ("same", "/same"), ("/lab/same/", "/lab/same")])
def test_a_prefix_is_a_path(given: str, plain: str) -> None:
    assert guard.checked_prefix(given) == plain


@pytest.mark.parametrize("prefix", ["/a b", "/../x", "/.", "/a?b", "/(.*)", "/a//b/%2e"])
def test_other_prefixes_are_refused(prefix: str) -> None:
    with pytest.raises(InputError, match="--prefix"):
        guard.checked_prefix(prefix)


@pytest.mark.parametrize(
    "address", ["lab:8786", "http://lab:8786", "tcp://lab", "tcp://:8786", "tcp://lab:port", "file:///x"]
)
def test_a_scheduler_has_an_address(address: str) -> None:
    guard.check_scheduler("tcp://lab.example:8786")
    with pytest.raises(InputError, match="--scheduler"):
        guard.check_scheduler(address)


def test_hosts_of_a_server_for_others_are_this_machines_names() -> None:
    assert guard.hosts("127.0.0.1", 5006, ("Lab.Example",)) == {"lab.example", "localhost:5006", "127.0.0.1:5006"}
    assert "[::1]:5006" in guard.hosts("::1", 5006, ())
    assert guard.hosts("127.0.0.1", 80, ()) == {"localhost", "127.0.0.1", "localhost:80", "127.0.0.1:80"}
    assert guard.hosts("FD00:0::2", 5006, ()) >= {"localhost:5006", f"{gethostname().lower()}:5006", "[fd00::2]:5006"}
    assert guard.is_local("127.0.0.1")
    assert guard.is_local("localhost")
    assert not guard.is_local("0.0.0.0")


@pytest.mark.parametrize(
    ("address", "found"),
    [("0.0.0.0", {"127.0.0.1:5006", "192.0.2.2:5006"}), ("::", {"[::1]:5006", "[fe80::1]:5006"})],
)
def test_at_every_address_hosts_are_those_of_the_interfaces(
    address: str, found: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"127.0.0.1": AF_INET, "192.0.2.2": AF_INET, "::1": AF_INET6, "fe80::1%eth0": AF_INET6, "02:fc:00": -1}
    cards = [SimpleNamespace(family=family, address=name) for name, family in names.items()]
    monkeypatch.setattr("psutil.net_if_addrs", lambda: {"lo": cards[::2], "eth0": cards[1::2]})
    assert guard.hosts(address, 5006, ()) == {"localhost:5006", f"{gethostname().lower()}:5006"} | found


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1", "localhost"),
        ("localhost", "localhost"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "[::1]"),
        ("FD00:0::2", "[fd00::2]"),
        ("0.0.0.0", gethostname()),
        ("::", gethostname()),
        ("Lab.example", "Lab.example"),
    ],
)
def test_the_name_that_is_shown_is_one_that_may_ask(address: str, said: str) -> None:
    assert guard.shown(address) == said
    found = Gate(Application(), guard.hosts(address, 5006, ()), "")
    assert found.refusal("GET", "/", HTTPHeaders({"Host": f"{said}:5006"})) is None


@pytest.mark.parametrize("secret", ["a", "x" * 31])
def test_a_secret_that_could_be_guessed_is_refused(secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANEL_COOKIE_SECRET", secret)
    with pytest.raises(InputError, match="PANEL_COOKIE_SECRET must have 32"):
        guard.options(None, None, "")
    monkeypatch.setenv("PANEL_COOKIE_SECRET", "x" * 32)
    assert guard.options(None, None, "")["cookie_secret"] == "x" * 32


def test_oauth_needs_a_list_of_who_may_enter_and_the_providers_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="--auth"):
        guard.accounts(None, "github")
    path = tmp_path / "users.json"
    file = guard.Accounts(path)
    file.add("alice", "viewer", None)
    found = guard.accounts(path, "github")
    assert found is not None
    for name in ("PANEL_OAUTH_KEY", "PANEL_OAUTH_SECRET"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="PANEL_OAUTH_KEY, PANEL_OAUTH_SECRET"):
        OAuth("github", found)
    with pytest.raises(InputError, match="Did you mean 'github'"):
        OAuth("gihub", found)
