"""Runs that hold all that a snapshot can, of the true schema with made-up numbers; made once, in a second."""

from pathlib import Path

import numpy as np

from same.engine.audit_table import COLUMNS
from same.metrics import READINGS
from same.runs import RunFolder, write_table

TASKS = ("scienceqa", "textvqa", "imagenet", "gqa")
EXPERTS, WIDTH, TOKENS = 4, 12, 20
INPUTS = tuple(f"model.language_model.layers.{block}.{name}" for block in range(2) for name in ("mlp_in", "mlp_mid"))
LAYERS = tuple(
    f"model.language_model.layers.{block}.mlp.{name}_proj" for block in range(2) for name in ("gate", "up", "down")
)
THRESHOLD = 0.1


def write_deep_run(runs: Path, method: str, drift: float) -> RunFolder:
    """One run whose routing and spectra move with `drift`; its scorings let experts rest at τ = 0.1."""
    rng = np.random.default_rng(len(method))
    rules = {"energy_threshold": 0.9, "gain": "inverse", "window": 2, "freeze_threshold": THRESHOLD}
    tasks = [{"key": key, "scorer": "exact"} for key in TASKS]
    settings = {"method": {"name": method, **rules}, "tasks": tasks, "backbone": {"name": "tiny"}, "train_items": 64}
    run = RunFolder.create(runs, "mini-coin", method, 0, settings)
    run.append_event("start")
    past = np.zeros((len(INPUTS), WIDTH, WIDTH))
    for after, key in enumerate(TASKS):
        seen = rng.normal(size=(len(INPUTS), TOKENS, WIDTH)) * 0.7 ** np.arange(WIDTH)
        past += seen.swapaxes(1, 2) @ seen

        def fill(path: Path, after: int = after, seen: np.ndarray = seen, past: np.ndarray = past) -> None:
            _routing(path, after, drift, rng)
            _audit(path, after, drift)
            _spectra(path, past, after)
            _probe(path, seen)
            _activation(path, after, rng)

        run.write_snapshot(after, fill, task=key)
        _events(run, after, key)
    run.write_scores(TASKS, dict.fromkeys(READINGS, _scores(drift)))
    _reroutings(run, drift)
    run.append_event("done")
    return run


def _scores(drift: float) -> list[list[float | None]]:
    return [
        [0.9 * (1 - drift) ** (after - task) if task <= after else None for task in range(len(TASKS))]
        for after in range(len(TASKS))
    ]


def _shares(rng: np.random.Generator) -> np.ndarray:
    raised = np.exp(rng.normal(size=(len(LAYERS), EXPERTS)))
    return np.asarray(raised / raised.sum(-1, keepdims=True))


def _routing(path: Path, after: int, drift: float, rng: np.random.Generator) -> None:
    shares = (1 - drift) * _shares(np.random.default_rng(0)) + drift * _shares(rng)
    rows = [
        (TASKS[probe], probe, layer, "", expert, float(shares[row, expert]), 0.1, 100)
        for probe in range(after + 1)
        for row, layer in enumerate(LAYERS)
        for expert in range(EXPERTS)
    ]
    columns = ("probe_task", "probe_index", "layer", "input_key", "expert", "weight", "argmax_share", "tokens")
    write_table(path / "routing.parquet", dict(zip(columns, zip(*rows, strict=True), strict=True)))


def _audit(path: Path, after: int, drift: float) -> None:
    rows = []
    for probe in range(after):
        for layer in LAYERS:
            gone = drift * (after - probe)
            place = {"probe_task": TASKS[probe], "probe_index": probe, "layer": layer, "input_key": ""}
            router = {"part": "router", "js_divergence": 0.1 * gone, "overlap": 1 - 0.2 * gone, "flips": 0.1 * gone}
            router |= {"entropy_then": np.log(2), "entropy_now": np.log(2) * (1 + gone), "drift": gone}
            router |= {"angle_mean": 0.5, "representation_drift": gone}
            experts = [{"part": "expert", "expert": expert, "drift": gone * expert} for expert in range(EXPERTS)]
            rows += [dict.fromkeys(COLUMNS) | place | row for row in (router, *experts)]
    if rows:
        write_table(path / "audit.parquet", {name: [row[name] for row in rows] for name in COLUMNS})


