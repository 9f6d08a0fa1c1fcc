"""Runs that differ in a few settings only, as tables: the factorial of the mechanisms, sensitivity, orders, seeds.

Tables (pandas) and their columns:
    trials     run, seed, one column a setting asked for, tasks, one column a metric
    corners    routing, curvature, activation (bool), run, seed, the metrics
    effects    effect, order (1 main, 2 and 3 interactions), value
    steps      step, value: the mechanisms added one after the other
    points     run, label (the method), value, about
    varied     setting, value, mean, std, seeds
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from same import metrics
from same.errors import InputError
from same.runs import RunFolder
from same.sealed import canonical
from workbench.labels import flat_settings, own_settings
from workbench.store import VARIANTS, Store

SWITCHES: dict[str, tuple[str, Any]] = {
    "routing": ("gain", "none"),
    "curvature": ("curvature_on", "none"),
    "activation": ("freeze_threshold", -1.0),
}
"""The setting of `same` and `same_plus` that each mechanism has, and the value under which it does nothing."""
ALWAYS_FREE = ("seed",)


def trials(
    store: Store,
    benchmark: str,
    method: str,
    names: Sequence[str],
    variant: str = VARIANTS[0],
    fixed: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """The finished runs of a method that agree in all settings but those named and the seed.

    Where several such families of runs are there, the largest is taken, and of equal ones the newest.

    Args:
        names: settings of the method or the trainer that may differ; "task_order" is one.
        variant: reading that the metrics are of.
        fixed: values that other settings must have, such as train_items.
    """
    overview = store.overview(variant)
    chosen = overview[(overview["benchmark"] == benchmark) & (overview["method"] == method)]
    families: dict[str, list[dict[str, Any]]] = {}
    ages: dict[str, float] = {}
    for _, row in chosen[chosen["state"] == "finished"].iterrows():
        folder = store.folder(row["run"])
        values = flat_settings(folder.config())
        if any(values.get(name) != value for name, value in (fixed or {}).items()):
            continue
        family = canonical({name: value for name, value in values.items() if name not in (*names, *ALWAYS_FREE)})
        kept = {name: values.get(name) for name in names}
        about = {name: row[name] for name in ("run", "tasks", *metrics.NAMES)}
        families.setdefault(family, []).append({**about, "seed": int(row["seed"]), **kept})
        ages[family] = max(ages.get(family, 0.0), folder.events_path.stat().st_mtime)
    best = max(families, key=lambda family: (len(families[family]), ages[family]), default=None)
    columns = ["run", "seed", *names, "tasks", *metrics.NAMES]
    return pd.DataFrame(families[best] if best is not None else [], columns=columns)


def plain(store: Store, benchmark: str, methods: Sequence[str], seed: int = 0) -> list[str]:
    """The plain run of each method: of several the one of the most training rows, then the newest.

    Raises:
        InputError: a method has no plain run with a finished task.
    """
    overview = store.overview()
    chosen = overview[(overview["benchmark"] == benchmark) & (overview["seed"] == str(seed)) & (overview["tasks"] > 0)]
    there = plain_runs(store, list(chosen["run"]))
    found = []
    for method in methods:
        runs = [name for name, run in there.items() if run.config()["method"] == method]
        if not runs:
            raise InputError(
                f"{store.runs} must hold a plain run of {method} on {benchmark} with seed {seed} and a finished task: "
                "one with no more settings of its own than the others there. Train it with 10_train or `same train`. "
                f"Methods there: {', '.join(dict.fromkeys(chosen['method'])) or 'none'}."
            )
        found.append(max(runs, key=lambda run: rows_and_age(there[run])))
    return found


def plain_runs(store: Store, runs: Sequence[str]) -> dict[str, RunFolder]:
    """Those of one benchmark's runs that were given fewest settings: the ablation's and the like were given more.

    Methods that have no settings, as zero_shot, are no measure for the others, which may all have been given the
    learning rate chosen for them.
    """
    folders = {run: store.folder(run) for run in runs}
    configs = {run: folder.config() for run, folder in folders.items()}
    counts = {run: (_can_be_set(config), own_settings(config)) for run, config in configs.items()}
    fewest = {kind: min(count for other, count in counts.values() if other == kind) for kind, _ in counts.values()}
    return {run: folders[run] for run, (kind, count) in counts.items() if count == fewest[kind]}


def _can_be_set(config: Mapping[str, Any]) -> bool:
    return bool(config["settings"]["method"].keys() - {"name", "budget"})


def rows_and_age(folder: RunFolder) -> tuple[float, float]:
    """Training rows of a task (infinitely many for all), and when the run was last worked on."""
    rows = folder.config()["settings"].get("train_items") or math.inf
    return float(rows), folder.events_path.stat().st_mtime


def points(
    store: Store, benchmark: str, methods: Sequence[str], metric: str, across: str, variant: str = VARIANTS[0]
) -> pd.DataFrame:
    """A metric of each method's runs that differ in one thing alone, "seed" or a setting; none where one run is."""
    parts = []
    for method in methods:
        table = trials(store, benchmark, method, [] if across == "seed" else [across], variant)
        if across != "seed":
            table = table[table["seed"] == table["seed"].min()]
        if table[across].nunique() > 1:
            about = [f"{across} {value}" for value in table[across]]
            parts.append(pd.DataFrame({"run": table["run"], "label": method, "value": table[metric], "about": about}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["run", "label", "value", "about"])


def corners(store: Store, benchmark: str, method: str, variant: str = VARIANTS[0]) -> pd.DataFrame:
    """The runs of a method with each of the three mechanisms on or off, all else equal."""
    names = [name for name, _ in SWITCHES.values()]
    table = trials(store, benchmark, method, names, variant)
    on = {mechanism: table[name] != off for mechanism, (name, off) in SWITCHES.items()}
    return pd.DataFrame(on).join(table.drop(columns=names))


def missing_corners(table: pd.DataFrame) -> list[str]:
    """The combinations of mechanisms that no run of a corners table has, in words."""
    there = set(table[list(SWITCHES)].itertuples(index=False, name=None))
    return [_named(corner) for corner in itertools.product([False, True], repeat=len(SWITCHES)) if corner not in there]


def _named(corner: Sequence[bool]) -> str:
    return " + ".join(name for name, on in zip(SWITCHES, corner, strict=True) if on) or "none"


def cells(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean, standard deviation over seeds (NaN for one) and number of seeds of each corner that is there."""
    grouped = table.groupby(list(SWITCHES))[metric].agg(["mean", "std", "count"]).reset_index()
    return grouped.assign(corner=[_named(row) for row in grouped[list(SWITCHES)].itertuples(index=False, name=None)])


def effects(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Main effects and interactions of the full 2³ factorial.

    The effect of a set of mechanisms is 2/8 · Σ over corners of ± the corner's mean, + where an even number of the set
    is off: for one mechanism the mean of the corners with it less the mean of those without; for two, half the
    difference that one makes to the effect of the other. A corner is the mean of all corners plus half the sum of the
    effects, each with the corner's sign.

    Returns:
        Columns effect, order, value; empty where a corner is missing.
    """
    means = {tuple(row[:3]): row[3] for row in table.groupby(list(SWITCHES))[metric].mean().reset_index().to_numpy()}
    rows = []
    for order in range(1, len(SWITCHES) + 1) if len(means) == 2 ** len(SWITCHES) else ():
        for chosen in itertools.combinations(range(len(SWITCHES)), order):
            signed = (
                value * math.prod(1 if corner[place] else -1 for place in chosen) for corner, value in means.items()
            )
            name = " × ".join(list(SWITCHES)[place] for place in chosen)
            rows.append((name, order, float(sum(signed)) * 2 / len(means)))
    return pd.DataFrame(rows, columns=["effect", "order", "value"])


def cumulative(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The column of the paper's ablation: nothing, then each mechanism added to those before it."""
    means = table.groupby(list(SWITCHES))[metric].mean()
    rows = []
    for count in range(len(SWITCHES) + 1):
        corner = tuple(place < count for place in range(len(SWITCHES)))
        step = f"+ {list(SWITCHES)[count - 1]}" if count else "none"
        rows.append((step, float(means.get(corner, math.nan))))
    return pd.DataFrame(rows, columns=["step", "value"])


def varied(
    store: Store, benchmark: str, method: str, names: Sequence[str], metric: str, variant: str = VARIANTS[0]
) -> pd.DataFrame:
    """How a metric moves with each setting alone: columns setting, value, mean, std, seeds.

    The runs of each setting differ in it only; one with a single value is left out.
    """
    parts = []
    for name in names:
        table = trials(store, benchmark, method, [name], variant)
        if table[name].nunique() > 1:
            grouped = table.groupby(name)[metric].agg(["mean", "std", "count"]).reset_index()
            parts.append(grouped.rename(columns={name: "value", "count": "seeds"}).assign(setting=name))
    columns = ["setting", "value", "mean", "std", "seeds"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
