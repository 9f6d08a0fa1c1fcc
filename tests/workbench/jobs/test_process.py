"""A job's process: what it says, and how it ends."""

import sys
import time
from typing import Any

import psutil
import pytest

from workbench.jobs.process import watch

ASLEEP = "import time; time.sleep(100)"


def run(program: str, stopping: bool = False, seconds: float = 60, gigabytes: float = 4) -> tuple[Any, list[Any]]:
    told: list[dict[str, Any]] = []
    ended = watch([sys.executable, "-c", program], told.append, lambda: stopping, seconds, gigabytes)
    return ended, told


def test_lines_of_json_are_told_and_results_kept() -> None:
    program = """print('{"kind": "load"}\\nnot json\\n[1]\\n{"kind": "result", "id": "abc", "secret": 1}')"""
    assert run(program) == (("done", "", ["abc"]), [{"kind": "load"}, {"kind": "result", "results": 1}])


def test_a_failure_says_the_last_line_of_what_was_said() -> None:
    (state, message, _), _ = run("import sys; print('one\\ntwo words', file=sys.stderr); sys.exit(2)")
    assert (state, message) == ("failed", "two words")


@pytest.mark.parametrize(
    ("program", "limits", "state", "said"),
    [
        (ASLEEP, {"stopping": True}, "cancelled", "kept"),
        (ASLEEP, {"seconds": 0.1}, "failed", "minutes"),
        (f"x = bytearray(300_000_000); {ASLEEP}", {"gigabytes": 0.2}, "failed", "0.2 GB"),
        (f"import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); {ASLEEP}", {"stopping": True}, "cancelled", ""),
    ],
)
def test_a_process_that_must_stop_or_takes_too_much_is_ended(
    program: str, limits: dict[str, Any], state: str, said: str
) -> None:
    began = time.monotonic()
    (found, message, _), _ = run(program, **limits)
    assert found == state
    assert said in message
    assert time.monotonic() - began < 30


STUBBORN = """
import json, subprocess, time
child = subprocess.Popen(["/bin/sh", "-c", "trap '' TERM; echo; while :; do sleep 1; done"], stdout=subprocess.PIPE)
child.stdout.readline()
print(json.dumps({"kind": "child", "pid": child.pid}), flush=True)
"""


@pytest.mark.parametrize(("rest", "state"), [("time.sleep(100)", "cancelled"), ("", "done")])
def test_nothing_that_a_job_started_outlives_it(rest: str, state: str) -> None:
    """Neither when it must stop nor when it ends by itself; the child does not listen to being asked."""
    told: list[dict[str, Any]] = []
    began = time.monotonic()
    found, *_ = watch([sys.executable, "-c", STUBBORN + rest], told.append, lambda: bool(rest and told), 60, 4)
    assert found == state
    assert time.monotonic() - began < 9
    (event,) = told
    _, alive = psutil.wait_procs([psutil.Process(event["pid"])] if psutil.pid_exists(event["pid"]) else [], timeout=9)
    assert [process for process in alive if process.status() != psutil.STATUS_ZOMBIE] == []


def test_secrets_of_the_server_do_not_reach_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PANEL_COOKIE_SECRET", "secret")
    ended, _ = run(
        "import os, json; print(json.dumps({'kind': 'result', 'id': os.environ.get('PANEL_COOKIE_SECRET')}))"
    )
    assert ended == ("done", "", ["None"])