def _spectra(path: Path, past: np.ndarray, after: int) -> None:
    from safetensors.numpy import save_file

    tensors = {}
    for key, covariance in zip(INPUTS, past / (TOKENS * (after + 1)), strict=True):
        values, vectors = np.linalg.eigh(covariance)
        held = WIDTH - 2  # a sketch holds fewer than all
        tensors[f"{key}.eigenvalues"] = values[::-1][:held].copy()
        tensors[f"{key}.eigenvectors"] = vectors[:, ::-1][:, :held].astype(np.float32)
        tensors[f"{key}.tokens"] = np.array(TOKENS * (after + 1.0))
        tensors[f"{key}.trace"] = np.array(values.sum())
    save_file(tensors, path / "spectrum.safetensors")


def _probe(path: Path, seen: np.ndarray) -> None:
    from safetensors.numpy import save_file

    save_file(
        {f"{key}.inputs": part.astype(np.float32) for key, part in zip(INPUTS, seen, strict=True)},
        path / "probe.safetensors",
    )


def _activation(path: Path, after: int, rng: np.random.Generator) -> None:
    rows = []
    for step in (2, 10) if after else (10,):
        utilization, importance = _shares(rng), (5 * _shares(rng) if after else np.zeros((len(LAYERS), EXPERTS)))
        low, high = (value(importance, -1, keepdims=True) for value in (np.min, np.max))
        relative = (importance - low) / np.where(high > low, high - low, 1)
        low, high = (value(utilization, -1, keepdims=True) for value in (np.min, np.max))
        score = (utilization - low) / (high - low) - relative
        rows += [
            (layer, expert, *(float(part[row, expert]) for part in (utilization, importance, score)), False, step)
            for row, layer in enumerate(LAYERS)
            for expert in range(EXPERTS)
        ]
    columns = ("layer", "expert", "utilization", "importance", "score", "frozen", "step")
    write_table(path / "activation.parquet", dict(zip(columns, zip(*rows, strict=True), strict=True)))


def _events(run: RunFolder, after: int, key: str) -> None:
    for step in (5, 10):
        numbers = {"loss": 2.0 / step, "samples_per_second": 20.0 + after, "memory_mb": 500.0 + step}
        active = [EXPERTS - bool(after)] * len(LAYERS)
        run.append_event("step", task=after, step=step, steps=10, active_experts=active, **numbers)
    run.append_event("task_end", task=after, key=key, train_seconds=10.0 + after, evaluate_seconds=3.0)


def _reroutings(run: RunFolder, drift: float) -> None:
    versions = range(len(TASKS))
    pairs = [(str(router), experts, 0, 0) for experts in versions for router in versions]
    pairs += [(str(experts), experts, 6, 0) for experts in versions]
    pairs += [
        (kind, experts, 6 if kind == "oracle" else 0, 0) for experts in versions for kind in ("uniform", "oracle")
    ]
    pairs += [("random", experts, 0, seed) for experts in versions for seed in (0, 1)]
    for number, (router, experts, steps, seed) in enumerate(pairs):
        apart = abs(int(router) - experts) if router.isdecimal() else 1 + seed
        found = 0.9 * (1 - drift) ** (apart if not steps else 0.5) - 0.05 * experts
        layers = {layer: 1.0 + 0.1 * row for row, layer in enumerate(LAYERS)}
        result = {"id": f"{number:012x}", "run": "", "task": TASKS[0], "task_index": 0, "router": router}
        result |= {"experts": experts, "retrained_steps": steps, "learning_rate": 0.002 if steps else None}
        result |= {"items": 50, "seed": seed, "layer": None, "weights": [], "seconds": 1.5}
        result |= {"scores": dict.fromkeys(READINGS, found), "curve": _curve(steps, experts)}
        result |= {"routing_entropy": {"mean": 1.25 + 0.1 * experts, "layers": layers}}
        result |= {"routing": {layer: [1 / EXPERTS] * EXPERTS for layer in LAYERS}}
        run.write_rerouting(result["id"], result, {"text": ["a"]})


def _curve(steps: int, experts: int) -> list[dict[str, float]]:
    return [{"step": step, "loss": (1 + experts) / step} for step in range(1, steps + 1)]
