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
RATE = "learning_rate"
SIZE = ("benchmark", "data", "tasks", "backbone", "train_items", "test_items", "validation_items")
"""Settings in which runs must agree to stand beside each other."""


def trials(
    store: Store,
    benchmark: str,
    method: str,
    names: Sequence[str],
    variant: str = VARIANTS[0],
    fixed: Mapping[str, Any] | None = None,
    beside: Sequence[str] = (),
) -> pd.DataFrame:
    """The finished runs of a method that agree in all settings but those named and the seed.

    Where several such groups of runs are there, one with a plain run is taken, then the largest, then the newest.

    Args:
        names: settings of the method or the trainer that may differ; "task_order" is one.
        variant: reading that the metrics are of.
        fixed: values that other settings must have, such as train_items.
        beside: methods that it is compared with: the plain run is of the family that has most of them.
    """
    overview = store.overview(variant)
    finished = overview[(overview["benchmark"] == benchmark) & (overview["state"] == "finished")]
    there = plain_runs(store, list(finished["run"]), [method, *beside])
    families: dict[str, list[dict[str, Any]]] = {}
    ages: dict[str, float] = {}
    for _, row in finished[finished["method"] == method].iterrows():
        folder = store.folder(row["run"])
        values = flat_settings(folder.config())
        if any(values.get(name) != value for name, value in (fixed or {}).items()):
            continue
        family = canonical({name: value for name, value in values.items() if name not in (*names, *ALWAYS_FREE)})
        kept = {name: values.get(name) for name in names}
        about = {name: row[name] for name in ("run", "tasks", *metrics.NAMES)}
        families.setdefault(family, []).append({**about, "seed": int(row["seed"]), **kept})
        ages[family] = max(ages.get(family, 0.0), folder.events_path.stat().st_mtime)

    def standing(family: str) -> tuple[bool, int, float]:
        rows = families[family]
        return any(row["run"] in there for row in rows), len(rows), ages[family]

    columns = ["run", "seed", *names, "tasks", *metrics.NAMES]
    return pd.DataFrame(families[max(families, key=standing)] if families else [], columns=columns)


def plain(store: Store, benchmark: str, methods: Sequence[str], seed: int = 0) -> list[str]:
    """The plain run of each method, all of one family: finished ones if every method has one, else begun ones.

    Of several that a method has in the family, a finished one is taken and of those the newest.

    Raises:
        InputError: no family has a plain run with a finished task of every method.
    """
    overview = store.overview()
    begun = overview[(overview["benchmark"] == benchmark) & (overview["seed"] == str(seed)) & (overview["tasks"] > 0)]
    finished = begun[begun["state"] == "finished"]
    for chosen in (finished, begun):
        found: dict[str, str] = {}
        there = plain_runs(store, list(chosen["run"]), methods)
        done = {run: run in set(finished["run"]) for run in there}
        for run in sorted(there, key=lambda run: (done[run], rows_and_age(there[run]))):
            found[there[run].config()["method"]] = run
        if found.keys() >= set(methods):
            return [found[method] for method in methods]
    raise InputError(
        f"{store.runs} must hold a plain run of {' and '.join(m for m in methods if m not in found)} on {benchmark} "
        f"with seed {seed} and a finished task, of the same size as the other methods' and with no settings of its own "
        "but those that all runs of that size have. Train it with 10_train or `same train`. Methods there: "
        f"{', '.join(dict.fromkeys(begun['method'])) or 'none'}."
    )


def plain_runs(store: Store, runs: Sequence[str], methods: Sequence[str] = ()) -> dict[str, RunFolder]:
    """Those of one benchmark's runs that may stand beside each other: the plain ones of one family.

    A family is of one size (rows, tasks, data, backbone), and a learning rate was chosen for all of it or for none.
    Methods without settings, as zero_shot, belong to every family of their size. Plain is what was given no settings
    but those that all of the family were given: the ablation's and the like were given more. The family with most of
    the methods is taken, of several the one with most plain methods and seeds, then of most rows, then the newest.
    """
    folders = {run: store.folder(run) for run in runs}
    configs = {run: folder.config() for run, folder in folders.items()}
    families: dict[tuple[str, bool], dict[str, Mapping[str, Any]]] = {}
    for run, config in configs.items():
        rates = [RATE in own_settings(config)] if _can_be_set(config) else [False, True]
        for rate in rates:
            families.setdefault((_size(config), rate), {})[run] = config

    def standing(runs: Sequence[str]) -> tuple[int, int, tuple[float, float]]:
        made = {(configs[run]["method"], configs[run]["seed"]) for run in runs}
        asked = len({method for method, _ in made}.intersection(methods))
        return asked, len(made), max((rows_and_age(folders[run]) for run in runs), default=(0.0, 0.0))

    best = max((_plain_of(family) for family in families.values()), key=standing, default=[])
    return {run: folders[run] for run in best}


