"""Who may queue jobs: without a login only who sits at the machine, with one the runners, as long as they are."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from same.errors import InputError
from workbench.app import Serving, _visitor
from workbench.jobs.queue import Jobs
from workbench.serving.accounts import Accounts

PASSWORD = "correct horse"


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    found = Jobs()
    yield found
    found.close()


def test_without_a_login_who_sits_at_the_machine_may_queue(jobs: Jobs) -> None:
    assert _visitor(None, jobs, Serving(), "").jobs is jobs


@pytest.mark.parametrize("how", [Serving(hosts=("lab.example",)), Serving(prefix="/same"), Serving(address="0.0.0.0")])
def test_without_a_login_others_read_only(how: Serving, jobs: Jobs) -> None:
    visitor = _visitor(None, jobs, how, "")
    assert visitor.jobs is None
    assert visitor.queue is jobs


def test_rights_follow_the_file_while_the_page_is_open(jobs: Jobs, tmp_path: Path) -> None:
    accounts = Accounts(tmp_path / "users.json")
    for name, role in (("alice", "runner"), ("bob", "viewer"), ("carol", "runner")):
        accounts.add(name, role, PASSWORD)
    alice, bob, carol = (_visitor(accounts, jobs, Serving(), accounts.seal(name)) for name in ("alice", "bob", "carol"))
    assert (alice.name, alice.allowed(), bob.name, bob.jobs) == ("alice", jobs, "bob", None)
    accounts.add("alice", "viewer", PASSWORD)
    accounts.remove("carol")
    for visitor in (alice, bob, carol):
        with pytest.raises(InputError, match="Only runners may queue jobs"):
            visitor.allowed()
    accounts.add("alice", "runner", PASSWORD)
    with pytest.raises(InputError, match="Only runners may queue jobs"):
        alice.allowed()  # a login of a password that was


@pytest.mark.parametrize("said", ["", "alice", "alice:", "guest"])
def test_a_name_alone_is_no_login(said: str, jobs: Jobs, tmp_path: Path) -> None:
    accounts = Accounts(tmp_path / "users.json")
    accounts.add("alice", "runner", PASSWORD)
    visitor = _visitor(accounts, jobs, Serving(), said)
    assert (visitor.name, visitor.jobs) == ("", None)


def test_who_comes_from_a_provider_is_a_runner_by_name(jobs: Jobs, tmp_path: Path) -> None:
    accounts = Accounts(tmp_path / "users.json")
    accounts.add("ada@lab.example", "runner", None)
    visitor = _visitor(accounts, jobs, Serving(oauth="generic"), "ada@lab.example")
    assert (visitor.name, visitor.allowed()) == ("ada@lab.example", jobs)
    accounts.remove("ada@lab.example")
    with pytest.raises(InputError, match="Only runners may queue jobs"):
        visitor.allowed()


@pytest.mark.slow
def test_a_server_without_a_login_behind_a_proxy_warns(runs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "workbench.cli", "serve", "--runs", str(runs), "--port", "0"]
    log = tmp_path / "log"
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*command, "--allow-websocket-origin", "lab.example"], stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):
        assert process.stdout is not None
        assert "Dashboard of" in process.stdout.readline()
        process.terminate()
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert any("nobody may queue" in event["event"] for event in events if event["level"] == "warning")
