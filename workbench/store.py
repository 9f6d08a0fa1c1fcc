"""Run folders as tables: the only disk access of the dashboard, and what notebooks draw from.

Tables (pandas) and their columns; indices are 0-based:
    overview   run, label, benchmark, method, seed, fingerprint, state, tasks, one column a metric, left_out, problem
    scores     after (-1: before any training), task_index, task, score
    metrics    run, label, metric, value
    routing    run, label, after, layer (a short name), expert, weight
    overlap    run, label, after, layer, overlap, divergence
    reroutings the scores of one reading, and id, task, router, experts, … of each result of `same reroute`

What was read is kept as long as its files stay the same ones (path, time of change, size), and shared by every session:
tables are not to be written into.
"""

import json
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from same import metrics
from same.errors import InputError, SnapshotError
from same.registry import choose
from same.runs import RunFolder, runs_in
from workbench.labels import Named, flat_settings, labels, own_settings

VARIANTS = tuple(metrics.READINGS)
STATES = {"done": "finished", "interrupted": "interrupted", "failed": "failed"}
MEAN_LAYER = "mean over layers"
_TAIL = 1 << 16
_REROUTED = ["id", "task", "router", "experts", "retrained_steps", "learning_rate", "items", "seed", "layer", "weights"]
_REROUTED += ["created", "seconds"]
_ROUTING = ["run", "label", "after", "layer", "expert", "weight"]
_OVERLAP = ["run", "label", "after", "layer", "overlap", "divergence"]


@dataclass(frozen=True)
class Drift:
    """Routing of one task's test inputs, the drift of it, and a key that changes when any file behind them does."""

    key: Hashable
    routing: pd.DataFrame
    overlap: pd.DataFrame


class Store:
    """Every run below one folder; a run that a symbolic link puts there from elsewhere is none."""

    def __init__(self, runs: str | Path):
        self.runs = Path(runs)
        if not self.runs.is_dir():
            found = "is no folder" if self.runs.exists() else "does not exist"
            raise InputError(f"The runs folder must exist; {self.runs} {found}. Train first, or give --runs.")
        self._root = self.runs.resolve()
        self._seen: dict[str, RunFolder] = {}

    def _known(self) -> dict[str, RunFolder]:
        found = {run.path.relative_to(self.runs).as_posix(): run for run in runs_in(self.runs)}
        self._seen = {name: run for name, run in found.items() if self._inside(run)}
        return self._seen

    def _inside(self, run: RunFolder) -> bool:
        return run.path.resolve().is_relative_to(self._root)

    def overview(self, variant: str = VARIANTS[0]) -> pd.DataFrame:
        """One row a run, damaged ones too, with what is wrong with them."""
        files = ("config.json", "events.jsonl", "scores.json")
        known = self._known().items()
        return _overview(
            tuple((name, run.path, run.finished(), _identity(run.path, *files)) for name, run in known), variant
        )

    def folder(self, run: str) -> RunFolder:
        """The run of that name; names are only ever looked up, never joined into a path."""
        seen = self._seen.get(run)  # to look through the whole folder takes longer than to draw
        if seen is not None and (seen.path / "config.json").exists() and self._inside(seen):
            return seen
        known = self._known()
        if run not in known:
            raise InputError(f"Unknown run {run!r} in {self.runs}. Choices: {', '.join(known) or 'none'}.")
        return known[run]

    def key(self, runs: Iterable[str], *names: str) -> Hashable:
        """What changes when one of the files of that name of one of the runs does."""
        return str(self._root), tuple((run, _identity(self.folder(run).path, *names)) for run in runs)

    def name(self, path: str | Path) -> str:
        """The name of a run from its folder."""
        return Path(path).resolve().relative_to(self.runs.resolve()).as_posix()

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
        return self.drift(runs, probe).routing

    def drift(self, runs: Sequence[str], probe: int = 0) -> Drift:
        """The routing of one task's test inputs and its overlap with the first stage that has seen it."""
        labels = self.overview().set_index("run")["label"]
        chosen = []
        for run in runs:
            folder = self.folder(run)
            stages = range(probe, folder.finished())
            chosen.append((run, labels[run], folder.path, tuple((after, _seal(folder, after)) for after in stages)))
        return _drift(tuple(chosen), probe)

    def layers(self, run: str) -> dict[str, str]:
        """Names of the layers with experts by their short ones; none for a method without experts."""
        folder = self.folder(run)
        table = _read_routing(folder.path, 0, _seal(folder, 0))
        return {short: name for name, short in layer_names(table["layer"]).items()}

    def experts(self, run: str) -> int:
        """How many experts a layer of the run has."""
        folder = self.folder(run)
        table = _read_routing(folder.path, 0, _seal(folder, 0))
        return int(table["expert"].max()) + 1 if len(table) else 0

    def items(self, run: str, task: str) -> int:
        """How many test items of a task the run answered; 0 while none is."""
        folder = self.folder(run)
        index = self.tasks(run).index(task)
        return len(folder.read_predictions(index, task)) if folder.predictions(index).exists else 0

    def reroutings(self, run: str, variant: str = VARIANTS[0]) -> tuple[pd.DataFrame, list[str]]:
        """What `same reroute` found on a run, the oldest first, and what is wrong with results that cannot be read."""
        folder, rows, damage = self.folder(run), [], []
        for key in folder.reroutings():
            try:
                found = _read_rerouting(folder.path, key, _identity(folder.path, f"reroute/{key}.json"))
                rows.append({name: found[name] for name in _REROUTED} | {"score": found["scores"][variant]})
            except SnapshotError as error:
                damage.append(str(error))
            except (KeyError, TypeError):
                damage.append(f"{folder.rerouting(key)} lacks what a result holds. Delete it and reroute again.")
        return pd.DataFrame(rows, columns=[*_REROUTED, "score"]), damage

    def rerouting(self, run: str, key: str) -> dict[str, Any]:
        """One result of `same reroute` with its curve."""
        folder = self.folder(run)
        choose("result", key, folder.reroutings())
        return _read_rerouting(folder.path, key, _identity(folder.path, f"reroute/{key}.json"))

    def rerouted_answers(self, run: str, key: str) -> pd.DataFrame:
        """The answers of one result, beside those of the run itself after the experts' version."""
        folder, found = self.folder(run), self.rerouting(run, key)
        answers = folder.rerouted_answers(key).table("answers")
        own = folder.read_predictions(int(found["experts"]), str(found["task"]))
        before = own.set_index("question_id")["text"]
        return answers.assign(before=answers["question_id"].map(before))


