"""The preset `reference`: what it sets, what wins over it, and that it behaves as is known of the published code."""

from dataclasses import asdict

import pytest
import torch

from same.maths.covariance import CovarianceTracker
from same.methods._reference import REFERENCE
from same.methods.same import Same


def test_a_preset_supplies_what_is_not_given_and_is_recorded():
    found = asdict(Same.Config(preset="reference", routing="token", freeze_every=3))
    assert found == {**asdict(Same.Config()), **REFERENCE, "preset": "reference", "routing": "token", "freeze_every": 3}
    assert asdict(Same.Config(preset="paper")) == asdict(Same.Config())
    assert set(REFERENCE) <= set(found)
    assert asdict(Same.Config(**found)) == found


def test_the_rules_are_of_the_batch_alone(make_method, train):
    """Clamped gains for the router, 1 / (√σ + 0.9) for A, from the centred covariance of the last batch."""
    method = make_method("same", preset="reference")
    train(method, 0, 2)
    layer = method.layers["model.language_model.layers.0.mlp.up_proj"]
    group = method.groups[method.input_key("model.language_model.layers.0.mlp.up_proj")]
    seen, checked = [], []
    layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    mask = torch.arange(10)[None] < (10 - 2 * torch.arange(3))[:, None]

    def check(_):
        tracker = CovarianceTracker(16, centered=True, dtype=torch.float64)
        tracker.update(seen[-1][mask].double())
        spectrum = tracker.spectrum()
        k = spectrum.rank(0.95, "eigenvalue")
        vectors, values = spectrum.eigenvectors[:, :k], spectrum.eigenvalues[:k]
        identity = torch.eye(16, dtype=torch.float64)
        rest = (identity - vectors @ vectors.T) / 0.9
        expected = (vectors / (values.sqrt() + 0.9)) @ vectors.T + rest
        torch.testing.assert_close(group.rules.experts.matrix().double(), expected, rtol=1e-3, atol=1e-4)
        gains = torch.linalg.eigvalsh(group.rules.router.matrix().double())
        assert 0.8 - 1e-5 <= gains.min() < gains.max() <= 1.2 + 1e-5
        checked.append(k)

    train(method, 1, 3, each=check)
    assert len(checked) == 3
    assert {spectrum.tokens for spectrum in method.spectra.values()} == {24}


def test_nearly_all_experts_rest_within_a_few_steps_masked_but_not_skipped(make_method, train):
    method = make_method("same", preset="reference", num_experts=8)
    train(method, 0, 3)
    active = []
    train(method, 1, 8, each=lambda _: active.append(method.active.sum(-1).double().mean()))
    assert active[0] < 4
    assert all(layer._experts is None for layer in method.layers.values())


def test_it_learns_saves_and_goes_on(make_method, train, weights):
    method, resumed = (make_method("same", preset="reference") for _ in range(2))
    train(method, 0, 3)
    train(method, 1, 3)
    resumed.model.load_state_dict(method.model.state_dict())
    resumed.load_state_dict(method.state_dict())
    for each in (method, resumed):
        train(each, 2, 3)
    mine, theirs = weights(method), weights(resumed)
    assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []


@pytest.mark.parametrize("routing", ["token", "sample"])
def test_mixed_factors_go_with_any_routing_under_the_preset(routing, make_method, train, weights):
    method = make_method("same", preset="reference", routing=routing)
    before = weights(method)
    train(method, 0, 2)
    assert any(not torch.equal(value, before[key]) for key, value in weights(method).items())
