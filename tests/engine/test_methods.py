"""Every method through the engine: trained, evaluated, stopped between two tasks and taken up again."""

import shutil

import pytest
from safetensors.torch import load_file

from same import registry
from same.engine.trainer import train
from same.methods._base import Method
from same.runs import RunFolder

NAMES = [name for name in registry.names("same.methods") if registry.load_class("same.methods", name, Method).trains]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_is_taken_up_again_ends_as_if_it_had_not_stopped(name, ask, tmp_path):
    whole = train(ask(tmp_path / "runs", name))
    assert whole.finished() == 3
    assert len(whole.scores()["variants"]["strict"]) == 3
    shutil.copytree(tmp_path / "runs", tmp_path / "again")
    again = RunFolder(tmp_path / "again" / whole.path.relative_to(tmp_path / "runs"))
    for place in ("snapshots/task_01", "snapshots/task_02", "predictions/1", "predictions/2"):
        shutil.rmtree(again.path / place, ignore_errors=True)
    assert again.finished() == 1
    train(ask(tmp_path / "again", name))
    for file in sorted(whole.path.glob("snapshots/task_02/**/*.safetensors")):
        first, second = load_file(file), load_file(again.path / file.relative_to(whole.path))
        assert first.keys() == second.keys()
        assert [key for key in first if not first[key].equal(second[key])] == []
    assert again.scores()["variants"] == whole.scores()["variants"]
