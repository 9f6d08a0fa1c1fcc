"""Who may queue jobs: without a login only who sits at the machine."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.app import Serving, _visitor
from workbench.jobs.queue import Jobs


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    found = Jobs()
    yield found
    found.close()


def test_without_a_login_who_sits_at_the_machine_may_queue(jobs: Jobs) -> None:
    assert _visitor(None, jobs, Serving().alone).jobs is jobs


@pytest.mark.parametrize("how", [Serving(hosts=("lab.example",)), Serving(prefix="/same"), Serving(address="0.0.0.0")])
def test_without_a_login_others_read_only(how: Serving, jobs: Jobs) -> None:
    visitor = _visitor(None, jobs, how.alone)
    assert visitor.jobs is None
    assert visitor.queue is jobs


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
