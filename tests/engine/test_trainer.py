"""The continual trainer: what a run leaves, and that stopping, going on and repeating change nothing in it."""

import dataclasses
import os
import shutil
import signal

import pytest
from safetensors.numpy import load_file

from same.engine.evaluate import evaluate_run
from same.engine.job import resolve
from same.engine.processes import Stopped
from same.engine.trainer import train
from same.errors import DataError, InputError, RunFailed, SnapshotError
from same.metrics import count_errors
from same.runs import RunFolder

KEYS = ["colour", "letter", "length"]


def adapter(run, index=2):
    return load_file(run.snapshot(index).file("adapter/adapter_model.safetensors"))


def same_result(one, other):
    weights, others = adapter(one), adapter(other)
    equal = weights.keys() == others.keys() and all((weights[name] == others[name]).all() for name in weights)
    return equal and one.scores() == other.scores()


def interrupt_at(**wanted):
    def report(event):
        if all(event.get(name) == value for name, value in wanted.items()):
            os.kill(os.getpid(), signal.SIGINT)

    return report


def test_a_run_leaves_scores_predictions_and_a_snapshot_a_task(finished):
    scores = finished.scores()
    assert scores["tasks"] == KEYS
    assert [[value is not None for value in row] for row in scores["variants"]["strict"]] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]
    assert scores["forward"]["strict"][0] is None
    assert None not in scores["forward"]["strict"][1:] + scores["zero_shot"]["semantic"]
    for index in range(3):
        finished.snapshot(index).verify()
        table = finished.read_predictions(index, "colour")
        assert list(table["question_id"]) == [f"colour-{row}" for row in range(5)]
        assert table["strict"].mean() == scores["variants"]["strict"][index][0]
        assert count_errors(table["error"]) == scores["errors"][index][0]
    assert scores["errors"][0][1:] == [None, None]
    assert not (finished.path / "state").exists()


def test_events_tell_the_run_in_order(finished):
    kinds = [event["kind"] for event in finished.events()]
    assert kinds[0] == "start"
    assert kinds[-1] == "done"
    one_task = ["task_start", "step", "step", "evaluate", "evaluate", "task_end"]
    assert kinds[4:12] == ["plan", "budget", *one_task]
    named = {"task", "step", "steps", "loss", "learning_rate", "samples_per_second", "eta_seconds", "memory_mb"}
    assert named <= set(finished.events("step")[0])


def test_the_loss_falls_and_tasks_change_the_adapter(finished):
    losses = [event["loss"] for event in finished.events("step")]
    assert losses[-1] < losses[0]
    first, last = adapter(finished, 0), adapter(finished, 2)
    assert any((first[name] != last[name]).any() for name in first)


def test_a_finished_run_is_not_trained_again(ask, copied):
    before = (copied.path / "snapshots" / "task_02" / "manifest.json").stat().st_mtime_ns
    train(ask(copied.path.parents[2]))
    assert len(copied.events("task_start")) == 3
    assert (copied.path / "snapshots" / "task_02" / "manifest.json").stat().st_mtime_ns == before


def test_going_on_from_a_snapshot_gives_the_uninterrupted_result_bit_for_bit(ask, copied, finished):
    for index in (1, 2):
        shutil.rmtree(copied.snapshot(index).path)
    train(ask(copied.path.parents[2]))
    assert [event["task"] for event in copied.events("task_start")] == [0, 1, 2, 1, 2]
    assert same_result(copied, finished)


def test_an_interrupt_in_mid_task_keeps_finished_tasks_and_changes_nothing_in_the_end(ask, finished, tmp_path):
    with pytest.raises(Stopped):
        train(ask(tmp_path), interrupt_at(kind="step", task=1, step=1))
    run = RunFolder(tmp_path / finished.path.relative_to(finished.path.parents[2]))
    assert run.finished() == 1
    assert run.events("interrupted")[0]["finished"] == 1
    assert len(run.scores()["variants"]["strict"]) == 1
    train(ask(tmp_path))
    assert same_result(run, finished)


