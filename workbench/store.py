"""Run folders as tables: the only disk access of the dashboard, and what notebooks draw from.

Tables (pandas) and their columns; indices are 0-based:
    overview   run, label, benchmark, method, seed, fingerprint, state, tasks, one column a metric, left_out, problem
    scores     after (-1: before any training), task_index, task, score
    metrics    run, label, metric, value
    routing    run, label, after, layer (a short name), expert, weight
    overlap    run, label, after, layer, overlap, divergence
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from same import metrics
from same.errors import InputError, SnapshotError
from same.runs import RunFolder, runs_in

VARIANTS = tuple(metrics.READINGS)
STATES = {"done": "finished", "interrupted": "interrupted", "failed": "failed"}
MEAN_LAYER = "mean over layers"
_ROUTING = ["run", "label", "after", "layer", "expert", "weight"]
_OVERLAP = ["run", "label", "after", "layer", "overlap", "divergence"]


class Store:
    """Every run below one folder."""

    def __init__(self, runs: str | Path):
        self.runs = Path(runs)
        if not self.runs.is_dir():
            found = "is no folder" if self.runs.exists() else "does not exist"
            raise InputError(f"The runs folder must exist; {self.runs} {found}. Train first, or give --runs.")

    def overview(self, variant: str = VARIANTS[0]) -> pd.DataFrame:
        """One row a run, damaged ones too, with what is wrong with them."""
        rows = [self._row(run, variant) for run in runs_in(self.runs)]
        columns = ["run", "benchmark", "method", "seed", "fingerprint", "state", "tasks", *metrics.NAMES]
        columns += ["left_out", "problem"]
        table = pd.DataFrame(rows, columns=columns)
        table.insert(1, "label", _labels(table))
        return table

    def _row(self, run: RunFolder, variant: str) -> dict[str, Any]:
        benchmark, method, name = run.path.relative_to(self.runs).parts
        seed, _, fingerprint = name.partition("-")
        row: dict[str, Any] = {"run": run.path.relative_to(self.runs).as_posix(), "benchmark": benchmark}
        row |= {"method": method, "seed": seed, "fingerprint": fingerprint, "tasks": 0}
        row |= {"left_out": "", "problem": ""}
        try:
            row["left_out"] = metrics.left_out(run.config()["settings"])
            kinds = [event["kind"] for event in run.events()]
            row["state"] = STATES.get(kinds[-1] if kinds else "", "unfinished")
            row["tasks"] = run.finished()
            if (run.path / "scores.json").exists():
                summary = metrics.summarise(run.scores())
                row |= {metric: summary[metric].get(variant) for metric in metrics.NAMES}
        except SnapshotError as error:
            row |= {"state": "damaged", "problem": str(error)}
        return row

    def folder(self, run: str) -> RunFolder:
        """The run of that name; names are only ever looked up, never joined into a path."""
        known = {found.path.relative_to(self.runs).as_posix(): found for found in runs_in(self.runs)}
        if run not in known:
            raise InputError(f"Unknown run {run!r} in {self.runs}. Choices: {', '.join(known) or 'none'}.")
        return known[run]

    def name(self, path: str | Path) -> str:
        """The name of a run from its folder."""
        return Path(path).resolve().relative_to(self.runs.resolve()).as_posix()

    def newest(self, benchmark: str, methods: Sequence[str], seed: int = 0) -> list[str]:
        """The run of each method that finished a task last.

        Raises:
            InputError: a method has no run with a finished task.
        """
        table = self.overview()
        table = table[(table["benchmark"] == benchmark) & (table["seed"] == str(seed)) & (table["tasks"] > 0)]
        found = []
        for method in methods:
            runs = [self.folder(run) for run in table["run"][table["method"] == method]]
            if not runs:
                raise InputError(
                    f"{self.runs} must hold a run of {method} on {benchmark} with seed {seed} and a finished task. "
                    f"Train it with 10_train or `same train`. Methods there: {', '.join(table['method']) or 'none'}."
                )
            found.append(self.name(max(runs, key=lambda run: run.events_path.stat().st_mtime).path))
        return found

    def tasks(self, run: str) -> list[str]:
        """Keys of the benchmark's tasks, in order."""
        return list(self.folder(run).scores()["tasks"])

    def scores(self, run: str, variant: str = VARIANTS[0]) -> pd.DataFrame:
        """The lower triangle of the score matrix, with the zero-shot row where it was measured."""
        content = self.folder(run).scores()
        stages = dict(enumerate(content["variants"].get(variant) or []))
        stages |= {-1: content["zero_shot"].get(variant) or []}
        rows = [
            {"after": after, "task_index": index, "task": content["tasks"][index], "score": score}
            for after, row in sorted(stages.items())
            for index, score in enumerate(row)
            if score is not None
        ]
        return pd.DataFrame(rows, columns=["after", "task_index", "task", "score"])

    def metrics(self, runs: Iterable[str], variant: str = VARIANTS[0]) -> pd.DataFrame:
        """Every metric of the runs named, long."""
        table = self.overview(variant).set_index("run", drop=False)
        chosen = table.loc[[run for run in runs if run in table.index]]
        return chosen.melt(["run", "label"], list(metrics.NAMES), "metric", "value").astype({"value": float})

    def routing(self, runs: Sequence[str], probe: int = 0) -> pd.DataFrame:
        """Mean routing weight of one task's test inputs after each stage that has seen it."""
        labels = self.overview().set_index("run")["label"]
        parts = [pd.DataFrame(columns=_ROUTING)]
        for run in runs:
            folder = self.folder(run)
            for after in range(probe, folder.finished()):
                table = _routing_table(folder, after)
                table = table[table["probe_index"] == probe]
                parts.append(table.assign(run=run, label=labels[run], after=after)[_ROUTING])
        filled = [part for part in parts if len(part)]
        table = pd.concat(filled, ignore_index=True) if filled else parts[0]
        return table.assign(layer=table["layer"].map(layer_names(table["layer"])))


