"""Runs with made-up numbers and the tables of a 7B model, written by the library's own writer."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from same.metrics import READINGS
from same.runs import RunFolder, write_table

PROJECTIONS = {"gate_proj": "in", "up_proj": "in", "down_proj": "mid"}


@dataclass(frozen=True)
class Size:
    """What is adapted, and how much of it a snapshot holds.

    Args:
        layers: transformer blocks, each with three adapted linears.
        width: of the residual stream.
        hidden: of the feed-forward network.
        experts: of each adapted linear.
        tasks: all of them finished.
        directions: of each covariance that a snapshot keeps.
    """

    layers: int = 32
    width: int = 4096
    hidden: int = 11008
    experts: int = 8
    tasks: int = 10
    directions: int = 32


def write_runs(folder: Path, size: Size, methods: tuple[str, ...]) -> list[RunFolder]:
    """Write one finished run a method."""
    return [_write_run(folder, size, method, drift) for drift, method in enumerate(methods, start=1)]


def _write_run(folder: Path, size: Size, method: str, drift: int) -> RunFolder:
    rng, keys = np.random.default_rng(drift), [f"task{index}" for index in range(size.tasks)]
    settings = {"method": {"name": method}, "size": vars(size), "tasks": [{"key": key} for key in keys]}
    run = RunFolder.create(folder, "size-7b", method, 0, settings)
    run.append_event("start")
    logits = rng.normal(size=(size.layers * len(PROJECTIONS), size.experts))
    rows: list[list[float | None]] = []
    for after in range(size.tasks):
        logits = logits + 0.2 * drift * rng.normal(size=logits.shape)
        shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        seen = [float(0.8 * 0.95 ** (drift * (after - task))) for task in range(after + 1)]
        rows.append([*seen, *[None] * (size.tasks - after - 1)])
        run.write_snapshot(after, partial(_fill, size=size, probes=keys[: after + 1], shares=shares))
        run.append_event("task_end", task=after)
    run.write_scores(keys, dict.fromkeys(READINGS, rows))
    run.append_event("done")
    return run


def _fill(folder: Path, size: Size, probes: list[str], shares: np.ndarray) -> None:
    names = [
        f"base_model.model.model.language_model.layers.{block}.mlp.{name}"
        for block in range(size.layers)
        for name in PROJECTIONS
    ]
    rows = [
        (
            task,
            probe,
            name,
            f"{name.rsplit('.', 1)[0]}.{PROJECTIONS[name.rsplit('.', 1)[1]]}",
            expert,
            weight,
            0.1,
            1000,
        )
        for probe, task in enumerate(probes)
        for name, weights in zip(names, shares.tolist(), strict=True)
        for expert, weight in enumerate(weights)
    ]
    columns = ("probe_task", "probe_index", "layer", "input_key", "expert", "weight", "argmax_share", "tokens")
    write_table(folder / "routing.parquet", dict(zip(columns, zip(*rows, strict=True), strict=True)))
    save_file(dict(_spectra(size)), folder / "spectrum.safetensors")


def _spectra(size: Size) -> Iterator[tuple[str, np.ndarray]]:
    values = 1 / np.arange(1, size.directions + 1, dtype=np.float64)
    for block in range(size.layers):
        for name, width in (("in", size.width), ("mid", size.hidden)):
            key = f"base_model.model.model.language_model.layers.{block}.mlp.{name}"
            yield f"{key}.eigenvalues", values
            yield f"{key}.eigenvectors", np.eye(width, size.directions, dtype=np.float32)
            yield f"{key}.tokens", np.array(1e6)
            yield f"{key}.trace", np.array(values.sum())
