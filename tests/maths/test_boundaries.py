"""Theorems of boundary detection: what a shift is, and that a stream's own boundaries are found."""

import pytest
import torch

from same.maths.boundaries import BoundaryDetector, covariance_shift
from same.maths.covariance import CovarianceTracker

DIM = 12


def tracker(inputs, storage="exact"):
    found = CovarianceTracker(DIM, storage, sketch_size=8, dtype=torch.float64)
    found.update(inputs)
    return found


def stream(seed, scales, windows=6, tokens=400):
    """Windows of tokens whose coordinates have these standard deviations."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(windows):
        yield torch.randn(tokens, DIM, generator=generator, dtype=torch.float64) * scales


FIRST = torch.linspace(2, 0.1, DIM, dtype=torch.float64)


def test_the_shift_is_that_of_the_matrices_whatever_their_scale():
    one, other = (tracker(next(stream(seed, FIRST.roll(seed)))).spectrum() for seed in (0, 3))
    first, second = one.matrix(), other.matrix()
    expected = 1 - float((first * second).sum() / (first.norm() * second.norm()))
    assert covariance_shift(one, other) == pytest.approx(expected, abs=1e-12)
    assert covariance_shift(one, one) == pytest.approx(0, abs=1e-12)
    scaled = tracker(3 * next(stream(0, FIRST))).spectrum()
    assert covariance_shift(one, scaled) == pytest.approx(0, abs=1e-12)


def test_inputs_that_share_no_direction_shift_wholly():
    halves = [torch.cat([torch.ones(6), torch.zeros(6)]).double(), torch.cat([torch.zeros(6), torch.ones(6)]).double()]
    one, other = (tracker(next(stream(0, half))).spectrum() for half in halves)
    assert covariance_shift(one, other) == pytest.approx(1)


@pytest.mark.parametrize("storage", ["exact", "nystrom"])
def test_boundaries_are_found_where_they_are_and_nowhere_else(storage):
    detector, found = BoundaryDetector(), []
    for seed, turn in enumerate((0, 4, 8)):
        for inputs in stream(seed, FIRST.roll(turn)):
            found.append(detector.update({"in": tracker(inputs, storage)}).found)
    assert [index for index, called in enumerate(found) if called] == [6, 12]


def test_a_stream_of_one_task_has_no_boundary():
    detector = BoundaryDetector(factor=4.0)
    assert not any(detector.update({"in": tracker(inputs)}).found for inputs in stream(5, FIRST, windows=30))


@pytest.mark.parametrize(("factor", "settle"), [(1.0, 2), (float("nan"), 2), (2.0, 0)])
def test_impossible_detectors_are_refused(factor, settle):
    with pytest.raises(ValueError, match="factor must be above 1"):
        BoundaryDetector(factor, settle)