def _labels(table: pd.DataFrame) -> list[str]:
    """The shortest of method, seed and fingerprint that tells the runs of one benchmark apart."""
    seeds = table.groupby(["benchmark", "method"])["seed"].transform("nunique")
    twins = table.groupby(["benchmark", "method", "seed"])["run"].transform("size")
    seed = (" · seed " + table["seed"]).where(seeds > 1, "")
    fingerprint = (" · " + table["fingerprint"].str[:6]).where(twins > 1, "")
    return list(table["method"] + seed + fingerprint)


def _routing_table(folder: RunFolder, after: int) -> pd.DataFrame:
    snapshot = folder.snapshot(after)
    seal = (snapshot.path / "manifest.json").stat() if snapshot.exists else None
    return _read_routing(folder.path, after, seal and (seal.st_mtime_ns, seal.st_size))


@lru_cache(maxsize=256)
def _read_routing(path: Path, after: int, _identity: object) -> pd.DataFrame:
    """Read once as long as the snapshot's manifest stays the same file."""
    snapshot = RunFolder(path).snapshot(after)
    if not snapshot.has("routing.parquet"):
        return pd.DataFrame(columns=["probe_index", "layer", "expert", "weight"])
    return snapshot.table("routing")[["probe_index", "layer", "expert", "weight"]]


def layer_names(layers: Iterable[str]) -> dict[str, str]:
    """Short names: the parts of the module paths in which the layers differ, ``layers.0.mlp.up_proj`` → ``0.up``."""
    unique = list(dict.fromkeys(layers))
    parts = [name.split(".") for name in unique]
    if len({len(part) for part in parts}) != 1:
        return {name: name for name in unique}
    varies = [len(set(column)) > 1 for column in zip(*parts, strict=True)]
    if not any(varies):
        varies[-1] = True
    kept = [".".join(word for word, keep in zip(part, varies, strict=True) if keep) for part in parts]
    return {name: short.removesuffix("_proj") for name, short in zip(unique, kept, strict=True)}


def at_layer(table: pd.DataFrame, layer: str | None = None) -> pd.DataFrame:
    """The rows of one layer of a routing or overlap table, or their mean over layers."""
    if layer is not None:
        return table[table["layer"] == layer]
    keys = [key for key in ("run", "label", "after", "expert") if key in table.columns]
    return table.drop(columns="layer").groupby(keys, sort=False, as_index=False).mean().assign(layer=MEAN_LAYER)


def overlap(routing: pd.DataFrame) -> pd.DataFrame:
    """Compare each stage's routing with the first one recorded, per run and layer.

    overlap = Σ_i min(p_i, q_i) in [0, 1]; divergence = Jensen–Shannon divergence in bits, in [0, 1].
    """
    rows = []
    for (run, label, layer), part in routing.groupby(["run", "label", "layer"], sort=False):
        weights = part.pivot(index="after", columns="expert", values="weight").sort_index()
        shares = weights.to_numpy(dtype=float)
        shares = shares / shares.sum(axis=1, keepdims=True)
        for after, now in zip(weights.index, shares, strict=True):
            both = float(np.minimum(shares[0], now).sum())
            rows.append((run, label, int(after), layer, both, _jensen_shannon(shares[0], now)))
    return pd.DataFrame(rows, columns=_OVERLAP)


def _jensen_shannon(first: np.ndarray, second: np.ndarray) -> float:
    middle = (first + second) / 2
    halves = [share[share > 0] * np.log2(share[share > 0] / middle[share > 0]) for share in (first, second)]
    return max(0.0, float(sum(half.sum() for half in halves)) / 2)