def _identity(folder: Path, *names: str) -> Hashable:
    """What changes when one of the files does."""
    found: list[Hashable] = []
    for name in names:
        try:
            seen = (folder / name).stat()
        except OSError:
            found.append(None)
        else:
            found.append((seen.st_mtime_ns, seen.st_size))
    return tuple(found)


@lru_cache(maxsize=16)
def _overview(runs: tuple[tuple[str, Path, int, Hashable], ...], variant: str) -> pd.DataFrame:
    rows = [_row(name, path, variant, finished, files) for name, path, finished, files in runs]
    columns = ["run", "benchmark", "method", "seed", "fingerprint", "state", "tasks", *metrics.NAMES]
    columns += ["left_out", "problem"]
    table = pd.DataFrame(rows, columns=columns)
    about = ("benchmark", "method", "seed", "fingerprint", "settings", "given")
    table.insert(1, "label", labels([Named(**{name: row[name] for name in about}) for row in rows]))
    return table


@lru_cache(maxsize=4096)
def _row(name: str, path: Path, variant: str, finished: int, _files: Hashable) -> dict[str, Any]:
    run = RunFolder(path)
    benchmark, method, folder = name.split("/")
    seed, _, fingerprint = folder.partition("-")
    row: dict[str, Any] = {"run": name, "benchmark": benchmark, "method": method, "seed": seed}
    row |= {"fingerprint": fingerprint, "tasks": 0, "left_out": "", "problem": "", "settings": {}, "given": 0}
    try:
        config = run.config()
        row["left_out"] = metrics.left_out(config["settings"])
        row["state"] = STATES.get(_last_kind(run), "unfinished")
        row["tasks"] = finished
        if (run.path / "scores.json").exists():
            summary = metrics.summarise(run.scores())
            row |= {metric: summary[metric].get(variant) for metric in metrics.NAMES}
        row |= {"settings": flat_settings(config), "given": len(own_settings(config))}
    except SnapshotError as error:
        row |= {"state": "damaged", "problem": str(error)}
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        problem = f"{path} does not hold what a run must ({type(error).__name__}: {error}). Move it out of the folder."
        row |= {"state": "damaged", "problem": problem}
    return row


