"""Boundaries between tasks in a stream that names none, from where the covariance of its inputs shifts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import torch

from same.maths.covariance import CovarianceTracker
from same.maths.spectrum import Spectrum


def covariance_shift(first: Spectrum, second: Spectrum) -> float:
    """1 − ⟨C, C'⟩ / (‖C‖ ‖C'‖): 0 for covariances equal up to their scale, 1 for those of orthogonal inputs."""
    norms = first.eigenvalues.double().norm() * second.eigenvalues.double().norm()
    if norms == 0:
        return 0.0
    cosines = (first.eigenvectors.double().mT @ second.eigenvectors.double()).square()
    inner = first.eigenvalues.double() @ cosines @ second.eigenvalues.double()
    return float((1 - inner / norms).clamp(0, 1))


@dataclass(frozen=True)
class Window:
    """What a detector says of one window: its shift, the shift above which it calls a boundary, whether it does."""

    shift: float
    limit: float
    found: bool


class BoundaryDetector:
    """Calls a boundary where a window lies much further from those since the last boundary than windows usually do.

    What a window is compared with is the sum of the windows since the last boundary; the shift is the mean over the
    inputs that are watched. Beyond the paper, which is told where tasks begin.

    Args:
        factor: a boundary is called above so many times the usual shift: the median of all windows that were no
            boundary, or of those since the last boundary if that is more, as some tasks vary more than others.
        settle: windows after the first of a task in which none is called.
    """

    def __init__(self, factor: float = 2.0, settle: int = 1) -> None:
        if not factor > 1 or settle < 1:
            raise ValueError(f"factor must be above 1 and settle at least 1; got {factor} and {settle}. Try 2 and 1.")
        self.factor, self.settle = factor, settle
        self._since: dict[str, CovarianceTracker] = {}
        self._usual: list[float] = []
        self._recent: list[float] = []

    @torch.no_grad()
    def update(self, window: Mapping[str, CovarianceTracker]) -> Window:
        """Take the next window, by input the covariance of its tokens."""
        if not self._since:
            self._begin(window)
            return Window(0.0, 0.0, False)
        spectra = [(self._since[key].spectrum(), tracker.spectrum()) for key, tracker in window.items()]
        shift = sum(covariance_shift(*pair) for pair in spectra) / len(spectra)
        usual = [median(shifts) for shifts in (self._usual, self._recent) if shifts]
        limit = self.factor * max(usual, default=1.0)
        found = len(self._recent) >= self.settle and shift > limit
        if found:
            self._begin(window)
        else:
            self._usual.append(shift)
            self._recent.append(shift)
            for key, tracker in window.items():
                self._since[key].merge(tracker)
        return Window(shift, limit, found)

    def _begin(self, window: Mapping[str, CovarianceTracker]) -> None:
        self._since = {key: tracker.clone() for key, tracker in window.items()}
        self._recent = []
