"""Theorems of past inputs' subspaces, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from same.maths.covariance import CovarianceTracker
from same.maths.subspace import extend_basis, grow_basis, without_directions


def spectrum_of(rows):
    tracker = CovarianceTracker(rows.shape[1], dtype=torch.float64)
    tracker.update(rows)
    return tracker.spectrum()


def draw(rows, width, seed):
    scale = 1 / torch.arange(1, width + 1, dtype=torch.float64)
    return torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale


@given(width=st.integers(1, 12), threshold=st.sampled_from([0.5, 0.9, 0.99, 1.0]), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_the_basis_is_the_smallest_that_holds_the_share(width, threshold, seed):
    rows = draw(40, width, seed)
    basis = grow_basis(None, spectrum_of(rows), threshold)
    torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64))
    held = [(rows @ basis[:, :k]).square().sum() / rows.square().sum() for k in range(basis.shape[1] + 1)]
    assert held[-1] >= threshold * (1 - 1e-9)
    assert basis.shape[1] == 0 or held[-2] < threshold


@pytest.mark.parametrize("threshold", [0.6, 0.95, 1.0])
def test_a_basis_grows_by_what_new_inputs_have_outside_of_it(threshold):
    old, new = draw(50, 10, 0), draw(50, 10, 1).flip(1)
    basis = grow_basis(None, spectrum_of(old), threshold)
    grown = grow_basis(basis, spectrum_of(new), threshold)
    assert torch.equal(grown[:, : basis.shape[1]], basis)
    torch.testing.assert_close(grown.T @ grown, torch.eye(grown.shape[1], dtype=torch.float64))
    for rows in (old, new):
        assert (rows @ grown).square().sum() / rows.square().sum() >= threshold * (1 - 1e-9)
    assert grow_basis(grown, spectrum_of(new), threshold).shape == grown.shape


def test_a_basis_holds_what_vectors_span_and_nothing_for_those_that_repeat():
    first, second = draw(20, 3, 4), draw(20, 2, 5)
    basis = extend_basis(None, first[:, [0, 1, 0, 2, 1]])
    grown = extend_basis(basis, torch.cat([second, first[:, :2], 0 * second], 1))
    assert (basis.shape[1], grown.shape[1]) == (3, 5)
    assert torch.equal(grown[:, :3], basis)
    torch.testing.assert_close(grown.T @ grown, torch.eye(5, dtype=torch.float64))
    for vectors in (first, second):
        torch.testing.assert_close(grown @ (grown.T @ vectors), vectors)
    assert extend_basis(None, torch.zeros(4, 2)).shape == (4, 0)


def test_what_is_left_of_a_change_does_not_act_on_the_directions():
    rows = draw(5, 10, 2)
    basis = torch.linalg.qr(draw(10, 4, 3)).Q
    left = without_directions(rows, basis)
    torch.testing.assert_close(left @ basis, torch.zeros(5, 4, dtype=torch.float64))
    torch.testing.assert_close(without_directions(left, basis), left)


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_a_share_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match=r"threshold must be in \(0, 1\]"):
        grow_basis(None, spectrum_of(draw(5, 3, 0)), threshold)
