"""What counting inputs costs beside the layer they belong to, and how much of the exact spectrum each storage keeps."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from same.engine.bench._pairs import interleaved, median_ratio
from same.maths.covariance import CovarianceTracker, Spectrum, StorageName

LEADING = 64
TASKS = 3
# name: storage, directions held, one in so many tokens
VARIANTS: dict[str, tuple[StorageName, int, int]] = {
    "nystrom 128, every 8th": ("nystrom", 128, 8),
    "nystrom 192, every 16th": ("nystrom", 192, 16),  # the default
    "nystrom 256": ("nystrom", 256, 1),
    "nystrom 320": ("nystrom", 320, 1),  # the accurate setting
    "frequent directions 192, every 16th": ("frequent_directions", 192, 16),
    "incremental 192, every 16th": ("incremental", 192, 16),
    "exact": ("exact", 1, 1),
}


@dataclass(frozen=True)
class Config:
    """What is measured.

    Args:
        widths: (inputs, outputs) of the frozen layer whose forward and backward is the base.
        tokens: of one update, and of one pass of the base layer.
        updates: of each of three tasks, for the energy captured; inputs have a mean and a decaying spectrum.
        repeats: rounds; medians are given.
        dtype: of inputs and base layer, fp32 or bf16.
    """

    widths: tuple[tuple[int, int], ...] = ((4096, 11008), (11008, 4096))
    tokens: int = 2_048
    updates: int = 24
    repeats: int = 5
    dtype: str = "bf16"


def run(config: Config | None = None) -> dict[str, Any]:
    """Measure `share_of_base`, `megabytes` and `captured_energy_64` of every storage at every width.

    `megabytes` are of one covariance's state; `shared_megabytes`, of a sketch's random basis, come once for all of its
    width.
    """
    config = config or Config()
    rows = [row for inputs, outputs in config.widths for row in _measure(config, inputs, outputs)]
    return {"settings": asdict(config), "rows": rows}


def _measure(config: Config, inputs: int, outputs: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    kept: dict[str, tuple[int, int, float]] = {}
    dtype = torch.bfloat16 if config.dtype == "bf16" else torch.float32
    draw = _source(inputs)
    exact, trackers = _tracker("exact", inputs), {name: _tracker(name, inputs) for name in VARIANTS if name != "exact"}
    for task in range(TASKS):
        for _ in range(config.updates):
            x = draw(task, config.tokens)
            for tracker in (exact, *trackers.values()):
                tracker.update(x)
    leading = _leading(exact)
    for name, tracker in trackers.items():
        captured = _captured(exact, tracker.spectrum(), leading)
        kept[name] = _bytes(tracker), tracker.shared_bytes(dtype), captured
    kept["exact"] = _bytes(exact), 0, 1.0
    del trackers
    x = draw(0, config.tokens).to(dtype)
    times = interleaved(_calls(x, outputs), config.repeats, note=f"{inputs}, {config.dtype}")
    return [
        {
            "width": inputs,
            "storage": name,
            "share_of_base": round(median_ratio(times[name], times["base"]), 5),
            "megabytes": round(size / 2**20, 2),
            "shared_megabytes": round(shared / 2**20, 2),
            "captured_energy_64": round(energy, 4),
            "seconds": round(statistics.median(times[name]), 5),
        }
        for name, (size, shared, energy) in kept.items()
    ]


def _tracker(name: str, dim: int) -> CovarianceTracker:
    storage, size, stride = VARIANTS[name]
    return CovarianceTracker(dim, storage, sketch_size=size, token_stride=stride)


def _calls(x: Tensor, outputs: int) -> dict[str, Callable[[], object]]:
    layer = nn.Linear(x.shape[1], outputs, bias=False, dtype=x.dtype).requires_grad_(False)
    watched, gradient = x.clone().requires_grad_(), torch.randn(len(x), outputs, dtype=x.dtype)

    def base() -> None:
        layer(watched).backward(gradient)
        watched.grad = None

    fresh = {name: _tracker(name, x.shape[1]) for name in VARIANTS}
    updates = {name: (lambda tracker=tracker: tracker.update(x)) for name, tracker in fresh.items()}
    return {"base": base, **updates}


def _source(dim: int) -> Callable[[int, int], Tensor]:
    """Inputs of a task: half the energy in directions of all tasks, half in its own; spectra fall as 1 / j; a mean."""
    generator = torch.Generator().manual_seed(0)
    scale = (1 / torch.arange(1, 257)).sqrt()
    bases = [torch.linalg.qr(torch.randn(dim, 256, generator=generator)).Q for _ in range(TASKS + 1)]
    mean = torch.randn(dim, generator=generator) / dim**0.5

    def draw(task: int, tokens: int) -> Tensor:
        def part(basis: Tensor) -> Tensor:
            drawn: Tensor = (torch.randn(tokens, 256, generator=generator) * scale) @ basis.T
            return drawn

        noise = 0.3 * torch.randn(tokens, dim, generator=generator) / dim**0.5
        summed: Tensor = part(bases[-1]) + part(bases[task]) + mean + noise
        return summed

    return draw


def _leading(exact: CovarianceTracker) -> float:
    """Energy of the best directions, found by subspace iteration: a full decomposition takes minutes at this width."""
    matrix = exact.state_dict()["products"]
    return float(torch.svd_lowrank(matrix, q=LEADING + 32, niter=6)[1][:LEADING].sum())


def _captured(exact: CovarianceTracker, spectrum: Spectrum, leading: float) -> float:
    """Share of that energy that lies in as many leading directions of a sketch."""
    basis = spectrum.eigenvectors[:, :LEADING].float()
    return float(((exact.state_dict()["products"] @ basis) * basis).sum()) / leading


def _bytes(tracker: CovarianceTracker) -> int:
    return sum(tensor.nbytes for tensor in tracker.state_dict().values())