def test_an_interrupt_during_evaluation_costs_no_training(ask, copied, finished):
    for index in (1, 2):
        shutil.rmtree(copied.snapshot(index).path)
    with pytest.raises(Stopped):
        train(ask(copied.path.parents[2]), interrupt_at(kind="evaluate", stage=1, task=0))
    assert copied.trained(1).exists
    before = len(copied.events("step"))
    train(ask(copied.path.parents[2]))
    assert [event["task"] for event in copied.events("step")[before:]] == [2, 2]
    assert same_result(copied, finished)


def test_accumulating_gradients_gives_the_same_adapter(ask, finished, tmp_path):
    run = train(ask(tmp_path, gradient_accumulation=2))
    weights, others = adapter(run, 0), adapter(finished, 0)
    assert all(abs(weights[name] - others[name]).max() < 1e-3 for name in weights)
    losses = [[event["loss"] for event in one.events("step")] for one in (run, finished)]
    assert losses[0][:2] == pytest.approx(losses[1][:2], rel=1e-4)


@pytest.mark.slow
def test_accumulating_gradients_counts_and_constrains_the_same(ask, tmp_path):
    given = {"num_experts": 2, "rank": 2, "audit": False, "freeze_every": 1, "learning_rate": 1e-3}
    runs = [train(ask(tmp_path, "same_plus", gradient_accumulation=parts, **given)) for parts in (1, 2)]
    weights, others = map(adapter, runs)
    assert all(abs(weights[name] - others[name]).max() < 1e-4 for name in weights)
    state, counted = (load_file(run.snapshot(2).file("method_state.safetensors")) for run in runs)
    assert all(counted[name] == pytest.approx(value, rel=1e-3, abs=1e-3) for name, value in state.items())


def test_a_damaged_snapshot_is_named_before_anything_is_trained(ask, copied):
    shutil.rmtree(copied.snapshot(2).path)
    path = copied.snapshot(1).path / "adapter" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(SnapshotError, match=r"task_01/adapter/adapter_model\.safetensors is damaged"):
        train(ask(copied.path.parents[2]))


def test_missing_predictions_are_answered_again_from_the_snapshot(copied, finished):
    before = copied.read_predictions(1, "colour")
    shutil.rmtree(copied.predictions(1).path)
    (copied.path / "scores.json").unlink()
    evaluate_run(copied)
    assert copied.read_predictions(1, "colour").equals(before)
    assert copied.scores() == finished.scores()
    assert not (copied.path / "state").exists()


def test_a_run_is_evaluated_wherever_it_was_moved(copied, finished, tmp_path):
    moved = RunFolder(shutil.move(copied.path, tmp_path / "moved"))
    shutil.rmtree(moved.predictions(2).path)
    evaluate_run(moved)
    assert moved.scores() == finished.scores()
    assert not copied.path.exists()


def test_damaged_predictions_are_named_when_a_run_is_evaluated(copied):
    path = copied.predictions(1).path / "colour.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SnapshotError, match=r"task_01/colour\.parquet is damaged"):
        evaluate_run(copied)


def test_answers_that_runs_share_are_written_once(ask, finished, tmp_path):
    for seed in (0, 1):
        train(ask(tmp_path, method="zero_shot", seed=seed))
    (shared,) = (path for path in tmp_path.glob("colours/.zero_shot/*") if path.is_dir())
    runs = [RunFolder(path.parent) for path in tmp_path.glob("colours/zero_shot/*/config.json")]
    assert [run.scores()["zero_shot"] for run in runs] == [finished.scores()["zero_shot"]] * 2
    assert [len(run.events("evaluate")) for run in sorted(runs, key=lambda run: run.path)] == [3, 0]
    assert (shared / "manifest.json").is_file()


def test_a_parent_out_of_sight_is_no_hindrance(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "getppid", lambda: 0)
    assert train(ask(tmp_path, method="zero_shot")).events("done")


def test_large_seeds_train(ask, tmp_path):
    assert train(ask(tmp_path, seed=2**32 - 1)).finished() == 3


