"""Run folders of the true schema with made-up numbers, written by the library's own writer."""

from pathlib import Path

import numpy as np

from same.metrics import READINGS
from same.runs import RunFolder, write_table

TASKS = ("scienceqa", "textvqa", "imagenet", "gqa", "vizwiz", "grounding", "vqav2", "ocrvqa")
EXPERTS = 8
LAYERS = tuple(
    f"base_model.model.model.language_model.layers.{layer}.mlp.{name}_proj"
    for layer in range(4)
    for name in ("gate", "up", "down")
)


def write_run(
    runs: Path, method: str, seed: int = 0, drift: float = 0.5, finished: int = len(TASKS), state: str = "done"
) -> RunFolder:
    """One run: scores that fade and routing that moves with `drift` in [0, 1] a task."""
    rng = np.random.default_rng([seed, len(method), ord(method[-1])])
    tasks = [{"key": task, "scorer": "exact"} for task in TASKS]
    sizes = {"backbone": {"name": "tiny"}, "train_items": 64}
    settings = {"method": {"name": method}, "seed": seed, "drift": drift, "tasks": tasks, **sizes}
    run = RunFolder.create(runs, "mini-coin", method, seed, settings)
    run.append_event("start")
    rows: list[list[float | None]] = []
    routing = _softmax(rng.normal(size=(len(LAYERS), EXPERTS)))
    for after in range(finished):
        seen = [float(0.9 * (1 - drift) ** (after - task) ** 0.5) for task in range(after + 1)]
        rows.append([*seen, *[None] * (len(TASKS) - after - 1)])
        fresh = _softmax(1.5 * rng.normal(size=(len(LAYERS), EXPERTS)))
        routing = routing + (drift * (fresh - routing) if after else 0)
        run.write_snapshot(after, lambda folder, now=after, shares=routing: _tables(folder, now, shares))
        run.append_event("task_end", task=after)
    zero = [0.1] * len(TASKS)
    run.write_scores(TASKS, dict.fromkeys(READINGS, rows), dict.fromkeys(READINGS, zero))
    run.append_event(state)
    return run


def write_routing(folder: Path, after: int) -> None:
    """The routing table of a snapshot, with the same weight for every expert."""
    _tables(folder, after, np.full((len(LAYERS), EXPERTS), 1 / EXPERTS))


def _softmax(values: np.ndarray) -> np.ndarray:
    raised = np.exp(values)
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True))


def _tables(folder: Path, after: int, shares: np.ndarray) -> None:
    rows = [
        (TASKS[probe], probe, name, f"{name.rsplit('.', 1)[0]}.in", expert, float(shares[layer, expert]), 0.1, 1000)
        for probe in range(after + 1)
        for layer, name in enumerate(LAYERS)
        for expert in range(EXPERTS)
    ]
    columns = ("probe_task", "probe_index", "layer", "input_key", "expert", "weight", "argmax_share", "tokens")
    write_table(folder / "routing.parquet", dict(zip(columns, zip(*rows, strict=True), strict=True)))
