"""Every gain in every geometry, and every setting of the rules: what training uses is the dense formula, in float64."""

import pytest
import torch

SETTINGS = {"token_stride": 1, "freeze_threshold": -1.0, "refresh_steps": 2, "energy_threshold": 0.95}
NAME = "model.language_model.layers.0.mlp.up_proj"  # its input does not depend on adapters
GAINS = ("inverse", "damped", "zero", "clamped", "none")


def covariance(tokens, centered=False):
    return tokens.T.cov(correction=0) if centered else tokens.T @ tokens / len(tokens)


def leading(matrix, threshold, energy):
    """All eigenvalues and V_k, k the first whose directions hold the energy."""
    values, vectors = (part.flip(-1) for part in torch.linalg.eigh(matrix))
    values = values.clamp_min(0)
    held = values**2 if energy == "squared" else values
    k = next(k for k in range(1, len(values) + 1) if held[:k].sum() >= (threshold - 1e-12) * held.sum())
    return values, vectors[:, :k], k


def router_matrix(matrix, gain, threshold=0.95, energy="squared", window=3, damping=1.0, absolute=False):
    values, basis, k = leading(matrix, threshold, energy)
    mu = damping if absolute else damping * values.mean()
    smooth = torch.stack([values[max(0, j + 1 - window) : j + 1].mean() for j in range(k)])
    gains = {
        "inverse": smooth.min() / smooth,
        "damped": mu / (values[:k] + mu),
        "zero": torch.zeros(k, dtype=torch.float64),
        "clamped": (smooth.mean() / smooth).clamp(0.8, 1.2),
    }[gain]
    return torch.eye(len(values), dtype=torch.float64) + basis @ torch.diag(gains - 1) @ basis.T


def expert_matrix(
    matrix, threshold=0.95, energy="squared", damping=1.0, absolute=False, normalise=True, gain="damped"
):  # fmt: skip
    values, basis, k = leading(matrix, threshold, energy)
    root = gain == "root"
    mu = damping if absolute else damping * (values.mean().sqrt() if root else values.mean())
    inner = torch.diag(1 / ((values[:k].sqrt() if root else values[:k]) + mu))
    literal = basis @ inner @ basis.T + (torch.eye(len(values), dtype=torch.float64) - basis @ basis.T) / mu
    return literal * mu if normalise else literal


@pytest.fixture
def rules_after(make_method, train):
    """Train two tasks; the rules of the layer's input, and what it saw in the first task and at each step after it."""

    def run(**settings):
        method, seen = make_method("same", **{**SETTINGS, **settings}), []
        method.model.double()
        mask = torch.arange(10)[None] < (10 - 2 * torch.arange(3))[:, None]
        method.layers[NAME].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()[mask]))
        train(method, 0, 3)
        first = torch.cat(seen)
        seen.clear()
        train(method, 1, 4, end=False)
        return method.groups[method.input_key(NAME)].rules, first, list(seen)

    return run


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("geometry", ["history", "running", "batch"])
def test_a_router_rule_is_its_gain_of_its_geometrys_covariance(geometry, gain, rules_after):
    """Refreshed before steps 0 and 2: the running covariance is the token-weighted mean of both tasks until then."""
    rules, first, steps = rules_after(router_geometry=geometry, gain=gain)
    past, batch = covariance(first), covariance(torch.cat(steps[1:3]))
    running = covariance(torch.cat([first, *steps[:3]]))
    torch.testing.assert_close(rules.experts.matrix(), expert_matrix(batch if geometry == "batch" else past))
    if gain == "none":
        assert rules.router is None
        return
    expected = router_matrix({"history": past, "running": running, "batch": batch}[geometry], gain)
    torch.testing.assert_close(rules.router.matrix(), expected)


@pytest.mark.parametrize(
    ("given", "router", "experts"),
    [
        ({"energy": "eigenvalue"}, {"energy": "eigenvalue"}, {"energy": "eigenvalue"}),
        ({"energy_threshold": 0.5}, {"threshold": 0.5}, {"threshold": 0.5}),
        ({"energy_threshold": 1.0}, {"threshold": 1.0}, {"threshold": 1.0}),
        ({"window": 1}, {"window": 1}, {}),
        ({"damping": 0.3, "gain": "damped"}, {"damping": 0.3, "gain": "damped"}, {"damping": 0.3}),
        (
            {"damping": 0.3, "damping_absolute": True, "gain": "damped"},
            {"damping": 0.3, "absolute": True, "gain": "damped"},
            {"damping": 0.3, "absolute": True},
        ),
        ({"normalise": False}, {}, {"normalise": False}),
        ({"curvature_gain": "root", "damping": 0.9}, {"damping": 0.9}, {"gain": "root", "damping": 0.9}),
    ],
    ids=str,
)
def test_each_setting_reaches_the_rules(given, router, experts, rules_after):
    rules, first, _ = rules_after(router_geometry="history", **given)
    torch.testing.assert_close(rules.router.matrix(), router_matrix(covariance(first), **{"gain": "inverse", **router}))
    torch.testing.assert_close(rules.experts.matrix(), expert_matrix(covariance(first), **experts))


def test_a_centered_covariance_makes_centered_rules(rules_after):
    rules, first, _ = rules_after(router_geometry="history", centered=True)
    expected = router_matrix(covariance(first, centered=True), "inverse")
    torch.testing.assert_close(rules.router.matrix(), expected)
    assert not torch.allclose(expected, router_matrix(covariance(first), "inverse"))


def test_factors_that_are_not_protected_have_no_rule(rules_after):
    for curvature_on, held in (("none", (False, False)), ("A", (True, False)), ("AB", (True, True))):
        rules = rules_after(curvature_on=curvature_on)[0]
        assert (rules.experts is not None, rules.root is not None) == held
