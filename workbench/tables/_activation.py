"""Utilisation, importance and what rests; time and memory from the runs' own record."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from workbench.formulas import Array, minmax, resting
from workbench.store import Store, layer_names
from workbench.tables._files import events, table

ACTIVATION = ["after", "step", "layer", "expert", "utilization", "importance", "score", "frozen"]
STEPS = ["run", "label", "task", "step", "position", "loss", "samples_per_second", "memory_mb", "active"]
PAPERS_THRESHOLD = 0.0
TIMES = ["run", "label", "task_index", "task", "train_seconds", "evaluate_seconds", "memory_mb"]


def activation(store: Store, run: str) -> pd.DataFrame:
    """Every score of a run's experts: at each scoring of a task, and at its end; none for most methods."""
    folder = store.folder(run)
    found = [(after, table(folder, after, "activation")) for after in range(folder.finished())]
    parts = [part.assign(after=after) for after, part in found if part is not None]
    if not parts:
        return pd.DataFrame(columns=ACTIVATION)
    whole = pd.concat(parts, ignore_index=True)
    return whole.assign(layer=whole["layer"].map(layer_names(whole["layer"])))[ACTIVATION]


def freeze_threshold_of(store: Store, run: str) -> float:
    """τ in force in a run; the paper's where its method has none."""
    given = store.folder(run).config()["settings"]["method"]
    return float(given["freeze_threshold"]) if "freeze_threshold" in given else PAPERS_THRESHOLD


def last_scored(scored: pd.DataFrame, after: int) -> pd.DataFrame:
    """The scores that a task last acted on: of its last scoring before its end, which is for the record alone."""
    rows = scored[scored["after"] == after]
    taken = sorted(rows["step"].unique())
    return rows[rows["step"] == taken[-2 if len(taken) > 1 else -1]] if taken else rows


def at_threshold(scored: pd.DataFrame, freeze_threshold: float) -> pd.DataFrame:
    """The same rows with `rests`, what τ would freeze, and what scores are the difference of.

    `relative_utilization` and `relative_importance` are 0 for a layer's least and 1 for its most. Nothing rests in the
    first task.
    """
    if scored.empty:
        return scored.assign(relative_utilization=pd.Series(dtype=float), relative_importance=0.0, rests=False)
    keys = ["after", "step", "layer"]
    grid = scored.pivot(index=keys, columns="expert", values="score")
    rests = resting(grid.to_numpy(dtype=float), freeze_threshold)
    rests &= grid.index.get_level_values("after").to_numpy()[:, None] > 0
    found = scored
    for name, values in {"rests": rests, **{f"relative_{name}": _relative(scored, name) for name in _PARTS}}.items():
        wide = pd.DataFrame(values, index=grid.index, columns=grid.columns).reset_index()
        found = found.merge(wide.melt(keys, var_name="expert", value_name=name), on=[*keys, "expert"])
    return found


_PARTS = ("utilization", "importance")


def _relative(scored: pd.DataFrame, name: str) -> Array:
    grid = scored.pivot(index=["after", "step", "layer"], columns="expert", values=name)
    return minmax(grid.to_numpy(dtype=float))


def freezing(scored: pd.DataFrame, thresholds: Sequence[float] | None = None) -> pd.DataFrame:
    """Share of experts that would rest at each τ, by task; at a task's last scoring."""
    grid = np.linspace(-1, 1, 81) if thresholds is None else thresholds
    rows = []
    for after in sorted(scored["after"].unique()):
        if after == 0:
            continue
        last = last_scored(scored, after)
        scores = last.pivot(index="layer", columns="expert", values="score").to_numpy(dtype=float)
        rows += [(after, float(tau), float(resting(scores, tau).mean())) for tau in grid]
    return pd.DataFrame(rows, columns=["after", "threshold", "share"])


def steps(store: Store, runs: Sequence[str]) -> pd.DataFrame:
    """What each recorded step said; `position` counts tasks: 2.5 is the middle of the third."""
    labels = store.overview().set_index("run")["label"]
    rows = []
    for run in runs:
        for event in events(store.folder(run), "step"):
            active = event.get("active_experts")
            row = {name: event.get(name) for name in STEPS}
            row |= {"run": run, "label": labels[run], "position": event["task"] + event["step"] / event["steps"]}
            rows.append(row | {"active": float(np.mean(active)) if active else None})
    found = pd.DataFrame(rows, columns=STEPS)
    return found.drop_duplicates(["run", "task", "step"], keep="last", ignore_index=True)


def times(store: Store, runs: Sequence[str]) -> pd.DataFrame:
    """What each finished task took, and the most memory its process held."""
    labels = store.overview().set_index("run")["label"]
    rows = []
    for run in runs:
        folder = store.folder(run)
        memory: dict[int, float] = {}
        for event in events(folder, "step"):
            memory[event["task"]] = max(memory.get(event["task"], 0.0), event.get("memory_mb", 0.0))
        for event in events(folder, "task_end"):
            if "train_seconds" in event:
                about = {"run": run, "label": labels[run], "task_index": event["task"], "task": event["key"]}
                about |= {name: event[name] for name in ("train_seconds", "evaluate_seconds")}
                rows.append(about | {"memory_mb": memory.get(event["task"])})
    found = pd.DataFrame(rows, columns=TIMES)
    return found.drop_duplicates(["run", "task_index"], keep="last", ignore_index=True)
