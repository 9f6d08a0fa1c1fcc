"""The re-routing lab without a browser: what it offers, shows and refuses; with a model, from question to record."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from same.engine.trainer import train
from same.metrics import READINGS
from same.runs import RunFolder, write_table
from tests.engine.conftest import ask, checkpoint, data  # noqa: F401 - a benchmark and a backbone of seconds
from tests.workbench.synthetic import TASKS, write_run
from workbench.jobs.queue import FINISHED, Job, Jobs
from workbench.store import Store
from workbench.views._base import Visitor
from workbench.views.rerouting import ReroutingLab

SCRIPT = "<script>alert(1)</script>"


def record(run: RunFolder, key: str, router: str, experts: int, **more: Any) -> None:
    """Let a run hold a result."""
    about = {"id": key, "run": "r", "task": TASKS[0], "router": router, "experts": experts, "learning_rate": None}
    about |= {"items": 2, "seed": 0, "layer": None, "weights": [], "task_index": 0, "retrained_steps": 0}
    about |= {
        "scores": dict.fromkeys(READINGS, 0.5),
        "errors": {},
        "curve": [],
        "seconds": 1.0,
        "created": "2026-01-01",
    }
    answers = {"question_id": ["1", "2"], "prompt": ["q", SCRIPT], "text": [SCRIPT, "b"], "answer": ["a", "b"]}
    run.write_rerouting(key, {**about, **more}, answers)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    found = write_run(tmp_path / "runs", "same", finished=3)
    answers = {"question_id": ["1", "2"], "text": ["old", "older"]}
    for after in range(3):
        found.predictions(after).write(lambda path: write_table(path / f"{TASKS[0]}.parquet", answers))
    return found


@pytest.fixture
def store(run: RunFolder) -> Store:
    return Store(run.path.parents[2])


def test_a_viewer_reads_what_runners_found_and_is_told_why_no_more(run: RunFolder, store: Store) -> None:
    for experts in range(3):
        record(run, f"abc{experts}", str(experts), experts)
    record(run, "trained", "0", 2, retrained_steps=2, curve=[{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}])
    view = ReroutingLab(store, Visitor("bob"))
    assert "Only runners may queue jobs" in view.note.object
    assert view.pair_button.disabled
    assert view.grid.object.data[0].z[0][0] == 0.5
    assert list(view.curve.object.data[0].y) == [2.0, 1.0]  # of the newest
    assert list(view.answers.value["before"]) == ["old", "older"]
    assert list(view.answers.value["now"]) == [SCRIPT, "b"]
    view.attempt(view._pair)
    assert view.note.alert_type == "error"
    assert "Only runners" in view.note.object


def test_a_damaged_result_is_named_and_the_others_are_shown(run: RunFolder, store: Store) -> None:
    record(run, "abc0", "0", 0)
    record(run, "abc1", "0", 1)
    damaged = run.rerouting("abc1")
    damaged.write_bytes(damaged.read_bytes().replace(b"0.5", b"0.9"))
    view = ReroutingLab(store)
    assert "abc1.json is damaged" in view.note.object
    assert len(view.results.options) == 1


def test_a_link_restores_what_is_on_offer_and_nothing_else(store: Store) -> None:
    view = ReroutingLab(store)
    wish = {"task": "gqa", "router": "oracle", "experts": "2", "steps": "7"}
    view.restore(wish)
    assert wish.items() <= view.state().items()
    view.restore({"run": "../../etc", "task": "x", "experts": "99", "steps": "-1", "router": SCRIPT})
    assert wish.items() <= view.state().items()
    view.restore({"steps": "many"})
    assert view.steps.value == 7


def test_a_link_restores_the_weights_set_by_hand(store: Store) -> None:
    view = ReroutingLab(store)
    told: list[str] = []
    view.on_state = lambda: told.append(view.state()["weights"])
    view.weights[1].value = 0.0
    assert told == ["1,0,1,1,1,1,1,1"]
    view.weights[2].value = 1 / 3
    view.weights[3].value = None
    assert view.state()["weights"] == "1,0,0.333333333333,0,1,1,1,1"
    other = ReroutingLab(store)
    other.restore(view.state())
    assert other.state() == view.state()
    for wrong in ("1,2", "2," * 8, "", "nan,inf,-1,x,1e999,,-inf,none"):
        other.restore({"weights": wrong})
        assert other.state() == view.state()


def test_the_address_follows_what_is_to_be_asked(store: Store) -> None:
    view = ReroutingLab(store)
    told: list[dict[str, str]] = []
    view.on_state = lambda: told.append(view.state())
    view.router.value, view.experts.value, view.steps.value = "oracle", 2, 7
    assert [(one["router"], one["experts"], one["steps"]) for one in told] == [
        ("oracle", "0", "50"),
        ("oracle", "2", "50"),
        ("oracle", "2", "7"),
    ]


def test_without_experts_it_says_so(tmp_path: Path) -> None:
    assert "same train" in ReroutingLab(Store(tmp_path)).note.object
    run = write_run(tmp_path, "lora", finished=1)
    run.write_snapshot(0, lambda path: write_table(path / "activation.parquet", {"after": [0]}))
    view = ReroutingLab(Store(tmp_path))
    assert "--method same" in view.note.object
    view.attempt(view._grid)


class Watch:
    """Waits until a job has ended."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def __call__(self, job: Job) -> None:
        if job.state in FINISHED:
            self.ended.set()


@pytest.fixture
def lab(ask: Any, tmp_path: Path) -> Iterator[tuple[ReroutingLab, Watch]]:  # noqa: F811
    train(ask(tmp_path / "runs", method="moelora", num_experts=3, rank=2))
    watch = Watch()
    jobs = Jobs(notify=watch)
    yield ReroutingLab(Store(tmp_path / "runs"), Visitor("alice", jobs, jobs)), watch
    jobs.close()


@pytest.mark.slow
def test_a_question_becomes_a_result_of_the_run(lab: tuple[ReroutingLab, Watch]) -> None:
    view, watch = lab
    view.restore({"task": "letter", "router": "0", "experts": "2", "steps": "2"})
    view._retrain()
    assert watch.ended.wait(120)
    view.poll()
    assert list(view.queue.value["state"]) == ["done"], list(view.queue.value["message"])
    found = view.store.rerouting(view.run.value, view.results.value)
    assert (found["task"], found["router"], found["experts"], found["retrained_steps"]) == ("letter", "0", 2, 2)
    assert [point["step"] for point in found["curve"]] == [1, 2]
    assert len(view.answers.value) == found["items"] == 5
    assert len(view.curve.object.data[0].x) == 2
