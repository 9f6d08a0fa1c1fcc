"""The queue: who may ask for what, how a job goes through a real Dask worker, and its end."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import psutil
import pytest
from distributed import LocalCluster

from same.errors import InputError
from same.runs import RunFolder, write_table
from tests.workbench.synthetic import write_run
from workbench.jobs.asked import Rerouting, TokenRouting
from workbench.jobs.queue import FINISHED, LOST, Job, Jobs, Limits

ASKED = Rerouting("gqa", ("0",), (1,))
LAYER = "base_model.model.model.language_model.layers.0.mlp.gate_proj"


@dataclass(frozen=True)
class Program:
    """A question that a few lines answer."""

    lines: str
    title: str = "a program"
    count: int = 1

    def check(self, run: RunFolder) -> None:
        """It fits every run."""

    def command(self, run: RunFolder) -> list[str]:
        return ["-c", self.lines]


def held_by(waiting: socket.socket) -> Program:
    """A program that comes to a socket and goes on until that lets it go."""
    return Program(f"import socket; socket.create_connection({waiting.getsockname()}).recv(1)")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_run(tmp_path_factory.mktemp("runs"), "same")


class Ended:
    """Waits for jobs that have ended."""

    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self._any = threading.Condition()

    def __call__(self, job: Job) -> None:
        if job.state in FINISHED:
            with self._any:
                self.jobs[job.key] = job
                self._any.notify_all()

    def wait(self, key: str) -> Job:
        with self._any:
            assert self._any.wait_for(lambda: key in self.jobs, 60)
            return self.jobs[key]


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
def jobs(ended: Ended) -> Iterator[Jobs]:
    found = Jobs(None, Limits(per_user=2, waiting=3), ended)
    yield found
    found.close()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "gqaa"}, "gqa"),
        ({"task": "--help"}, "Unknown task"),
        ({"task": "gqa; rm -rf /"}, "Unknown task"),
        ({"routers": ("9",)}, "Choices: 0, 1"),
        ({"routers": ("0 --seed 1",)}, "Unknown version"),
        ({"routers": ()}, "must be chosen"),
        ({"experts": (8,)}, "Unknown version"),
        ({"experts": (-1,)}, "Unknown version"),
        ({"retrain_steps": 10**6}, "10000"),
        ({"retrain_steps": -1}, "retraining steps"),
        ({"learning_rate": float("nan")}, "learning rate"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"items": 0}, "items"),
        ({"seed": -1}, "seed"),
        ({"layer": "../../etc/passwd", "weights": (1.0,) * 8}, "Unknown layer"),
        ({"layer": LAYER, "weights": (1.0,)}, "8 numbers"),
        ({"layer": LAYER, "weights": (0.0,) * 8}, "not all be 0"),
        ({"layer": LAYER, "weights": (float("inf"),) * 8}, "8 numbers"),
        ({"layer": LAYER, "weights": (float("nan"),) * 8}, "8 numbers"),
    ],
)
def test_a_question_that_does_not_fit_the_run_is_refused_before_it_waits(
    changes: dict[str, Any], said: str, run: RunFolder, jobs: Jobs
) -> None:
    asked = Rerouting(**{**vars(ASKED), **changes})
    with pytest.raises(InputError, match=said):
        jobs.submit("alice", run, "name", asked)
    assert jobs.listed() == []


def test_arguments_are_a_list_and_values_cannot_be_options(run: RunFolder) -> None:
    asked = Rerouting("gqa", ("0", "own"), (1, 2), 5, 0.001, 10, 3, LAYER, (0.0, 1.0))
    command = asked.command(run)
    assert command[:3] == ["-m", "same.cli", "reroute"]
    assert all(word.startswith("--") for word in command[3:])
    assert {"--router=0,own", "--experts=1,2", "--retrain-steps=5", "--weights=0.0,1.0"} <= set(command)


def test_a_question_about_tokens_is_compared_with_the_run_too(run: RunFolder, jobs: Jobs) -> None:
    answers = {"question_id": ["--help"], "text": ["a"]}
    run.predictions(1).write(lambda path: write_table(path / "gqa.parquet", answers))
    asked = TokenRouting(1, "gqa", "--help")
    asked.check(run)
    assert asked.command(run)[-3:] == ["--after=1", "--task=gqa", "--question=--help"]
    wrong = [({"after": 9}, "Unknown stage"), ({"task": "../x"}, "Unknown task"), ({"question": "1"}, "has not")]
    for changes, said in wrong:
        with pytest.raises(InputError, match=said):
            jobs.submit("alice", run, "name", TokenRouting(**{**vars(asked), **changes}))
    assert jobs.listed() == []


@pytest.mark.parametrize("asked", [Rerouting("gqa", ("0",), (0,)), TokenRouting(0, "gqa", "1")])
def test_a_run_without_its_adapters_is_refused_before_a_model_is_loaded(
    tmp_path: Path, asked: Rerouting | TokenRouting
) -> None:
    pruned = write_run(tmp_path, "same")
    tables = {"column": [0.0]}
    pruned.write_snapshot(0, lambda path: write_table(path / "routing.parquet", tables), pruned=True)
    with pytest.raises(InputError, match="must hold its adapters"):
        asked.check(pruned)


def test_one_user_and_the_server_have_a_limit(run: RunFolder, jobs: Jobs) -> None:
    one, two, three, four = (replace(ASKED, seed=seed) for seed in range(4))
    first = jobs.submit("alice", run, "name", one)
    jobs.submit("alice", run, "name", two)
    with pytest.raises(InputError, match="you have 2"):
        jobs.submit("alice", run, "name", three)
    jobs.submit("bob", run, "name", three)
    with pytest.raises(InputError, match="the server has 3"):
        jobs.submit("carol", run, "name", four)
    with pytest.raises(InputError, match="alice's"):
        jobs.cancel(first.key, "bob")
    with pytest.raises(InputError, match="Unknown job"):
        jobs.cancel("nothing", "bob")


def test_who_asks_what_is_being_asked_gets_that_job(run: RunFolder, jobs: Jobs) -> None:
    first = jobs.submit("alice", run, "name", ASKED)
    assert jobs.submit("alice", run, "name", replace(ASKED)).key == first.key
    assert jobs.submit("bob", run, "name", ASKED).key == first.key
    assert jobs.submit("bob", run, "another", ASKED).key != first.key
    jobs.cancel(first.key, "alice")
    assert jobs.submit("alice", run, "name", ASKED).key != first.key


@pytest.mark.slow
def test_jobs_go_through_the_worker_one_after_the_other(run: RunFolder, jobs: Jobs, ended: Ended) -> None:
    """The synthetic run has no model: the command fails, and its reason comes back; the one that waits is cancelled."""
    first = jobs.submit("alice", run, "name", ASKED)
    second = jobs.submit("alice", run, "name", Program("pass"))
    jobs.cancel(second.key, "alice")
    assert ended.wait(second.key).state == "cancelled"
    found = ended.wait(first.key)
    assert found.state == "failed"
    assert found.message
    assert found.ended is not None
    assert [job.key for job in jobs.listed()] == [second.key, first.key]
    jobs.submit("alice", run, "name", ASKED)  # what has ended counts no more
    listening = [one for one in psutil.Process().net_connections("inet") if one.status == psutil.CONN_LISTEN]
    assert {one.laddr.ip for one in listening} <= {"127.0.0.1"}


def pass_on(near: socket.socket, place: SplitResult) -> None:
    """Let a connection reach another place."""

    def one_way(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while part := source.recv(1 << 16):
                target.sendall(part)

    far = socket.create_connection((place.hostname, place.port))
    for pair in ((near, far), (far, near)):
        threading.Thread(target=one_way, args=pair, daemon=True).start()


@pytest.mark.slow
def test_a_job_cancelled_while_it_is_being_sent_does_not_run(run: RunFolder, ended: Ended) -> None:
    lab = LocalCluster(1, threads_per_worker=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0")
    with lab, socket.create_server(("127.0.0.1", 0)) as between:
        jobs = Jobs(f"tcp://127.0.0.1:{between.getsockname()[1]}", notify=ended)
        job = jobs.submit("alice", run, "name", ASKED)
        first, _ = between.accept()  # it is connecting
        jobs.cancel(job.key, "alice")
        assert ended.wait(job.key).state == "cancelled"
        following = jobs.submit("alice", run, "name", Program("pass"))

        def let_all_in() -> None:
            pass_on(first, urlsplit(lab.scheduler_address))
            with suppress(OSError):
                while True:
                    pass_on(between.accept()[0], urlsplit(lab.scheduler_address))

        threading.Thread(target=let_all_in, daemon=True).start()
        assert ended.wait(following.key).state == "done"
        assert [event["kind"] for _, event in lab.scheduler.get_events(f"job-{following.key}")] == ["start"]
        assert not lab.scheduler.get_events(f"job-{job.key}")
        assert jobs.job(job.key).state == "cancelled"
        jobs.close()


LAB = """
import sys
from distributed import LocalCluster
port = int(sys.argv[1])
lab = LocalCluster(
    1, threads_per_worker=1, processes=False, protocol="tcp", scheduler_port=port, dashboard_address="127.0.0.1:0"
)
print(lab.scheduler_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def lab(port: int = 0, python: str = sys.executable) -> Iterator[str]:
    """A cluster in a process of its own, killed at the end; gives its address."""
    with subprocess.Popen(
        [python, "-c", LAB, str(port)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.kill()


@pytest.mark.slow
def test_jobs_of_a_scheduler_that_is_lost_have_failed_and_a_new_one_takes_the_next(
    run: RunFolder, ended: Ended
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        with lab() as address:
            jobs = Jobs(address, None, ended, patience=3)
            running = jobs.submit("alice", run, "name", held_by(waiting))
            process, _ = waiting.accept()
            behind = jobs.submit("alice", run, "name", Program("pass"))
        lost = [ended.wait(job.key) for job in (running, behind)]
        process.close()
    assert [(job.state, job.message) for job in lost] == [("failed", LOST)] * 2
    unanswered = ended.wait(jobs.submit("alice", run, "name", Program("pass")).key)
    assert (unanswered.state, address in unanswered.message) == ("failed", True)
    with lab(urlsplit(address).port or 0):
        assert ended.wait(jobs.submit("alice", run, "name", Program("pass")).key).state == "done"
        jobs.close()


@pytest.mark.slow
def test_a_worker_runs_a_job_with_its_own_python(run: RunFolder, ended: Ended, tmp_path: Path) -> None:
    """Which is at another path than the server's."""
    (tmp_path / "there").symlink_to(sys.prefix)
    python = str(tmp_path / "there" / Path(sys.executable).relative_to(sys.prefix))
    with lab(python=python) as address:
        jobs = Jobs(address, None, ended)
        lines = """import json, sys; print(json.dumps({"kind": "result", "id": sys.executable}))"""
        done = ended.wait(jobs.submit("alice", run, "name", Program(lines)).key)
        assert (done.state, done.results) == ("done", (python,))
        jobs.close()


@pytest.mark.slow
def test_a_running_job_stops_when_it_is_cancelled_or_the_server_ends(run: RunFolder, jobs: Jobs, ended: Ended) -> None:
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        for end in (lambda key: jobs.cancel(key, "alice"), lambda _key: jobs.close()):
            job = jobs.submit("alice", run, "name", held_by(waiting))
            behind = jobs.submit("bob", run, "name", Program("pass"))
            process, _ = waiting.accept()
            end(job.key)
            assert (ended.wait(job.key).state, process.recv(1)) == ("cancelled", b"")
            assert ended.wait(behind.key).state in FINISHED


def test_a_scheduler_that_does_not_answer_fails_the_job(run: RunFolder, ended: Ended, tmp_path: Path) -> None:
    jobs = Jobs("tcp://127.0.0.1:1", None, ended, patience=1)
    job = ended.wait(jobs.submit("alice", run, "name", ASKED).key)
    assert job.state == "failed"
    assert "tcp://127.0.0.1:1" in job.message
    jobs.close()


def test_of_many_jobs_the_oldest_that_have_ended_are_forgotten(run: RunFolder) -> None:
    told: list[str] = []
    jobs = Jobs("tcp://127.0.0.1:1", None, lambda job: told.append(f"{job.key} {job.state}"), patience=2)
    first = jobs.submit("alice", run, "name", ASKED)
    for _ in range(210):
        jobs.cancel(jobs.submit("alice", run, "name", Program("pass")).key, "alice")
    kept = jobs.listed()
    assert len(kept) == 200
    assert kept[-1].key == first.key
    jobs.close()
    assert len(told) == len(set(told)), "each is told once"
    assert {job.state for job in jobs.listed()} <= set(FINISHED)
    with pytest.raises(InputError, match="ending"):
        jobs.submit("alice", run, "name", ASKED)


@pytest.mark.parametrize("limits", [{"per_user": 0}, {"minutes": -1.0}, {"gigabytes": float("nan")}])
def test_a_limit_is_positive(limits: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="positive"):
        Limits(**limits)
