"""Theorems of the covariance tracker and its spectrum, in float64."""

import pytest
import torch

from same.maths.covariance import CovarianceSettings, CovarianceTracker

D = 6


@pytest.fixture
def tokens():
    return torch.randn(90, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def tracked(*batches, centered=False):
    tracker = CovarianceTracker(D, dtype=torch.float64, centered=centered)
    for batch in batches:
        tracker.update(batch)
    return tracker


def products(tracker):
    return tracker.state_dict()["products"]


def test_streaming_equals_batch(tokens):
    stream = tracked(*tokens.split([1, 40, 49]))
    torch.testing.assert_close(products(stream), tokens.T @ tokens)
    torch.testing.assert_close(stream.spectrum().matrix(), tokens.T @ tokens / 90)
    assert stream.spectrum().tokens == 90


def test_merge_is_order_free(tokens):
    parts = [tracked(part) for part in tokens.split(30)]
    forward, backward = tracked(), tracked()
    for part in parts:
        forward.merge(part)
    for part in reversed(parts):
        backward.merge(part)
    torch.testing.assert_close(products(forward), products(backward), rtol=1e-14, atol=1e-13)
    torch.testing.assert_close(forward.spectrum().eigenvalues, tracked(tokens).spectrum().eigenvalues)


def test_merge_is_the_token_weighted_mean_of_the_paper(tokens):
    past, current = tokens[:70], tokens[70:]
    merged = tracked(past)
    merged.merge(tracked(current))
    expected = (70 * past.T @ past / 70 + 20 * current.T @ current / 20) / 90
    torch.testing.assert_close(merged.spectrum().matrix(), expected)


def test_reduce_sums_over_processes(tokens):
    mine, theirs = tracked(tokens[:31]), tracked(tokens[31:])
    others = iter(theirs.state_dict().values())

    def all_reduce(tensor):
        tensor.add_(next(others))

    mine.reduce(all_reduce)
    torch.testing.assert_close(mine.spectrum().matrix(), tracked(tokens).spectrum().matrix())


def test_padding_never_changes_a_statistic(tokens):
    padded = torch.full((2, 60, D), float("nan"), dtype=torch.float64)
    valid = torch.zeros(2, 60, dtype=torch.bool)
    padded[0, :50], valid[0, :50] = tokens[:50], True
    padded[1, 20:], valid[1, 20:] = tokens[50:], True
    tracker = CovarianceTracker(D, dtype=torch.float64)
    tracker.update(padded, valid)
    torch.testing.assert_close(products(tracker), tokens.T @ tokens)
    assert float(tracker.tokens) == 90


def test_half_precision_inputs_are_summed_in_float32(tokens):
    tracker = CovarianceTracker(D)
    tracker.update(tokens.bfloat16())
    exact = tokens.bfloat16().double()
    torch.testing.assert_close(products(tracker).double(), exact.T @ exact, rtol=1e-5, atol=1e-4)


def test_centered_covariance_removes_the_mean(tokens):
    shifted = tokens + 5
    torch.testing.assert_close(tracked(shifted, centered=True).spectrum().matrix(), shifted.T.cov(correction=0))


def test_spectrum_is_orthonormal_descending_and_keeps_the_trace(tokens):
    spectrum = tracked(tokens).spectrum()
    torch.testing.assert_close(spectrum.eigenvectors.T @ spectrum.eigenvectors, torch.eye(D, dtype=torch.float64))
    assert (spectrum.eigenvalues.diff() <= 0).all()
    assert spectrum.trace == pytest.approx(float(spectrum.eigenvalues.sum()))
    assert spectrum.mean_eigenvalue == pytest.approx(float(spectrum.eigenvalues.mean()))


def test_errors_say_what_must_hold(tokens):
    with pytest.raises(ValueError, match="at least one token"):
        CovarianceTracker(D).spectrum()
    with pytest.raises(ValueError, match="6 wide"):
        CovarianceTracker(D).update(torch.zeros(2, 5))
    with pytest.raises(ValueError, match="float32 or float64"):
        CovarianceTracker(D, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="at least 1; got 0 and 1"):
        CovarianceTracker(D, "nystrom", sketch_size=0, token_stride=1)
    with pytest.raises(ValueError, match="one storage and size to merge"):
        tracked(tokens).merge(CovarianceTracker(D, "nystrom", dtype=torch.float64))
    with pytest.raises(ValueError, match=r"sketch must have shape \(6, 6\); got none"):
        CovarianceTracker(D, "nystrom").load_state_dict(tracked(tokens).state_dict())
    with pytest.raises(ValueError, match=r"products must have shape \(6, 6\); got \(5, 5\)"):
        tracked().load_state_dict(CovarianceTracker(5).state_dict())


def test_state_round_trip_is_bit_equal(tokens):
    first = tracked(tokens, centered=True)
    second = tracked(centered=True)
    second.load_state_dict(first.state_dict())
    assert torch.equal(products(first), products(second))
    assert torch.equal(first.spectrum().eigenvectors, second.spectrum().eigenvectors)


def test_a_clone_goes_its_own_way(tokens):
    first = tracked(tokens)
    second = first.clone()
    second.update(tokens)
    assert float(second.tokens) == 2 * float(first.tokens)
    torch.testing.assert_close(products(second), 2 * products(first))


@pytest.mark.parametrize("storage", ["nystrom", "frequent_directions", "incremental"])
def test_narrow_inputs_are_stored_in_full_and_wide_ones_sketched(storage):
    settings = CovarianceSettings(storage=storage, exact_max_dim=8, sketch_size=3)
    assert products(settings.tracker(8)).shape == (8, 8)
    sketched = settings.tracker(9).state_dict()
    assert "products" not in sketched
    assert sum(tensor.numel() for tensor in sketched.values()) == 9 * 3 + 3
    assert products(CovarianceSettings(storage="exact", exact_max_dim=8).tracker(9)).shape == (9, 9)


def test_the_small_backbones_widths_are_exact_by_default():
    assert all("products" in CovarianceSettings().tracker(dim).state_dict() for dim in (192, 512, 1024))
    assert CovarianceSettings().tracker(1025).state_dict()["sketch"].shape == (1025, 192)
