"""Two processes train every method to what one trains it to: those that test_distributed leaves out, in one launch."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from same.engine.job import resolve
from same.engine.launch import child_environment
from same.engine.trainer import train
from same.methods._base import Method
from same.registry import load_class
from tests.engine.test_distributed import METHODS
from tests.methods.checks import methods_for

pytestmark = [pytest.mark.slow, pytest.mark.distributed]
NAMES = [name for name in methods_for("processes") if name not in METHODS]
QUICK = {"audit": False, "evaluate_next": False}
STEP = 1e-3  # of every method, whatever it makes of the learning rate


@pytest.fixture(scope="module")
def requests(request, ask, tmp_path_factory):
    """By method, of two processes; the runs of the methods that are to be tested now are done."""
    runs = tmp_path_factory.mktemp("runs")
    names = [it.callspec.params["name"] for it in request.session.items if it.path == request.path]
    few = {"train_items": 8, "test_items": 2, "tasks": 2}
    rates = {name: STEP / load_class("same.methods", name, Method).rate for name in names}
    found = {
        name: replace(ask(runs / "two", name, 2, learning_rate=rate, **QUICK), **few) for name, rate in rates.items()
    }
    given = json.dumps([asdict(request) for request in found.values()])
    worker = str(Path(__file__).with_name("in_turn.py"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", worker, given]
    variables = child_environment(2) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return found


def determined(tensors):
    """What two runs must agree on: a subspace for its basis, a weight for its singular parts, whose signs are free."""
    found = {}
    for key, value in tensors.items():
        if key.startswith("basis."):
            found[key] = value @ value.T
        elif key.endswith(".U_low"):
            part = key.removesuffix("U_low")
            found[part] = value @ tensors[f"{part}S_low"].diag() @ tensors[f"{part}V_low"]
        elif not key.endswith((".S_low", ".V_low")) and value.is_floating_point() and value.numel():
            found[key] = value
    return found


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_end_as_one(name, requests):
    two = resolve(requests[name]).folder
    one = train(replace(requests[name], processes=1, runs=requests[name].runs.replace("two", "one")))
    losses = [[event["loss"] for event in run.events("step")] for run in (one, two)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    for task, near in ((0, 1e-3), (1, 1e-2)):  # AdamW makes much of a gradient that is nearly 0
        files = sorted(one.path.glob(f"snapshots/task_0{task}/**/*.safetensors"))
        assert files
        for file in files:
            first, second = (determined(load_file(each)) for each in (file, two.path / file.relative_to(one.path)))
            assert first.keys() == second.keys()
            for key, value in first.items():
                if "eigenvectors" not in key:
                    assert (value - second[key]).norm() <= near * value.norm() + 1e-5, (file, key)
