"""Two processes train every method to what one trains it to; all of them in one launch."""

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
from tests.methods.checks import methods_for

pytestmark = [pytest.mark.slow, pytest.mark.distributed]
NAMES = methods_for("processes")
QUICK = {"learning_rate": 1e-3, "audit": False, "evaluate_next": False}


@pytest.fixture(scope="module")
def requests(ask, tmp_path_factory):
    """By method, of two processes; the runs are done."""
    runs = tmp_path_factory.mktemp("runs")
    found = {name: replace(ask(runs / "two", name, 2, **QUICK), train_items=8, test_items=2) for name in NAMES}
    given = json.dumps([asdict(request) for request in found.values()])
    worker = str(Path(__file__).with_name("in_turn.py"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", worker, given]
    variables = child_environment(2) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_end_as_one(name, requests):
    two = resolve(requests[name]).folder
    one = train(replace(requests[name], processes=1, runs=requests[name].runs.replace("two", "one")))
    compared = 0
    for file in sorted(one.path.glob("snapshots/task_02/**/*.safetensors")):
        first, second = load_file(file), load_file(two.path / file.relative_to(one.path))
        assert first.keys() == second.keys()
        for key, value in first.items():
            if value.is_floating_point() and value.numel() and not key.endswith(("eigenvectors", "basis")):
                near = {"rtol": 1e-3, "atol": 1e-4 * float(value.abs().max()) + 1e-6}
                assert abs(value - second[key]).max() <= near["atol"] + near["rtol"] * value.abs().max(), (file, key)
                compared += 1
    assert compared
