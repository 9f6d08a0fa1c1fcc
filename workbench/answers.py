"""Answers as tables: what a run said after each stage, how the readings of a rule differ, what is wrong in form.

Tables (pandas) and their columns; indices are 0-based:
    readings   run, label, after, task_index, task, reading, score
    errors     run, label, after, task_index, task, error, count, share (of the answers of that stage and task)
    letters    run, label, task_index, task, after, wrong, case, share (case of wrong)
    examples   question_id, prompt, answer, before, after, score_before, score_after, error
    history    question_id, after, text, strict, semantic, error
"""

from collections.abc import Hashable, Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd

from same.errors import InputError
from same.metrics import ERRORS
from workbench.store import Store

READINGS = ("strict", "standard", "semantic")
GRADED = "graded"
FORM = ("case", "punctuation", "number word", "option text", "extra words")
SHOWN = ("all", "lost: right when learned, wrong now", "wrong in form alone", "right now")
"""Which examples to go through."""
_READINGS = ["run", "label", "after", "task_index", "task", "reading", "score"]
_ERRORS = ["run", "label", "after", "task_index", "task", "error", "count", "share"]


def readings(store: Store, runs: Sequence[str], names: Sequence[str] = READINGS) -> pd.DataFrame:
    """The score of every task after every stage that has seen it, in several readings of its rule."""
    labels = store.overview().set_index("run")["label"]
    parts = [pd.DataFrame(columns=_READINGS)]
    for run in runs:
        for name in names:
            scores = store.scores(run, name)
            seen = scores[(scores["after"] >= 0) & (scores["task_index"] <= scores["after"])]
            parts.append(seen.assign(run=run, label=labels[run], reading=name)[_READINGS])
    return _joined(parts)


def drift_of_format(table: pd.DataFrame, strict: str = "strict", semantic: str = "semantic") -> pd.DataFrame:
    """What a task loses in form alone: its score read by meaning less its score by the letter.

    Args:
        table: as `readings` gives it, with both readings.
    """
    keys = ["run", "label", "after", "task_index", "task"]
    wide = table.pivot(index=keys, columns="reading", values="score").reset_index()
    return wide.assign(drift=wide[semantic] - wide[strict])


def errors(store: Store, runs: Sequence[str]) -> pd.DataFrame:
    """How many answers are of each class of `same.metrics.ERRORS`, by stage and task."""
    labels = store.overview().set_index("run")["label"]
    rows = []
    for run in runs:
        content = store.folder(run).scores()
        for after, counts in enumerate(content["errors"]):
            for index, found in enumerate(counts):
                total = sum((found or {}).values())
                for error, count in (found or {}).items():
                    place = (run, labels[run], after, index, content["tasks"][index])
                    rows.append((*place, error, count, count / total))
    table = pd.DataFrame(rows, columns=_ERRORS)
    return table.astype({"error": pd.CategoricalDtype(list(ERRORS), ordered=True)})


def over_tasks(table: pd.DataFrame) -> pd.DataFrame:
    """The mean share of each class over the tasks seen at a stage, each task with equal weight.

    Args:
        table: as `errors` gives it.
    """
    keys = ["run", "label", "after"]
    seen = table.groupby(keys, sort=False)["task_index"].nunique().rename("tasks").reset_index()
    total = table.groupby([*keys, "error"], sort=False, observed=True)["share"].sum().reset_index().merge(seen, on=keys)
    return total.assign(share=total["share"] / total["tasks"]).drop(columns="tasks")


def letter_case(table: pd.DataFrame) -> pd.DataFrame:
    """Of the answers that are wrong by the letter, those right but for case: a for A.

    Args:
        table: as `errors` gives it.
    """
    keys = ["run", "label", "task_index", "task", "after"]
    bad = table[~table["error"].isin(["right", GRADED])]
    wrong = bad.groupby(keys, observed=True)["count"].sum().rename("wrong")
    case = bad[bad["error"] == "case"].groupby(keys, observed=True)["count"].sum().rename("case")
    found = pd.concat([wrong, case], axis=1).fillna({"case": 0}).astype({"case": int}).reset_index()
    return found.assign(share=found["case"] / found["wrong"])


def examples(store: Store, run: str, task: str, after: int | None = None) -> pd.DataFrame:
    """A task's answers just after it was learned beside those after a later stage (the last one by default).

    Raises:
        InputError: the run has no such task, or has not come to it.
    """
    folder, tasks = store.folder(run), store.tasks(run)
    if task not in tasks:
        raise InputError(f"Unknown task {task!r} of {run}. Choices: {', '.join(tasks)}.")
    learned, last = tasks.index(task), folder.finished() - 1
    stage = last if after is None else after
    if not learned <= stage <= last:
        raise InputError(
            f"{run} must have answered {task} after stage {stage}; it was trained at {learned} and the run finished "
            f"{last + 1} tasks. Choose a stage from {learned} to {last}."
        )
    columns = ["question_id", "text", "strict", "error"]
    before = folder.read_predictions(learned, task)[["prompt", "answer", *columns]]
    later = folder.read_predictions(stage, task)[columns]
    joined = before.drop(columns="error").merge(later, on="question_id", suffixes=("_before", "_after"))
    names = {"text_before": "before", "text_after": "after"}
    names |= {"strict_before": "score_before", "strict_after": "score_after"}
    order = ["question_id", "prompt", "answer", "before", "after", "score_before", "score_after", "error"]
    return joined.rename(columns=names)[order]


def shown(table: pd.DataFrame, which: str) -> pd.DataFrame:
    """The examples of one of the kinds in `SHOWN`, numbered anew."""
    right, was = table["score_after"] >= 0.5, table["score_before"] >= 0.5
    choices = (right | ~right, was & ~right, table["error"].isin(FORM), right)
    return table[choices[SHOWN.index(which)]].reset_index(drop=True)


def written(row: Mapping[Hashable, Any]) -> str:
    """One of the examples as HTML in which what data and models say is plain text."""
    lines = {
        "question": row["prompt"],
        "reference": row["answer"],
        "answer when the task was learned": f"{row['before']}  ({row['score_before']:g} strict)",
        "answer after the stage": f"{row['after']}  ({row['score_after']:g} strict, {row['error']})",
    }
    cells = "".join(
        f"<tr><th style='text-align:right;padding-right:1em'>{escape(name)}</th>"
        f"<td style='white-space:pre-wrap'>{escape(str(value))}</td></tr>"
        for name, value in lines.items()
    )
    return f"<table>{cells}</table>"


def history(store: Store, run: str, task: str) -> pd.DataFrame:
    """A task's answers after every stage that has answered it."""
    folder, columns = store.folder(run), ["question_id", "text", "strict", "semantic", "error"]
    stages = range(store.tasks(run).index(task), folder.finished())
    parts = [folder.read_predictions(stage, task)[columns].assign(after=stage) for stage in stages]
    order = ["question_id", "after", "text", "strict", "semantic", "error"]
    return _joined([pd.DataFrame(columns=order), *parts])[order]


def _joined(parts: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    return pd.concat(filled, ignore_index=True) if filled else parts[0]
