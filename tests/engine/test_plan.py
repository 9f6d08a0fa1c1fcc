"""A plan's parts are those of the real thing: measured here on the embedded backbone, counted for the large ones."""

import dataclasses
import json

import pytest
from typer.testing import CliRunner

from same import registry
from same.backbones import load_backbone
from same.cli import app
from same.engine.bench._second_task import SecondTask, random_batch
from same.engine.plan import ROOM, Asked, Saved, plan
from same.errors import InputError
from same.methods._base import Method

CLOSE = 0.15  # what the parts may be off
TINY = Asked("tiny", "mini-coin", "same_plus", length=96)


@pytest.fixture(scope="module")
def measured():
    """Bytes of each part in the second task of a run on the embedded backbone."""
    loaded, config = load_backbone("tiny"), {"freeze_threshold": -1.0}
    batch = random_batch(loaded.model, 16, TINY.length)
    task = SecondTask("same_plus", loaded.model, loaded.layout, batch, steps=10, settings=config)
    weights = sum(p.nbytes for p in loaded.model.parameters() if not p.requires_grad)
    saved = Saved(task.model)
    with saved:
        task.model.get_base_model()(**batch)
    task.step()
    method = task.method
    trackers = [*method.past.values(), *method.current.trackers.values()]
    kept = [tensor for tracker in trackers for tensor in tracker.state_dict().values()]
    for spectrum in method.spectra.values():
        kept += [spectrum.eigenvalues, spectrum.eigenvectors]
    for group in method.groups.values():
        kept += [group.rules.router.matrix(), group.rules.experts.matrix(), group.rules.root]
    return {
        "weights": weights,
        "adapter": sum(parameter.nbytes for parameter in task.parameters),
        "gradients": task.gradient_bytes(),
        "optimiser": task.optimizer_bytes(),
        "statistics": sum(tensor.nbytes for tensor in kept),
        "activations": saved.bytes,
    }


@pytest.fixture(scope="module")
def planned():
    return plan(TINY)


@pytest.mark.parametrize("part", ["weights", "adapter", "gradients", "optimiser", "statistics", "activations"])
def test_each_part_is_within_15_percent_of_what_is_measured(part, planned, measured):
    assert planned.gigabytes_per_gpu[part] * 1e9 == pytest.approx(measured[part], rel=CLOSE)


def test_a_plan_counts_what_is_trained(planned):
    loaded = load_backbone("tiny")
    kind = registry.load_class("same.methods", "same_plus", Method)
    model = kind(kind.Config()).attach(loaded.model, loaded.layout)
    assert planned.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert planned.parameters == sum(p.numel() for p in model.parameters() if not p.requires_grad)


def test_llava_7b_fits_eight_large_gpus_and_strategies_share_what_they_say():
    asked = Asked("llava-1.5-7b", "coin", "same", gpus=8, settings={"weights": "bf16", "batch_size": 64})
    found = {name: plan(dataclasses.replace(asked, strategy=name)) for name in ("ddp", "fsdp", "zero2")}
    assert found["ddp"].fits
    assert 13.5 < found["ddp"].gigabytes_per_gpu["weights"] < 14.5
    assert found["fsdp"].gigabytes_per_gpu["weights"] < found["ddp"].gigabytes_per_gpu["weights"] / 3
    parts = [found[name].gigabytes_per_gpu["optimiser"] for name in ("ddp", "zero2")]
    assert parts[1] == pytest.approx(parts[0] / 8, rel=1e-3)


def test_recomputed_activations_need_far_less():
    asked = Asked("llava-1.5-7b", "coin", "moelora", settings={"weights": "bf16", "batch_size": 8})
    plain = plan(asked).gigabytes_per_gpu["activations"]
    again = plan(dataclasses.replace(asked, settings={**asked.settings, "gradient_checkpointing": True}))
    assert again.gigabytes_per_gpu["activations"] < plain / 8


def test_what_does_not_fit_is_refused_with_what_would():
    asked = "plan --backbone llava-1.5-7b --benchmark coin --gpu-gigabytes 24 --set weights=bf16 --set batch_size=16"
    shown = CliRunner().invoke(app, f"{asked} --json")
    assert shown.exit_code == 1
    found = json.loads(shown.stdout)
    assert not found["fits"]
    assert "gradient_checkpointing=True" in found["advice"]
    assert {"parameters", "trainable", "gigabytes_per_gpu", "snapshot_megabytes", "hours", "fits"} <= set(found)


def test_what_fits_only_quantised_is_said_without_the_package_for_it():
    least = {"gradient_checkpointing": True, "gradient_accumulation": 16}
    plain, packed = (
        plan(dataclasses.replace(TINY, settings=least | more)).gigabytes_per_gpu["total"]
        for more in ({}, {"weights": "nf4"})
    )
    assert packed < plain
    advice = plan(dataclasses.replace(TINY, gpu_gigabytes=(plain + packed) / 2 / ROOM)).advice
    assert advice.startswith("--set gradient_checkpointing=True --set gradient_accumulation=16 --set weights=nf4 would")


def test_what_training_would_refuse_is_said():
    asked = dataclasses.replace(TINY, method="same", gpus=2, strategy="zero2")
    assert "same edits them after the step" in plan(asked).refused
    assert not plan(dataclasses.replace(asked, strategy="fsdp")).refused


def test_hours_are_unknown_where_nobody_promises_rows():
    assert plan(dataclasses.replace(TINY, benchmark="trigap")).hours is None
    assert plan(dataclasses.replace(TINY, benchmark="trigap", train_items=10**6)).hours > 0
    assert (
        "unknown: the manifest promises no rows"
        in CliRunner().invoke(app, "plan --backbone tiny --benchmark trigap --length 96").stdout
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "zero_shot"}, "must be of a method that trains"),
        ({"backbone": "llava-1.5-70b"}, "llava-1.5-7b"),
        ({"gpus": 0}, "gpus must be positive"),
        ({"gpus": 3}, "multiple of gpus"),
        ({"settings": {"speed": 1}}, "setting"),
    ],
)
def test_bad_input_is_named(change, said):
    with pytest.raises(InputError, match=said):
        plan(dataclasses.replace(TINY, **change))
