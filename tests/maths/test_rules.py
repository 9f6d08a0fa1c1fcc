"""Theorems of the router and expert rules: what they keep, what they shrink, what they leave alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from same.maths.covariance import CovarianceTracker
from same.maths.curvature import curvature_scaling, damping_value, degradation, scale_output_factors
from same.maths.routing import GAINS, router_gains, router_scaling, sliding_mean
from same.maths.scaling import DirectionScaling
from same.maths.spectrum import Spectrum

D = 8


def past(rank=D, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(rank, D, dtype=torch.float64, generator=generator)
    tokens = torch.randn(200, rank, dtype=torch.float64, generator=generator) @ mixing
    tracker = CovarianceTracker(D, dtype=torch.float64)
    tracker.update(tokens)
    return tokens, tracker.spectrum()


def delta(rows=5):
    return torch.randn(rows, D, dtype=torch.float64, generator=torch.Generator().manual_seed(9))


def test_sliding_mean_is_the_mean_of_the_last_window():
    values = torch.tensor([5.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(sliding_mean(values, 3), torch.tensor([5, 4, 10 / 3, 2], dtype=torch.float64))
    assert torch.equal(sliding_mean(values, 1), values)


def test_a_strong_direction_leaves_the_means_behind_it_exact():
    values = torch.cat([torch.tensor([1e6, 1.0]), torch.logspace(0, -2, 60)])
    expected = values.double().unfold(0, 3, 1).mean(1)
    torch.testing.assert_close(sliding_mean(values, 3)[2:].double(), expected, rtol=1e-6, atol=0)
    for gain in ("inverse", "clamped"):
        gains = router_gains(values, gain, window=3).double()
        torch.testing.assert_close(gains, router_gains(values.double(), gain, window=3), rtol=1e-6, atol=0)


@given(
    st.lists(st.floats(-2, 6), min_size=1, max_size=40),
    st.integers(1, 50),
    st.sampled_from(["inverse", "clamped", "damped"]),
)
@settings(max_examples=60, deadline=None)
def test_gains_in_single_precision_are_those_in_double_over_any_spread(exponents, window, gain):
    eigenvalues = (10 ** torch.tensor(sorted(exponents, reverse=True), dtype=torch.float64)).float()
    found, expected = (router_gains(values, gain, window=window) for values in (eigenvalues, eigenvalues.double()))
    torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=0)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.integers(1, 15), st.sampled_from(["inverse", "damped"]))
@settings(max_examples=60, deadline=None)
def test_gains_lie_in_zero_to_one_and_grow_as_energy_falls(values, window, gain):
    eigenvalues = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    gains = router_gains(eigenvalues, gain, window=window, damping=0.5)
    assert (gains > 0).all()
    assert (gains <= 1 + 1e-12).all()
    assert (gains.diff() >= -1e-9).all()


def test_inverse_gain_is_one_for_the_weakest_direction():
    gains = router_gains(torch.tensor([9.0, 3.0, 1.0]), "inverse", window=1)
    torch.testing.assert_close(gains, torch.tensor([1 / 9, 1 / 3, 1.0]))


def test_clamped_gains_stay_within_the_clamp():
    gains = router_gains(torch.tensor([9.0, 1.0, 0.1]), "clamped", window=1)
    torch.testing.assert_close(gains, torch.tensor([0.8, 1.2, 1.2]))


def test_an_unknown_gain_names_the_choices():
    with pytest.raises(ValueError, match=r"inverse, damped, zero, clamped"):
        router_gains(torch.ones(2), "soft")


@pytest.mark.parametrize("threshold", [1 - 1e-10, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gain", GAINS)
def test_router_rule_leaves_the_orthogonal_part_alone(gain, dtype, threshold):
    """Rounding holds no energy: all of it is in three directions of eight."""
    spectrum = past(rank=3)[1].to(dtype=dtype)
    scaled = router_scaling(spectrum, gain=gain, energy_threshold=threshold).apply(delta().to(dtype))
    kept = torch.eye(D, dtype=dtype) - spectrum.eigenvectors[:, :3] @ spectrum.eigenvectors[:, :3].T
    torch.testing.assert_close(scaled @ kept, delta().to(dtype) @ kept)


@pytest.mark.parametrize("gain", GAINS)
def test_the_gains_of_a_deficient_spectrum_are_those_of_its_own_directions(gain):
    """Of inputs within three dimensions: the rule there, and a full step elsewhere."""
    spectrum = past(rank=3)[1]
    inside = Spectrum(spectrum.eigenvalues[:3], spectrum.eigenvectors[:, :3], spectrum.tokens, spectrum.trace)
    whole = router_scaling(spectrum, gain=gain, energy_threshold=1.0)
    torch.testing.assert_close(whole.matrix(), router_scaling(inside, gain=gain, energy_threshold=1.0).matrix())
    torch.testing.assert_close(
        whole.gains[:3], router_gains(inside.eigenvalues, gain, damping=spectrum.mean_eigenvalue)
    )


@pytest.mark.parametrize("threshold", [1 - 1e-12, 1.0])
def test_an_orthogonal_update_leaves_old_inputs_alone(threshold):
    tokens, spectrum = past(rank=3)
    update = router_scaling(spectrum, gain="zero", energy_threshold=threshold).apply(delta())
    assert update.abs().max() > 0.1
    assert (tokens @ update.T).abs().max() < 1e-10
    assert degradation(update, spectrum.matrix()) < 1e-12


@pytest.mark.parametrize("threshold", [0.6, 0.95, 1.0])
def test_curvature_scaling_is_symmetric_with_eigenvalues_in_zero_to_one(threshold):
    scaling = curvature_scaling(past()[1], damping=0.3, energy_threshold=threshold)
    matrix = scaling.matrix()
    torch.testing.assert_close(matrix, matrix.T)
    values = torch.linalg.eigvalsh(matrix)
    assert values.min() > 0
    assert values.max() <= 1 + 1e-12


def test_curvature_scaling_over_all_directions_is_the_damped_inverse():
    spectrum = past()[1]
    mu = damping_value(spectrum, 0.3)
    inverse = torch.linalg.inv(spectrum.matrix() + mu * torch.eye(D, dtype=torch.float64))
    normalised = curvature_scaling(spectrum, damping=0.3, energy_threshold=1.0)
    literal = curvature_scaling(spectrum, damping=0.3, energy_threshold=1.0, normalise=False)
    torch.testing.assert_close(normalised.matrix(), mu * inverse)
    torch.testing.assert_close(literal.matrix(), inverse)
    torch.testing.assert_close(literal.apply(delta()), delta() @ inverse)


def test_relative_damping_makes_the_rule_free_of_scale():
    tokens, spectrum = past()
    tracker = CovarianceTracker(D, dtype=torch.float64)
    tracker.update(100 * tokens)
    small = curvature_scaling(spectrum, damping=1.0, energy_threshold=1.0)
    large = curvature_scaling(tracker.spectrum(), damping=1.0, energy_threshold=1.0)
    torch.testing.assert_close(small.matrix(), large.matrix())
    assert damping_value(spectrum, 2.5, absolute=True) == 2.5


@pytest.mark.parametrize("rank", [1, 3, 4, D])
def test_both_forms_of_a_scaling_are_equal(rank):
    spectrum = past()[1]
    gains = torch.linspace(0.1, 1, rank, dtype=torch.float64)
    thin = DirectionScaling(spectrum.eigenvectors[:, :rank], gains, 0.7)
    torch.testing.assert_close(thin.apply(delta()), delta() @ thin.matrix())
    torch.testing.assert_close(thin.compile().apply(delta()), thin.apply(delta()))


@given(
    values=st.lists(st.floats(0, 1e4), min_size=1, max_size=D),
    threshold=st.sampled_from([0.5, 0.9, 0.99, 1.0]),
    gain=st.sampled_from(["damped", "root"]),
    damping=st.floats(1e-3, 10),
    absolute=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_a_root_applied_twice_is_the_rule_for_any_spectrum(values, threshold, gain, damping, absolute):
    """From zero covariance to all d directions; P stays symmetric with eigenvalues in (0, 1]."""
    eigenvalues = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    basis = past()[1].eigenvectors[:, : len(values)]
    spectrum = Spectrum(eigenvalues, basis, 5.0, float(eigenvalues.sum()))
    scaling = curvature_scaling(
        spectrum, damping=damping, energy_threshold=threshold, damping_absolute=absolute, gain=gain
    )
    torch.testing.assert_close(scaling.root().apply(scaling.root().apply(delta())), scaling.apply(delta()))
    found = torch.linalg.eigvalsh(scaling.root().matrix())
    assert found.min() > 0
    assert found.max() <= 1 + 1e-12
    literal = curvature_scaling(spectrum, damping=2.0, energy_threshold=1.0, damping_absolute=True, normalise=False)
    torch.testing.assert_close(literal.root().matrix() @ literal.root().matrix(), literal.matrix())


@pytest.mark.parametrize("threshold", [0.9, 1.0])
@pytest.mark.parametrize("energy", ["squared", "eigenvalue"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gain", GAINS)
def test_no_energy_asks_for_nothing(gain, dtype, energy, threshold):
    basis, asked = torch.eye(D, dtype=dtype), {"energy_threshold": threshold, "energy": energy}
    for held in (D, 3):
        spectrum = Spectrum(torch.zeros(held, dtype=dtype), basis[:, :held], 3.0, 0.0)
        for each in ("damped", "root"):
            scaling = curvature_scaling(spectrum, damping=0.3, gain=each, **asked)
            torch.testing.assert_close(scaling.matrix(), basis)
        torch.testing.assert_close(router_scaling(spectrum, gain=gain, **asked).matrix(), basis)


@pytest.mark.parametrize("gain", ["damped", "root"])
def test_at_the_whole_energy_damped_rules_take_every_direction_that_is_held(gain):
    """Those without energy have gain 1, so the rule is the one over the others."""
    spectrum = past(rank=3)[1]
    whole = curvature_scaling(spectrum, damping=0.3, energy_threshold=1.0, gain=gain)
    assert whole.gains.shape == (D,)
    inside = curvature_scaling(spectrum, damping=0.3, energy_threshold=1 - 1e-10, gain=gain)
    torch.testing.assert_close(whole.gains[:3], inside.gains)
    torch.testing.assert_close(whole.matrix(), inside.matrix(), rtol=0, atol=1e-7)


def test_the_root_gain_is_the_damped_inverse_of_the_root():
    spectrum = past()[1]
    scaling = curvature_scaling(
        spectrum, damping=0.9, energy_threshold=1.0, damping_absolute=True, normalise=False, gain="root"
    )
    square = (spectrum.eigenvectors * spectrum.eigenvalues.sqrt()) @ spectrum.eigenvectors.T
    torch.testing.assert_close(scaling.matrix(), torch.linalg.inv(square + 0.9 * torch.eye(D, dtype=torch.float64)))


@given(rank=st.integers(1, 2 * D), experts=st.integers(1, 3), damping=st.floats(1e-3, 10))
@settings(max_examples=30, deadline=None)
def test_the_output_rule_is_symmetric_and_shrinks_for_any_rank(rank, experts, damping):
    """Also above the width, where A C Aᵀ is singular."""
    spectrum = past()[1]
    inputs = torch.randn(experts, rank, D, dtype=torch.float64, generator=torch.Generator().manual_seed(rank))
    units = torch.eye(rank, dtype=torch.float64).expand(experts, -1, -1)
    found = scale_output_factors(units, inputs, spectrum.eigenvectors * spectrum.eigenvalues.sqrt(), damping)
    torch.testing.assert_close(found, found.mT)
    values = torch.linalg.eigvalsh(found)
    assert values.min() > 0
    assert values.max() <= 1 + 1e-9


def test_degradation_is_the_mean_square_change_of_old_outputs():
    tokens, spectrum = past()
    change = delta()
    expected = (tokens @ change.T).square().sum(-1).mean()
    torch.testing.assert_close(degradation(change, spectrum.matrix()), expected)


def test_damping_protects_old_outputs():
    spectrum = past()[1]
    covariance = spectrum.matrix()
    losses = [
        degradation(curvature_scaling(spectrum, damping=mu, energy_threshold=1.0).apply(delta()), covariance)
        for mu in (0.01, 0.1, 1.0, 10.0)
    ]
    assert losses == sorted(losses)
    assert losses[-1] < degradation(delta(), covariance)


def test_output_factor_rule_equals_the_solve_of_each_expert():
    spectrum = past()[1]
    covariance = spectrum.matrix()
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(4, 2, D, dtype=torch.float64, generator=generator)
    deltas = torch.randn(4, 7, 2, dtype=torch.float64, generator=generator)
    scaled = scale_output_factors(deltas, inputs, spectrum.eigenvectors * spectrum.eigenvalues.sqrt(), 0.1)
    for expert in range(4):
        curvature = inputs[expert] @ covariance @ inputs[expert].T
        mu = 0.1 * curvature.trace() / 2
        expected = deltas[expert] @ torch.linalg.inv(curvature / mu + torch.eye(2, dtype=torch.float64))
        torch.testing.assert_close(scaled[expert], expected)


def test_output_factor_rule_leaves_an_unused_expert_alone():
    spectrum = past()[1]
    deltas = torch.ones(1, 3, 2, dtype=torch.float64)
    scaled = scale_output_factors(deltas, torch.zeros(1, 2, D, dtype=torch.float64), spectrum.eigenvectors, 0.1)
    torch.testing.assert_close(scaled, deltas)


def test_damping_must_be_positive():
    with pytest.raises(ValueError, match="positive"):
        damping_value(past()[1], 0.0)
