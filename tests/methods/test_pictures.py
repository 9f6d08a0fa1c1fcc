"""Adapters in a vision tower under batches of which some, or all, have no picture."""

import pytest
import torch

from same.backbones._base import Backbone

PATCHES = 5  # of a picture of the small LLaVA, with the class token
IMAGE = 39
READINGS = [("same", {}), ("same", {"preset": "reference"}), ("same_plus", {})]


@pytest.fixture
def layout():
    return Backbone.layout(Backbone.Config(targets=("ffn", "vision_ffn")))


@pytest.fixture
def make_batch(make_batch):
    """Text alone in the first task, and in every second step of the others."""

    def make(seed):
        batch = make_batch(seed)
        if seed >= 1000 and seed // 10 % 2:
            batch["input_ids"][:, :4] = IMAGE
            batch["labels"][:, :4] = -100
            batch["pixel_values"] = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
        return batch

    return make


@pytest.mark.parametrize(("name", "settings"), READINGS)
def test_an_input_is_under_a_rule_from_its_first_picture_on(name, settings, make_method, train, weights):
    method = make_method(name, **settings, refresh_steps=1, freeze_threshold=-1.0)
    tower, text = (key for key in method.groups if key.endswith("mlp_in") and "layers.0" in key)
    train(method, 0)
    assert text in method.spectra
    assert tower not in method.spectra
    resumed = make_method(name, **settings, refresh_steps=1, freeze_threshold=-1.0)
    resumed.load_state_dict(method.state_dict())
    assert resumed.spectra.keys() == method.spectra.keys()

    ruled = []
    train(method, 1, 4, each=lambda _: ruled.append(method.groups[tower].rules.experts is not None))
    assert ruled == [False] * 4 if settings == {} else [False, True, True, True]  # of past inputs, or of the batch
    assert method.spectra[tower].tokens == 2 * 3 * PATCHES if settings == {} else 3 * PATCHES
    moved = {key: value.clone() for key, value in weights(method).items() if "vision_tower" in key}
    train(method, 2, 1)  # its one step has no picture
    assert all(torch.equal(weights(method)[key], value) for key, value in moved.items())
