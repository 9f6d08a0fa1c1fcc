"""Theorems of the drift measures."""

import math

import pytest
import torch

from same.maths.covariance import CovarianceTracker
from same.maths.curvature import degradation
from same.maths.drift import (
    argmax_flips,
    coefficient_of_variation,
    entropy,
    factor_change,
    functional_drift,
    input_spectrum,
    js_divergence,
    overlap,
    principal_angles,
    relative,
    representation_drift,
    split_drift,
    split_factored,
)

P = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]], dtype=torch.float64)
Q = torch.tensor([[0.0, 0.0, 1.0], [0.3, 0.3, 0.4]], dtype=torch.float64)


def test_equal_distributions_do_not_drift():
    assert js_divergence(P, P).max() == 0
    torch.testing.assert_close(overlap(P, P), torch.ones(2, dtype=torch.float64))


def test_disjoint_distributions_drift_fully():
    assert float(js_divergence(P, Q)[0]) == pytest.approx(1)
    assert float(overlap(P, Q)[0]) == 0


def test_divergence_is_symmetric():
    torch.testing.assert_close(js_divergence(P, Q), js_divergence(Q, P))


def test_entropy_of_the_uniform_distribution_is_log_n():
    assert float(entropy(torch.full((4,), 0.25))) == pytest.approx(math.log(4))
    assert float(entropy(torch.tensor([1.0, 0.0]))) == 0


def test_balanced_load_has_no_variation():
    assert float(coefficient_of_variation(torch.full((5,), 0.2))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 0.3, 1.2, math.pi / 2])
def test_principal_angles_of_turned_lines(angle):
    first = torch.tensor([[1.0], [0.0], [0.0]], dtype=torch.float64)
    second = torch.tensor([[math.cos(angle)], [math.sin(angle)], [0.0]], dtype=torch.float64)
    assert float(principal_angles(first, second)) == pytest.approx(angle, rel=1e-6, abs=1e-12)


def test_principal_angles_see_a_contained_subspace():
    basis = torch.linalg.qr(torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    assert principal_angles(basis, basis[:, :2]).abs().max() < 1e-12


def test_drift_splits_into_its_parts():
    generator = torch.Generator().manual_seed(1)
    tracker = CovarianceTracker(5, dtype=torch.float64)
    tracker.update(torch.randn(40, 5, dtype=torch.float64, generator=generator))
    spectrum = tracker.spectrum()
    weight, delta = torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=generator)
    whole = degradation(delta, spectrum.matrix())
    parallel, rest = split_drift(delta, spectrum, 2)
    torch.testing.assert_close(parallel + rest, whole)
    torch.testing.assert_close(
        functional_drift(delta, weight, spectrum.matrix()), whole / degradation(weight, spectrum.matrix())
    )
    torch.testing.assert_close(functional_drift(weight, weight, spectrum.matrix()), torch.ones(3, dtype=torch.float64))


# -- from recorded inputs and low-rank factors ------------------------------------------------------------------------


def random(*shape, seed=2):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tokens", [1, 3, 6, 20])
def test_the_spectrum_of_recorded_inputs_is_that_of_their_covariance(tokens):
    inputs = random(tokens, 6)
    spectrum = input_spectrum(inputs)
    torch.testing.assert_close(spectrum.matrix(), inputs.T @ inputs / tokens)
    assert spectrum.trace == pytest.approx(float(inputs.square().sum()) / tokens)
    assert (spectrum.eigenvalues.diff() <= 0).all()
    assert spectrum.dim == 6


@pytest.mark.parametrize("tokens", [5, 40, 200])
def test_the_spectrum_gives_the_drift_that_singular_values_give(tokens):
    inputs = random(tokens, 60) * torch.logspace(0, -9, 60, dtype=torch.float64)
    inputs[1] = inputs[0]
    spectrum, change = input_spectrum(inputs), random(7, 60, seed=3)
    _, values, vectors = torch.linalg.svd(inputs, full_matrices=False)
    exact = (change @ vectors.mT).square().sum(0) * values.square() / tokens
    for rank in range(0, min(tokens, 60), 7):
        parallel, rest = split_drift(change, spectrum, rank)
        torch.testing.assert_close(parallel, exact[:rank].sum())
        torch.testing.assert_close(rest, exact[rank:].sum(), rtol=1e-7, atol=1e-14 * float(exact.sum()))
    leading = spectrum.eigenvectors[:, :3]
    torch.testing.assert_close(leading.mT @ leading, torch.eye(3, dtype=torch.float64))