def _size(config: Mapping[str, Any]) -> str:
    values = flat_settings(config)
    return canonical([values.get(name) for name in SIZE])


def _plain_of(family: Mapping[str, Mapping[str, Any]]) -> list[str]:
    given = {run: own_settings(config) for run, config in family.items() if _can_be_set(config)}
    shared = set.intersection(*given.values()) if given else set()
    return [run for run in family if given.get(run, shared) == shared]


def _can_be_set(config: Mapping[str, Any]) -> bool:
    return bool(config["settings"]["method"].keys() - {"name", "budget"})


def rows_and_age(folder: RunFolder) -> tuple[float, float]:
    """Training rows of a task (infinitely many for all), and when the run was last worked on."""
    rows = folder.config()["settings"].get("train_items") or math.inf
    return float(rows), folder.events_path.stat().st_mtime


def balanced(table: pd.DataFrame, cell: Sequence[str]) -> pd.DataFrame:
    """The rows of those seeds that every cell has, so that a difference of cells is none of seeds.

    Where no seed has all cells, those cells are left out that the seeds with most cells do not have.

    Args:
        cell: columns whose values make a cell.
    """
    cells = pd.Series(list(table[list(cell)].itertuples(index=False, name=None)), table.index, dtype=object)
    of_seed = {seed: set(cells[part.index]) for seed, part in table.groupby("seed")}
    fullest = max(of_seed.values(), key=len, default=set())
    return table[table["seed"].isin([seed for seed, found in of_seed.items() if found == fullest])]


def points(
    store: Store, benchmark: str, methods: Sequence[str], metric: str, across: str, variant: str = VARIANTS[0]
) -> pd.DataFrame:
    """A metric of each method's runs that differ in one thing alone, "seed" or a setting; none where one run is."""
    parts = []
    for method in methods:
        table = trials(store, benchmark, method, [] if across == "seed" else [across], variant, beside=methods)
        if across != "seed":
            table = balanced(table, [across])
            table = table[table["seed"] == table["seed"].min()]
        if table[across].nunique() > 1:
            about = [f"{across} {value}" for value in table[across]]
            parts.append(pd.DataFrame({"run": table["run"], "label": method, "value": table[metric], "about": about}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["run", "label", "value", "about"])


def corners(store: Store, benchmark: str, method: str, variant: str = VARIANTS[0]) -> pd.DataFrame:
    """The runs of a method with each of the three mechanisms off or at the method's own value, all else equal.

    Of seeds those that every corner has: see `balanced`.
    """
    names = [name for name, _ in SWITCHES.values()]
    table = trials(store, benchmark, method, names, variant)
    given = {run: own_settings(store.folder(run).config()) for run in table["run"]}
    for name, off in SWITCHES.values():
        on = table[table[name] != off]
        untouched = {value for run, value in zip(on["run"], on[name], strict=True) if name not in given[run]}
        table = table[table[name].isin([off, *(untouched or on[name])])]
    on = {mechanism: table[name] != off for mechanism, (name, off) in SWITCHES.items()}
    found = balanced(pd.DataFrame(on).join(table.drop(columns=names)), list(SWITCHES))
    return found.sort_values([*SWITCHES, "seed"], ignore_index=True)


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

    The runs of each setting differ in it only; one with a single value is left out. Of seeds those that every value
    has: see `balanced`.
    """
    parts = []
    for name in names:
        table = balanced(trials(store, benchmark, method, [name], variant), [name])
        if table[name].nunique() > 1:
            grouped = table.groupby(name)[metric].agg(["mean", "std", "count"]).reset_index()
            parts.append(grouped.rename(columns={name: "value", "count": "seeds"}).assign(setting=name))
    columns = ["setting", "value", "mean", "std", "seeds"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