def test_without_training_every_stage_scores_as_the_backbone(ask, tmp_path):
    run = train(ask(tmp_path, method="zero_shot"))
    scores = run.scores()
    for variant, rows in scores["variants"].items():
        assert rows[2] == scores["zero_shot"][variant]


@pytest.mark.parametrize("method", ["lora", "same_plus"])
def test_half_precision_trains(method, ask, tmp_path):
    run = train(ask(tmp_path, method, precision="bf16"))
    assert run.finished() == 3
    assert all(weight.dtype == "float32" for weight in adapter(run).values())


def test_a_loss_that_is_not_finite_fails_and_is_recorded(ask, tmp_path):
    with pytest.raises(RunFailed, match="loss must stay finite"):
        train(ask(tmp_path, learning_rate=1e30))
    run = next(tmp_path.glob("colours/lora/*"))
    assert "loss must stay finite" in RunFolder(run).events("failed")[0]["error"]


@pytest.mark.parametrize(
    "change", [{"method": "lorra"}, {"learning_rat": 1}, {"batch_size": 3, "processes": 2}, {"checkpoint": "nowhere"}]
)
def test_bad_input_leaves_nothing(ask, tmp_path, change):
    with pytest.raises(InputError):
        train(ask(tmp_path, **change))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_image_is_named_and_leaves_nothing(ask, data, tmp_path, monkeypatch):
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "colours" / "images" / "red.png").unlink()
    monkeypatch.setenv("SAME_DATA", str(tmp_path / "data"))
    with pytest.raises(DataError, match=r"red\.png"):
        train(ask(tmp_path / "runs"))
    assert not (tmp_path / "runs").exists()


def test_rows_without_their_picture_are_left_out_where_that_is_allowed(ask, data, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    request = dataclasses.replace(ask(tmp_path / "runs"), data_root=str(tmp_path / "data"), allow_missing=True)
    whole = resolve(request).settings
    assert whole == resolve(ask(tmp_path / "runs")).settings, "nothing is missing: the run is the same"
    (tmp_path / "data/colours/images/red.png").unlink()
    run = train(request)
    settings = run.config()["settings"]
    assert settings["left_out"] == {key: {"train": 3, "test": 2} for key in KEYS}
    assert settings["data"] != whole["data"]
    assert len(run.read_predictions(0, "colour")) == 3
    assert [event["rows"] for event in run.events("task_start")] == [7, 7, 7]
    evaluate_run(run)
    shutil.copy(data / "colours/images/red.png", tmp_path / "data/colours/images")
    with pytest.raises(InputError, match="left_out"):
        evaluate_run(run)


def test_worker_processes_change_nothing(ask, finished, tmp_path):
    run = train(ask(tmp_path, workers=2))
    assert run.path.name == finished.path.name
    assert same_result(run, finished)


def test_a_box_that_cannot_be_scored_is_named_and_leaves_nothing(ask, data, tmp_path, monkeypatch):
    shutil.copytree(data, tmp_path / "data")
    manifest = tmp_path / "data" / "colours.yaml"
    manifest.write_text(manifest.read_text().replace("scorer: exact", "scorer: grounding"))
    monkeypatch.setenv("SAME_DATA", str(tmp_path / "data"))
    request = dataclasses.replace(ask(tmp_path / "runs"), benchmark=str(manifest))
    with pytest.raises(DataError, match=r"colour/test\.json: row colour-0: answer_bbox must hold four numbers"):
        train(request)
    assert not (tmp_path / "runs").exists()


def test_routing_of_every_seen_task_stands_in_the_snapshot(ask, tmp_path):
    run = train(ask(tmp_path, method="moelora"))
    table = run.snapshot(1).table("routing")
    assert set(table["probe_task"]) == {"colour", "letter"}
    sums = table.groupby(["probe_task", "layer"])[["weight", "argmax_share"]].sum()
    assert sums.to_numpy() == pytest.approx(1.0, abs=1e-4)
    assert (table["tokens"] > 0).all()
