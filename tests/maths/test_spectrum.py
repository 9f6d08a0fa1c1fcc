"""Theorems of the energy rule and of a spectrum's own forms."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from same.maths.spectrum import Spectrum

THRESHOLDS = (0.5, 0.9, 0.99, 1.0)
energies = st.lists(st.floats(0, 1e4), min_size=1, max_size=12).map(lambda values: sorted(values, reverse=True))


def spectrum_of(values, dim=None, trace=None):
    eigenvalues = torch.tensor(values, dtype=torch.float64)
    basis = torch.eye(dim or len(values), dtype=torch.float64)[:, : len(values)]
    return Spectrum(eigenvalues, basis, 10.0, float(eigenvalues.sum()) if trace is None else trace)


@pytest.mark.parametrize("energy", ["squared", "eigenvalue"])
@pytest.mark.parametrize(("threshold", "ranks"), [(0.5, (1, 1)), (0.9, (2, 3)), (0.95, (3, 4)), (1.0, (4, 4))])
def test_rank_is_the_smallest_that_holds_the_energy(threshold, ranks, energy):
    # held by 1, 2, 3, 4 directions: squared 16, 17, 18, 18.25 of 18.25; eigenvalues 4, 5, 6, 6.5 of 6.5
    assert spectrum_of([4.0, 1.0, 1.0, 0.5]).rank(threshold, energy) == ranks[energy == "eigenvalue"]


@pytest.mark.parametrize("energy", ["squared", "eigenvalue"])
@pytest.mark.parametrize("threshold", THRESHOLDS)
@given(values=energies)
@settings(max_examples=40, deadline=None)
def test_rank_is_the_first_that_satisfies_the_rule(values, threshold, energy):
    k = spectrum_of(values).rank(threshold, energy)
    powers = torch.tensor(values, dtype=torch.float64) ** (2 if energy == "squared" else 1)
    total = float(powers.sum())
    assert 1 <= k <= len(values)
    if total == 0:
        assert k == len(values)
        return
    if threshold == 1:
        assert k == sum(value > values[0] * len(values) * torch.finfo(torch.float64).eps for value in values)
        return
    assert float(powers[:k].sum()) >= threshold * total * (1 - 1e-9)
    assert k == 1 or float(powers[: k - 1].sum()) < threshold * total


def test_the_fraction_of_variance_is_of_all_variance_where_some_directions_are_not_held():
    held = spectrum_of([4.0, 2.0, 1.0], dim=6, trace=10.0)
    assert [held.rank(threshold, "eigenvalue") for threshold in (0.4, 0.5, 0.7, 0.99)] == [1, 2, 3, 3]
    assert held.rank(0.99) == 3


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-7), (torch.float64, 1e-16)])
def test_the_whole_energy_is_in_the_directions_that_inputs_used(dtype, rounding):
    spectrum = spectrum_of([3.0, 2.0, 0.1, 3 * rounding, rounding, 0, 0, 0]).to(dtype=dtype)
    assert (spectrum.used, spectrum.rank(1.0), spectrum.rank(1.0, "eigenvalue")) == (3, 3, 3)
    assert spectrum_of([3.0, 1e-9]).used == 2
    assert spectrum_of([0.0, 0.0]).used == 0


def test_a_threshold_outside_zero_to_one_is_refused():
    for threshold in (0.0, 1.1):
        with pytest.raises(ValueError, match=r"in \(0, 1\]"):
            spectrum_of([1.0]).rank(threshold)


def test_the_matrix_and_the_mean_are_those_of_the_directions():
    spectrum = spectrum_of([3.0, 1.0], dim=4)
    torch.testing.assert_close(spectrum.matrix(), torch.diag(torch.tensor([3.0, 1, 0, 0], dtype=torch.float64)))
    assert spectrum.mean_eigenvalue == 1.0
    single = spectrum.to(dtype=torch.float32)
    assert single.eigenvalues.dtype == single.eigenvectors.dtype == torch.float32
    assert (single.tokens, single.trace) == (10.0, 4.0)