def test_nothing_recorded_but_zeros_has_no_energy():
    spectrum = input_spectrum(torch.zeros(3, 6, dtype=torch.float64))
    assert spectrum.trace == 0
    assert not spectrum.eigenvalues.any()
    assert spectrum.eigenvectors.isfinite().all()


def test_the_change_of_a_low_rank_map_is_a_map_of_twice_its_rank():
    old, new = ((random(4, 7, 2, seed=seed), random(4, 2, 6, seed=seed + 1)) for seed in (3, 5))
    outputs, inputs = factor_change(old, new)
    assert outputs.shape == (4, 7, 4)
    torch.testing.assert_close(outputs @ inputs, new[0] @ new[1] - old[0] @ old[1])


def test_a_map_that_did_not_move_has_a_change_of_exactly_zero():
    factors = random(4, 7, 2), random(4, 2, 6, seed=3)
    change = torch.stack(split_factored(*factor_change(factors, factors), input_spectrum(random(9, 6, seed=4)), 2))
    assert (change == 0).all()


@pytest.mark.parametrize("tokens", [1, 4, 20])
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_factored_drift_is_the_dense_one_and_the_two_parts_make_the_whole(tokens, rank):
    outputs, inputs, spectrum = random(4, 7, 3), random(4, 3, 6, seed=3), input_spectrum(random(tokens, 6, seed=4))
    found = split_factored(outputs, inputs, spectrum, rank)
    for mine, dense in zip(found, split_drift(outputs @ inputs, spectrum, rank), strict=True):
        torch.testing.assert_close(mine, dense)
    torch.testing.assert_close(sum(found), degradation(outputs @ inputs, spectrum.matrix()))


def test_a_rank_one_change_drifts_by_its_length_times_the_energy_along_it():
    inputs, output, direction = random(30, 6), random(7, seed=3), random(6, seed=4)
    whole, rest = split_factored(output[None, :, None], direction[None, None], input_spectrum(inputs), 6)
    energy = (inputs @ direction).square().mean()
    torch.testing.assert_close(whole[0], output.square().sum() * energy)
    assert float(rest[0]) == 0


def test_the_prediction_is_the_mean_square_change_of_the_output():
    root = random(6, 6)
    recorded, fresh = (random(count, 6, seed=seed) @ root for count, seed in ((200_000, 3), (200_000, 4)))
    outputs, factors = random(1, 7, 2, seed=5), random(1, 2, 6, seed=6)
    measured = (fresh @ (outputs @ factors)[0].T).square().sum(-1).mean()
    predicted = sum(split_factored(outputs, factors, input_spectrum(recorded), 3))
    assert float(predicted) == pytest.approx(float(measured), rel=0.02)


def test_a_change_outside_the_inputs_leaves_them_alone():
    inputs = random(3, 6)
    outside = torch.eye(6, dtype=torch.float64) - torch.linalg.pinv(inputs) @ inputs
    spectrum = input_spectrum(inputs)
    change = split_drift(random(4, 6, seed=3) @ outside, spectrum, 2)
    assert max(map(float, change)) < 1e-24


def test_drift_is_relative_and_zero_where_nothing_moved():
    found = relative(torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.tensor([4.0, 4.0, 0.0, 0.0]))
    assert found.tolist() == [0.25, 0.0, 0.0, math.inf]


def test_inputs_that_are_scaled_moved_by_the_square_of_the_scale():
    inputs = random(5, 6)
    assert float(representation_drift(1.5 * inputs, inputs)) == pytest.approx(0.25)
    assert float(representation_drift(inputs, inputs)) == 0


def test_flips_count_tokens_whose_largest_weight_moved():
    assert float(argmax_flips(P, Q)) == 0.5
    assert float(argmax_flips(P, P)) == 0
