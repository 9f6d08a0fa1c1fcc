"""Theorems of the drift measures."""

import math

import pytest
import torch

from same.maths.covariance import CovarianceTracker
from same.maths.curvature import degradation
from same.maths.drift import (
    coefficient_of_variation,
    entropy,
    functional_drift,
    js_divergence,
    overlap,
    principal_angles,
    split_drift,
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
