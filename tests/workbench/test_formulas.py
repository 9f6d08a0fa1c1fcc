"""The formulas in numpy are those of same.maths."""

import numpy as np
import pytest
import torch

from same.maths.curvature import curvature_scaling
from same.maths.drift import input_spectrum
from same.maths.drift import principal_angles as angles_of_the_library
from same.maths.freezing import active_experts
from same.maths.freezing import minmax as minmax_of_the_library
from same.maths.routing import router_scaling
from same.maths.spectrum import Spectrum
from workbench.formulas import Eigenvalues, Rules, directions, minmax, principal_angles, resting

DIM, HELD = 12, 9


@pytest.fixture
def spectra() -> tuple[Spectrum, Eigenvalues]:
    """One spectrum of which not all directions are held, as the library and as the workbench hold it."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(50, DIM, generator=generator, dtype=torch.float64) * 0.6 ** torch.arange(DIM)
    values, vectors = torch.linalg.eigh(rows.T @ rows / 50)
    values, vectors, trace = values.flip(0), vectors.flip(1), float(values.sum())
    held = Spectrum(values[:HELD], vectors[:, :HELD], 50.0, trace)
    return held, Eigenvalues(values[:HELD].numpy().copy(), DIM, trace, 50.0)


@pytest.mark.parametrize("energy", ["squared", "eigenvalue"])
@pytest.mark.parametrize("threshold", [0.3, 0.9, 0.95, 0.9999, 1.0])
def test_the_rank_is_the_librarys(spectra: tuple[Spectrum, Eigenvalues], threshold: float, energy: str) -> None:
    theirs, ours = spectra
    assert ours.rank(threshold, energy) == theirs.rank(threshold, energy)
    kept = ours.kept(energy)
    rank = ours.rank(threshold, energy)
    assert kept[rank - 1] >= threshold * (1 - 1e-9) or rank == HELD
    assert rank == 1 or kept[rank - 2] < threshold


@pytest.mark.parametrize("gain", ["inverse", "damped", "zero", "clamped"])
@pytest.mark.parametrize(("threshold", "window", "damping", "absolute"), [(0.95, 3, 1.0, False), (1.0, 1, 0.02, True)])
def test_the_routers_gains_are_the_librarys(
    spectra: tuple[Spectrum, Eigenvalues], gain: str, threshold: float, window: int, damping: float, absolute: bool
) -> None:
    theirs, ours = spectra
    given = {"gain": gain, "energy_threshold": threshold, "window": window, "damping": damping}
    expected = router_scaling(theirs, **given, damping_absolute=absolute).gains.numpy()
    assert ours.router_gains(Rules(**given, damping_absolute=absolute)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gain", ["inverse", "damped", "zero", "clamped"])
@pytest.mark.parametrize("used", [0, 3])
@pytest.mark.parametrize("threshold", [0.95, 1.0])
def test_directions_that_no_input_used_are_treated_as_the_library_does(gain: str, used: int, threshold: float) -> None:
    values = torch.zeros(DIM, dtype=torch.float64)
    values[:used] = torch.tensor([4.0, 1.0, 0.5], dtype=torch.float64)[:used]
    theirs = Spectrum(values, torch.eye(DIM, dtype=torch.float64), 50.0, float(values.sum()))
    ours = Eigenvalues(values.numpy().copy(), DIM, theirs.trace, 50.0)
    assert ours.rank(threshold) == theirs.rank(threshold)
    expected = router_scaling(theirs, gain=gain, energy_threshold=threshold, damping=0.5).gains.numpy()
    found = ours.router_gains(Rules(gain=gain, energy_threshold=threshold, damping=0.5))
    assert found == pytest.approx(expected, rel=1e-12)
    learned = curvature_scaling(theirs, gain="damped", energy_threshold=threshold, damping=0.5).gains.numpy()
    assert ours.expert_gains(Rules(energy_threshold=threshold, damping=0.5)) == pytest.approx(learned, rel=1e-12)


@pytest.mark.parametrize("gain", ["damped", "root"])
@pytest.mark.parametrize("absolute", [False, True])
def test_the_experts_gains_are_the_librarys(spectra: tuple[Spectrum, Eigenvalues], gain: str, absolute: bool) -> None:
    theirs, ours = spectra
    given = {"energy_threshold": 0.99, "damping": 0.3, "damping_absolute": absolute}
    expected = curvature_scaling(theirs, gain=gain, **given).gains.numpy()
    assert ours.expert_gains(Rules(curvature_gain=gain, **given)) == pytest.approx(expected, rel=1e-12)


def test_what_is_left_of_an_update_is_its_effect_on_past_inputs(spectra: tuple[Spectrum, Eigenvalues]) -> None:
    theirs, ours = spectra
    rules = Rules(energy_threshold=0.9)
    scaling = router_scaling(theirs, gain="inverse", energy_threshold=0.9)
    whole = Eigenvalues(ours.values, DIM, float(ours.values.sum()), 50.0)  # as if no direction was left out
    covariance = theirs.matrix()
    matrix = scaling.matrix()
    expected = float((matrix @ covariance @ matrix).trace() / covariance.trace())  # of ΔW with independent entries
    assert whole.left(whole.router_gains(rules)) == pytest.approx(expected)
    assert ours.left(ours.router_gains(Rules(gain="none"))) == pytest.approx(1)
    assert ours.left(np.zeros(HELD)) == pytest.approx(1 - ours.values.sum() / ours.trace)


def test_angles_and_leading_directions_are_the_librarys() -> None:
    generator = torch.Generator().manual_seed(5)
    first, second = (torch.randn(7, DIM, generator=generator, dtype=torch.float64) for _ in range(2))
    second[:2] = first[:2] * 3
    bases = []
    for rows in (first, second):
        spectrum = input_spectrum(rows)
        theirs = spectrum.eigenvectors[:, : spectrum.rank(0.9)]
        found, vectors = directions(rows.numpy())
        ours = vectors[:, : found.rank(0.9)]
        assert np.abs(ours.T @ theirs.numpy()) == pytest.approx(np.eye(theirs.shape[1]), abs=1e-8)
        bases.append((theirs, ours))
    expected = angles_of_the_library(bases[0][0], bases[1][0]).numpy()
    assert principal_angles(bases[0][1].T @ bases[1][1]) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("threshold", [-1.0, -0.2, 0.1, 1.0])
def test_what_rests_is_what_the_library_lets_rest(threshold: float) -> None:
    generator = torch.Generator().manual_seed(7)
    scores = torch.rand(5, 4, generator=generator, dtype=torch.float64) * 2 - 1
    expected = ~active_experts(scores, threshold).numpy()
    assert (resting(scores.numpy(), threshold) == expected).all()
    equal = torch.cat([scores, torch.full((1, 4), 0.5, dtype=torch.float64)])
    assert minmax(equal.numpy()) == pytest.approx(minmax_of_the_library(equal).numpy())
