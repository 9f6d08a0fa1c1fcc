"""Budgets and settings."""

import pytest

from same.errors import InputError
from same.methods.lora import Lora
from same.methods.moelora import MoELora
from same.methods.same import Same
from same.methods.same_plus import SamePlus

from .conftest import TinyLayout  # noqa: TID252


def trained(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_lora_trains_as_many_parameters_as_the_experts(make_llava):
    lora, experts = Lora(), MoELora()
    ratio = trained(lora.attach(make_llava(), TinyLayout())) / trained(experts.attach(make_llava(), TinyLayout()))
    assert ratio == pytest.approx(1, abs=0.02)


def test_presets_differ_as_the_methods_say():
    paper, plus = Same.Config(), SamePlus.Config()
    assert (paper.router_geometry, paper.gain, paper.curvature_on, paper.apply_to) == (
        "running",
        "inverse",
        "A",
        "gradient",
    )
    assert (plus.router_geometry, plus.gain, plus.curvature_on, plus.apply_to) == ("history", "damped", "AB", "both")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "reference"}, "preset must be one of paper"),
        ({"covariance": "nystrom"}, "covariance must be one of exact"),
        ({"apply_to": "coordinates"}, "apply_to must be one of gradient, update, both"),
        ({"routing": "batch"}, "routing must be one of token"),
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
