"""A sweep over real Dask workers: a lost one, a failing run, what is finished, an interrupt, one's own scheduler."""

import os
import signal

import psutil
import pytest
import yaml
from distributed import LocalCluster

from same.engine import tuning
from same.engine.grid import load_grid
from same.engine.results import SCHEMA, read_results
from same.engine.sweep import sweep
from same.errors import InputError
from same.runs import RunFolder
from same.sealed import write_json

pytestmark = [pytest.mark.slow, pytest.mark.distributed]


@pytest.fixture
def grid(ask, data, checkpoint, tmp_path):
    """Read a grid over the small benchmark."""

    def load(**content):
        path = tmp_path / "grid.yaml"
        shared = {"benchmarks": [str(data / "colours.yaml")], "checkpoint": str(checkpoint), "keep": "results"}
        path.write_text(yaml.safe_dump({**shared, "settings": {"batch_size": 4, "log_every": 1}, **content}))
        return load_grid(path, tmp_path / "runs")

    return load


def trainers():
    """Processes of runs, begun by workers of this process."""
    return [process for process in psutil.Process().children(recursive=True) if "same.cli" in process.cmdline()]


def once_started(act):
    """Act once, when a run has recorded its start."""
    acted = []

    def show(state):
        if not acted and any(cell.job.folder.events("start") for cell in state.flying):
            acted.append(act)
            act()

    return show, acted


def test_a_rate_is_chosen_while_a_lost_worker_loses_no_run_and_a_failing_run_stops_no_other(grid, tmp_path):
    tune = {"values": [1.0e-3, 1.0e30], "tasks": 1, "validation_items": 4}
    asked = grid(methods=["lora"], tasks=1, settings={"batch_size": 4, "log_every": 1, "epochs": 20}, tune=tune)
    candidates = tuning.candidates(asked)["lora"]

    def kill():
        worker = trainers()[0].parent()
        assert worker is not None
        worker.kill()

    show, killed = once_started(kill)
    state = sweep(asked, tmp_path / "results", workers=1, show=show)
    assert killed
    assert set(state.done) == {"colours/lora@learning_rate=0.001-0", "colours/lora-0"}
    (failed,) = state.failed
    assert failed == "colours/lora@learning_rate=1e+30-0"
    assert "loss must stay finite" in state.failed[failed]
    trained = candidates[1.0e-3].job.folder.events("task_start")
    assert len(trained) == 1  # it went on by itself, and nothing was trained twice
    ((path, found),) = read_results(tmp_path / "results")
    assert path.name == "lora-0.json"
    assert found["settings"]["train"]["learning_rate"] == 1.0e-3
    assert found["tuning"]["scores"]["1e+30"] is None
    assert str(tmp_path) not in path.read_text() + path.with_name("tuning.json").read_text()
    run = RunFolder(next((tmp_path / "runs/colours/lora").glob(f"*-{found['fingerprint']}")))
    assert run.snapshot(0).manifest()["pruned"]


def test_an_interrupt_stops_the_runs_and_the_same_sweep_goes_on_at_a_scheduler(grid, tmp_path):
    asked = grid(methods=["lora"], tasks=1)
    show, asked_to_stop = once_started(lambda: os.kill(os.getpid(), signal.SIGINT))
    state = sweep(asked, tmp_path, workers=1, show=show)
    assert asked_to_stop
    assert state.stopping
    assert not state.done
    assert not state.failed
    assert [event["kind"] for event in asked.cells[0].job.folder.events()][-1] == "interrupted"
    assert trainers() == []
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        state = sweep(asked, tmp_path, scheduler=cluster.scheduler_address)
    assert list(state.done) == ["colours/lora-0"]
    assert len(asked.cells[0].job.folder.events("start")) == 2
    state = sweep(asked, tmp_path, workers=1)
    assert state.done == {"colours/lora-0": 0.0}
    assert len(asked.cells[0].job.folder.events("start")) == 2


def test_a_scheduler_that_is_none_is_named(grid, tmp_path):
    with pytest.raises(InputError, match=r"--scheduler must be the address.*nowhere://host"):
        sweep(grid(methods=["lora"]), tmp_path, scheduler="nowhere://host:1")


def test_a_run_without_a_choice_is_named_and_counts_as_failed(grid, tmp_path):
    choices = {"setting": "learning_rate", "methods": {}}
    path = tuning.tuning_path(tmp_path / "results", "colours")
    path.parent.mkdir(parents=True)
    write_json(path, choices, SCHEMA)
    state = sweep(grid(methods=["lora"], tuned="colours"), tmp_path / "results", workers=1)
    assert not state.done
    assert list(state.failed) == ["colours/lora-0"]
    assert "no setting was chosen" in state.failed["colours/lora-0"]