def _last_kind(run: RunFolder) -> str:
    """The kind of the last whole event; of a long record only the end is read."""
    if not run.events_path.exists():
        return ""
    with run.events_path.open("rb") as stream:
        stream.seek(max(0, run.events_path.stat().st_size - _TAIL))
        lines = stream.read().split(b"\n")[:-1]
    if not lines:
        return ""
    try:
        return str(json.loads(lines[-1])["kind"])
    except (ValueError, LookupError, TypeError):
        raise SnapshotError(
            f"The last line of {run.events_path} is damaged. Delete it; nothing depends on it."
        ) from None


def _seal(folder: RunFolder, after: int) -> Hashable:
    return _identity(folder.snapshot(after).path, "manifest.json")


@lru_cache(maxsize=32)
def _drift(runs: tuple[tuple[str, str, Path, tuple[tuple[int, Hashable], ...]], ...], probe: int) -> Drift:
    parts = []
    for run, label, path, stages in runs:
        for after, seal in stages:
            table = _read_routing(path, after, seal)
            table = table[table["probe_index"] == probe]
            parts.append(table.assign(run=run, label=label, after=after)[_ROUTING])
    filled = [part for part in parts if len(part)]
    routing = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=_ROUTING)
    routing = routing.assign(layer=routing["layer"].map(layer_names(routing["layer"])))
    if filled:
        routing = routing.astype(dict.fromkeys(["run", "label", "layer"], "category"))
    return Drift((runs, probe), routing, overlap(routing))


@lru_cache(maxsize=256)
def _read_routing(path: Path, after: int, _files: Hashable) -> pd.DataFrame:
    """Read once as long as the snapshot's manifest stays the same file."""
    snapshot = RunFolder(path).snapshot(after)
    if not snapshot.exists or not snapshot.has("routing.parquet"):
        return pd.DataFrame(columns=["probe_index", "layer", "expert", "weight"])
    return snapshot.table("routing")[["probe_index", "layer", "expert", "weight"]]


@lru_cache(maxsize=4096)
def _read_rerouting(path: Path, key: str, _files: Hashable) -> dict[str, Any]:
    return RunFolder(path).read_rerouting(key)


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
    return (
        table.drop(columns="layer")
        .groupby(keys, sort=False, as_index=False, observed=True)
        .mean()
        .assign(layer=MEAN_LAYER)
    )


def overlap(routing: pd.DataFrame) -> pd.DataFrame:
    """Compare each stage's routing with the first one recorded, per run and layer.

    overlap = Σ_i min(p_i, q_i) in [0, 1]; divergence = Jensen–Shannon divergence in bits, in [0, 1].
    """
    parts = [pd.DataFrame(columns=_OVERLAP)]
    for (run, label), part in routing.groupby(["run", "label"], sort=False, observed=True):
        wide = part.pivot(index=["layer", "after"], columns="expert", values="weight").sort_index()
        wide = wide.reindex(list(dict.fromkeys(part["layer"])), level="layer")
        shares = wide.to_numpy(dtype=float)
        shares = shares / shares.sum(axis=1, keepdims=True)
        keys = wide.index.to_frame(index=False)
        first = shares[(~keys["layer"].duplicated()).to_numpy().nonzero()[0]]
        first = first[pd.factorize(keys["layer"])[0]]
        both, apart = np.minimum(first, shares).sum(axis=1), _jensen_shannon(first, shares)
        parts.append(keys.assign(run=str(run), label=str(label), overlap=both, divergence=apart)[_OVERLAP])
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]


def _jensen_shannon(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Row by row, in bits."""
    middle = (first + second) / 2
    halves = [
        np.where(share > 0, share * np.log2(np.where(share > 0, share / middle, 1)), 0) for share in (first, second)
    ]
    return np.maximum(0.0, sum(half.sum(axis=1) for half in halves) / 2)
