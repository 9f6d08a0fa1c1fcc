"""Results as tables: the runs at hand and those kept with the project over seeds, and the published numbers.

Tables (pandas) and their columns:
    ours        source (runs or kept), method, title, seed, task_index, task, score; task_index -1 is the mean of tasks
    summary     method, seeds, one column a task and `mean`, as "0.30 ± 0.02"
    published   method, task, score (percent), source; task `mean` as printed there

A published number is of a 7B model on the real benchmark, ours of what was trained here: other protocols, never one
table's column.
"""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from same.runs import RunFolder
from same.sealed import read_json
from workbench.plan import ROOT
from workbench.store import VARIANTS, Store
from workbench.trials import plain_runs, rows_and_age

SCHEMA = 1
MEAN = "mean"
REMEDY = "Delete it and run `same sweep` again."
_OURS = ["source", "method", "seed", "task_index", "task", "score"]


def manifests() -> Path:
    """The folder of manifests, results and published numbers, in a checkout and in an installed wheel."""
    places = (ROOT / "data_manifests", ROOT / "same" / "data_manifests")
    return next(place for place in places if place.is_dir())


def ours(
    store: Store, benchmark: str, methods: Sequence[str] = (), variant: str = VARIANTS[0], kept: Path | None = None
) -> pd.DataFrame:
    """Final scores of plain runs: those of the runs folder, and where a method has none there, those kept.

    Those of the folder are of one family, as `plain_runs` chooses it; those kept may be of another size.

    Args:
        methods: which; none for all that there are.
        variant: reading of the rules.
        kept: folder of results files; by default the project's.
    """
    rows = [row for run in _plain(store, benchmark, methods) for row in _rows("runs", run, variant)]
    there = {row[1] for row in rows}
    for about in _kept(kept or manifests() / "results", benchmark):
        if about["method"] not in there and not about["tag"]:
            rows += _rows("kept", about, variant)
    table = pd.DataFrame(rows, columns=_OURS)
    return table[table["method"].isin(methods)] if methods else table


def _plain(store: Store, benchmark: str, methods: Sequence[str]) -> list[dict[str, Any]]:
    """What finished plain runs of one family found, the newest of each method and seed."""
    overview = store.overview()
    chosen = overview[(overview["benchmark"] == benchmark) & (overview["state"] == "finished")]
    best: dict[tuple[str, int], RunFolder] = {}
    for folder in sorted(plain_runs(store, list(chosen["run"]), methods).values(), key=rows_and_age):
        config = folder.config()
        best[config["method"], config["seed"]] = folder
    return [{"method": method, "seed": seed, "scores": run.scores()} for (method, seed), run in best.items()]


def _kept(folder: Path, benchmark: str) -> list[dict[str, Any]]:
    files = sorted((folder / benchmark).glob("*-*.json"))
    return [read_json(file, REMEDY, SCHEMA) for file in files]


def _rows(source: str, about: Mapping[str, Any], variant: str) -> list[tuple[Any, ...]]:
    last = about["scores"]["variants"][variant][-1]
    tasks = about["scores"]["tasks"]
    start = (source, about["method"], about["seed"])
    scores = [(*start, index, task, score) for index, (task, score) in enumerate(zip(tasks, last, strict=True))]
    return [*scores, (*start, -1, MEAN, sum(last) / len(last))]


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean ± standard deviation over seeds of each method on each task, in percent; no ± where there is one seed."""
    if table.empty:
        return pd.DataFrame(columns=["method", "seeds", MEAN])
    order = table[table["task"] != MEAN].sort_values("task_index")["task"].drop_duplicates().tolist()
    cells = table.groupby(["method", "task"], sort=False)["score"].agg(["mean", "std", "count"])
    texts = pd.Series([_text(*row) for row in cells.itertuples(index=False)], index=cells.index)
    wide = texts.unstack("task")[[*order, MEAN]]
    ranking = table[table["task"] == MEAN].groupby("method")["score"].mean().sort_values()
    wide.insert(0, "seeds", table.groupby("method")["seed"].nunique())
    return wide.loc[list(ranking.index)].reset_index().rename_axis(columns=None)


def _text(mean: float, deviation: float, count: int) -> str:
    return f"{100 * mean:.1f} ± {100 * deviation:.1f}" if count > 1 else f"{100 * mean:.1f}"


def published(benchmark: str) -> pd.DataFrame:
    """What papers print for the benchmark that an embedded one is drawn after (either name): percent, LLaVA-1.5-7B."""
    file = manifests() / "published" / f"{benchmark.removeprefix('mini-')}.yaml"
    columns = ["method", "task", "score", "source"]
    if not file.is_file():
        return pd.DataFrame(columns=columns)
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    names = [*content["columns"][:-1], MEAN]
    about = " ".join(content[key] for key in ("source", "notes") if key in content)
    values = [(method, row) for method, row in content["rows"].items()]
    rows = [(method, task, score, about) for method, row in values for task, score in zip(names, row, strict=True)]
    return pd.DataFrame(rows, columns=columns)


def published_ablation() -> pd.DataFrame:
    """The paper's cumulative ablation: columns step, value (percent), source."""
    about = json.loads((manifests() / "published" / "ablation.json").read_text(encoding="utf-8"))
    return pd.DataFrame(about["steps"].items(), columns=["step", "value"]).assign(source=about["source"])


def beside(ours: pd.DataFrame, published: pd.DataFrame) -> pd.DataFrame:
    """Method by method our mean (percent, over seeds) and the published one, in two columns of two protocols."""
    here = ours[ours["task"] == MEAN].groupby("method")["score"].agg(["mean", "std", "count"])
    there = published[published["task"] == MEAN].set_index("method")["score"]
    table = pd.DataFrame({"ours": 100 * here["mean"], "deviation": 100 * here["std"], "seeds": here["count"]})
    joined = table.join(there.rename("published"), how="outer")
    return joined.sort_values("published", na_position="first").rename_axis("method").reset_index()


def agreement(beside: pd.DataFrame) -> tuple[int, float]:
    """Methods that have both numbers, and Spearman's correlation of their ranks (NaN for fewer than three)."""
    both = beside.dropna(subset=["ours", "published"])
    ranks = both[["ours", "published"]].rank()
    return len(both), float(ranks["ours"].corr(ranks["published"])) if len(both) > 2 else float("nan")


def wide(published: pd.DataFrame) -> pd.DataFrame:
    """Published numbers as they are printed: a row a method, a column a task and the mean."""
    tasks = list(dict.fromkeys(published["task"]))
    table = published.pivot(index="method", columns="task", values="score").reindex(columns=tasks)
    return table.loc[list(dict.fromkeys(published["method"]))].reset_index().rename_axis(columns=None)


def html(table: pd.DataFrame, caption: str, note: str = "") -> str:
    """A table for the page, with what it is of above it and a note below."""
    written = table.to_html(index=False, border=0, na_rep="", float_format="{:.2f}".format) if len(table) else ""
    return f"<p><b>{escape(caption)}</b></p>{written}<p>{escape(note)}</p>"
