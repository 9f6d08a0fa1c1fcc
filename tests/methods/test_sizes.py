"""Budgets and settings."""

import pytest

from same import registry
from same.errors import InputError
from same.methods.lora import Lora
from same.methods.moelora import MoELora
from same.methods.same import Same
from same.methods.same_plus import SamePlus


def trained(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_lora_trains_as_many_parameters_as_the_experts(make_llava, layout):
    lora, experts = Lora(), MoELora()
    ratio = trained(lora.attach(make_llava(), layout)) / trained(experts.attach(make_llava(), layout))
    assert ratio == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", registry.names("same.methods"))
def test_what_a_method_keeps_is_no_more_than_was_planned(name, make_method, train):
    method = make_method(name)
    planned, tasks = method.needs(), 2
    if method.trains:
        for task in range(tasks):
            train(method, task, steps=2)
    kept = sum(value.nbytes for value in method.state_dict().values())
    assert kept <= planned.snapshot + tasks * planned.snapshot_per_task + 4096  # anchors and counts


def test_a_random_basis_is_planned_once_for_all_inputs_of_a_width(make_method):
    settings = {"exact_max_dim": 0, "sketch_size": 4, "curvature_on": "none", "gain": "none"}
    planned = make_method("same", covariance="nystrom", **settings).needs()
    without = make_method("same", covariance="frequent_directions", **settings).needs()
    assert planned.snapshot == without.snapshot
    assert planned.device - without.device == 4 * 4 * (16 + 24)  # two blocks, two inputs in each


def test_presets_differ_as_the_methods_say():
    paper, plus = Same.Config(), SamePlus.Config()
    names = ("router_geometry", "gain", "curvature_on", "apply_to")
    assert [getattr(paper, name) for name in names] == ["running", "inverse", "A", "gradient"]
    assert [getattr(plus, name) for name in names] == ["history", "damped", "AB", "both"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "public"}, "preset must be one of paper, reference"),
        ({"covariance": "dense"}, "covariance must be one of exact, nystrom, frequent_directions, incremental"),
        ({"exact_max_dim": -1}, "exact_max_dim must be at least 0"),
        ({"sketch_size": 0}, "sketch_size must be at least 1"),
        ({"token_stride": 0}, "token_stride must be at least 1"),
        ({"energy": "cubed"}, "energy must be one of squared, eigenvalue"),
        ({"apply_to": "weight"}, "apply_to must be one of gradient, update, both, coordinates"),
        ({"routing": "row"}, "routing must be one of token, sample, batch"),
        ({"layer": "mixed_factors"}, "preset=reference"),
        ({"gain": "soft"}, "gain must be one of inverse, damped, zero, clamped, none"),
        ({"energy_threshold": 0.0}, "energy_threshold"),
        ({"damping": -1.0}, "damping must be positive"),
        ({"freeze_warmup": 2.0}, "freeze_warmup"),
        ({"refresh_steps": 0}, "refresh_steps"),
        ({"num_experts": 0}, "num_experts must be positive"),
        ({"top_k": 9}, "top_k"),
    ],
)
def test_a_setting_that_does_not_exist_names_the_choices(settings, message):
    with pytest.raises(InputError, match=message):
        Same.Config(**settings)


def test_lora_refuses_an_empty_adapter():
    with pytest.raises(InputError, match="rank must be positive"):
        Lora.Config(rank=0)
