"""Results as tables: the runs at hand and those kept with the project over seeds, and the published numbers.

Tables (pandas) and their columns:
    ours        source (runs or kept), method, seed, backbone, train_items, task_index, task, unit, score
                task_index -1 is the mean of tasks, without captions where a benchmark has others, too; a score whose
                unit is % is a share
    summary     method, seeds, source, rows, one column a task and `mean`, as "30.0 ± 2.0"
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

from same.metrics import over_tasks, to_matrix
from same.runs import RunFolder
from same.scorers._judge import is_graded
from same.sealed import read_json
from workbench.plan import ROOT
from workbench.store import VARIANTS, Store
from workbench.trials import plain_runs, rows_and_age

SCHEMA = 1
MEAN = "mean"
REMEDY = "Delete it and run `same sweep` again."
PERCENT = "%"
CAPTIONS = {"paper": "BLEU, ROUGE-L, CIDEr-D"}
"""What captions are measured by, by reading; CIDEr-D where none is named."""
_OURS = ["source", "method", "seed", "backbone", "train_items", "task_index", "task", "unit", "score"]


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
    return [{**run.config(), "scores": run.scores()} for run in best.values()]


def _kept(folder: Path, benchmark: str) -> list[dict[str, Any]]:
    files = sorted((folder / benchmark).glob("*-*.json"))
    return [read_json(file, REMEDY, SCHEMA) for file in files]


def _rows(source: str, about: Mapping[str, Any], variant: str) -> list[tuple[Any, ...]]:
    settings, scores = about["settings"], about["scores"]
    last = scores["variants"][variant][-1]
    units = [_unit(task["scorer"], variant) for task in settings["tasks"]]
    shares = [index for index, unit in enumerate(units) if unit == PERCENT]
    judged = shares or list(range(len(units)))
    start = (source, about["method"], about["seed"], settings["backbone"]["name"], settings["train_items"])
    rows = zip(range(len(units)), scores["tasks"], units, last, strict=True)
    mean = over_tasks(to_matrix(scores["variants"][variant]), judged)["last"]
    return [*((*start, *row) for row in rows), (*start, -1, MEAN, units[judged[0]], mean)]


def _unit(scorer: str, variant: str) -> str:
    return CAPTIONS.get(variant, "CIDEr-D") if is_graded(scorer) else PERCENT


def protocol(ours: pd.DataFrame) -> tuple[str, str]:
    """What a figure of an `ours` table must say: the backbones of the runs, and what their means are over."""
    return ", ".join(ours["backbone"].unique()), "tasks without captions" if len(_captions(ours)) else "tasks"


def _captions(ours: pd.DataFrame) -> pd.Series:
    """Tasks that the means leave out, as their scores are no shares of right answers."""
    means = ours.loc[ours["task"] == MEAN, "unit"]
    return ours.loc[~ours["unit"].isin(means), "task"].drop_duplicates()


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean ± standard deviation over seeds of each method on each task, the best first; no ± where there is one seed.

    In percent, but captions in their own unit, which their column names; then `mean` is without them and says so.
    """
    if table.empty:
        return pd.DataFrame(columns=["method", MEAN, "seeds"])
    order = table[table["task"] != MEAN].sort_values("task_index")["task"].drop_duplicates().tolist()
    cells = table.groupby(["method", "task", "unit"], sort=False)["score"].agg(["mean", "std", "count"])
    texts = pd.Series([_text(*row) for row in cells.reset_index("unit").itertuples(index=False)], index=cells.index)
    wide = texts.droplevel("unit").unstack("task")[[MEAN, *order]]
    methods = table.groupby("method")
    wide["seeds"] = methods["seed"].nunique()
    wide["source"] = methods["source"].first()
    wide["rows"] = methods["train_items"].agg(_rows_of)
    units = table.drop_duplicates("task").set_index("task")["unit"]
    names = {task: f"{task} ({unit})" for task, unit in units.items() if unit != PERCENT}
    if len(_captions(table)):
        names[MEAN] = "mean without captions"
    ranking = table[table["task"] == MEAN].groupby("method")["score"].mean().sort_values(ascending=False)
    return wide.loc[list(ranking.index)].rename(columns=names).reset_index().rename_axis(columns=None)


def _rows_of(items: pd.Series) -> str:
    return ", ".join("all" if pd.isna(count) else str(int(count)) for count in items.unique())


def _text(unit: str, mean: float, deviation: float, count: int) -> str:
    factor, digits = (100, 1) if unit == PERCENT else (1, 2)
    text = f"{factor * mean:.{digits}f}"
    return f"{text} ± {factor * deviation:.{digits}f}" if count > 1 else text


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
    """Method by method our mean (percent, over seeds) and the published one, in two columns of two protocols.

    Where our means are without captions the published ones are taken without them too, from what is printed by task.
    """
    means = ours[(ours["task"] == MEAN) & (ours["unit"] == PERCENT)]
    here = means.groupby("method")["score"].agg(["mean", "std", "count"])
    left_out = set(_captions(ours))
    of_tasks = published[(published["task"] != MEAN) & ~published["task"].map(_key).isin(left_out)]
    chosen = of_tasks if left_out else published[published["task"] == MEAN]
    there = chosen.groupby("method")["score"].mean()
    table = pd.DataFrame({"ours": 100 * here["mean"], "deviation": 100 * here["std"], "seeds": here["count"]})
    joined = table.join(there.rename("published"), how="outer")
    return joined.sort_values("published", na_position="first").rename_axis("method").reset_index()


def _key(printed: str) -> str:
    """The key that the manifests give a task of this printed name."""
    return printed.lower().replace("-", "_")


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
