"""Metrics of continual learning from a score matrix R, where R[t][i] is the score on task i after training task t.

Every function takes the lower triangle of the *finished* stages as a square array (entries above the diagonal are
ignored, usually NaN) and returns a float, or NaN where the metric is not defined yet.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
NAMES = ("last", "mean", "learning", "bwt", "bwt_over_t", "fwt", "forgetting")
FORMULAS = {
    "last": "mean over i of R[T][i]: every task's score after the last one was learned",
    "mean": "mean over t of the mean over i ≤ t of R[t][i]",
    "learning": "mean over i of R[i][i]: the score just after a task was learned",
    "bwt": "sum over i < T of (R[T][i] − R[i][i]), divided by T − 1",
    "bwt_over_t": "the same sum divided by T, as some public code does",
    "fwt": "mean over i > 1 of (R[i−1][i] − zero-shot score of i)",
    "forgetting": "mean over i < T of (max over t ≥ i of R[t][i] − R[T][i])",
}

READINGS = {
    "strict": "the benchmark's own rule in a form that sees letter case and format and rewards no wrong answer",
    "paper": "what the public code of the field does, mistakes included, for comparison with published columns (but "
    "captions without METEOR)",
    "standard": "the rule of the data set itself",
    "semantic": "looks through letter case, articles, punctuation, number words and the like",
}
"""How an answer is scored. semantic − strict is the drift of the format."""

ERRORS = {
    "right": "the strict score is at least one half",
    "case": "right but for letter case",
    "punctuation": "right but for punctuation, spaces, or the order of a box's corners",
    "number word": "right but for a number in words where digits are asked for, or the reverse",
    "option text": "the right option's text instead of its letter",
    "extra words": "the right answer among other words",
    "empty": "nothing",
    "wrong": "anything else",
    "graded": "a caption: right by degree, so none of these",
}
"""What is wrong with the form of an answer; the first that fits."""


def to_matrix(rows: Sequence[Sequence[float | None]]) -> Matrix:
    """Read the stored rows (null for what was not measured) and keep the square of finished stages."""
    finished = len(rows)
    matrix = np.full((finished, finished), np.nan)
    for t, row in enumerate(rows):
        for i, value in enumerate(row[: t + 1]):
            matrix[t, i] = np.nan if value is None else value
    return matrix


def last(matrix: Matrix) -> float:
    """Mean score over all tasks after the last one."""
    return float(np.mean(matrix[-1])) if len(matrix) else float("nan")


def mean(matrix: Matrix) -> float:
    """Mean over the stages of the mean score over the tasks seen so far."""
    return float(np.mean([np.mean(matrix[t, : t + 1]) for t in range(len(matrix))])) if len(matrix) else float("nan")


def learning(matrix: Matrix) -> float:
    """Mean score just after a task was learned."""
    return float(np.mean(np.diagonal(matrix))) if len(matrix) else float("nan")


def _lost(matrix: Matrix) -> Matrix:
    tasks = len(matrix)
    return np.asarray(matrix[-1, : tasks - 1] - np.diagonal(matrix)[: tasks - 1])


def bwt(matrix: Matrix) -> float:
    """Backward transfer, divided by T − 1; negative when old tasks lose."""
    return float(np.mean(_lost(matrix))) if len(matrix) > 1 else float("nan")


def bwt_over_t(matrix: Matrix) -> float:
    """Backward transfer with the divisor T of some public code."""
    return float(np.sum(_lost(matrix)) / len(matrix)) if len(matrix) > 1 else float("nan")


def forgetting(matrix: Matrix) -> float:
    """Mean drop from a task's best score to its last one."""
    tasks = len(matrix)
    if tasks < 2:
        return float("nan")
    best = np.array([np.max(matrix[i:, i]) for i in range(tasks - 1)])
    return float(np.mean(best - matrix[-1, : tasks - 1]))


def fwt(forward: Sequence[float | None], zero_shot: Sequence[float | None]) -> float:
    """Forward transfer: how much the stage before a task already changed its score.

    Args:
        forward: R[i−1][i] for each task i (the first entry, and entries not measured, are None).
        zero_shot: the score of each task with the untouched base model.
    """
    gains = [a - b for a, b in zip(forward, zero_shot, strict=False) if a is not None and b is not None]
    return float(np.mean(gains)) if gains else float("nan")


def over_tasks(matrix: Matrix, tasks: Sequence[int]) -> dict[str, float]:
    """``last``, ``learning`` and ``bwt`` over some of the tasks alone: those whose scores are on one scale.

    Args:
        tasks: their indices, at least one; bwt is NaN for the last task alone.
    """
    kept = np.asarray(tasks)
    final, learned = matrix[-1, kept], np.diagonal(matrix)[kept]
    lost = (final - learned)[kept < len(matrix) - 1]
    return {
        "last": float(final.mean()),
        "learning": float(learned.mean()),
        "bwt": float(lost.mean()) if len(lost) else float("nan"),
    }


def summarise(scores: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Compute every metric for every scorer variant of a stored ``scores.json``.

    Returns:
        ``{metric: {variant: value}}``; None where a metric is not defined (for example forgetting after one task).
    """
    table: dict[str, dict[str, float | None]] = {name: {} for name in NAMES}
    for variant, rows in scores["variants"].items():
        matrix = to_matrix(rows)
        values = {
            "last": last(matrix),
            "mean": mean(matrix),
            "learning": learning(matrix),
            "bwt": bwt(matrix),
            "bwt_over_t": bwt_over_t(matrix),
            "fwt": fwt(scores["forward"][variant] or [], scores["zero_shot"][variant] or []),
            "forgetting": forgetting(matrix),
        }
        for name, value in values.items():
            table[name][variant] = None if np.isnan(value) else value
    return table


def count_errors(classes: Iterable[str]) -> dict[str, int]:
    """How often each class of `ERRORS` is there, in that order, without those that are not."""
    found = Counter(classes)
    return {name: found[name] for name in ERRORS if found[name]}


def left_out(settings: Mapping[str, Any]) -> str:
    """Say how many rows a run was trained and tested without, as their pictures were missing; "" where none."""
    found: Mapping[str, Mapping[str, int]] = settings.get("left_out", {})
    tasks = [f"{key} {' and '.join(f'{n} {split}' for split, n in counts.items())}" for key, counts in found.items()]
    return f"Left out for missing pictures: {', '.join(tasks)} rows." if tasks else ""
