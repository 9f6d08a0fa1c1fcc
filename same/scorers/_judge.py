"""A task's answers in all readings: what evaluation writes and what `same score` prints."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from same import registry
from same.metrics import READINGS
from same.scorers._errors import error_class
from same.scorers._reading import Row


@dataclass(frozen=True)
class Verdict:
    """The scores of a task's answers, in the order of its rows.

    Args:
        scores: by reading, one of each answer.
        means: by reading, the task's score.
        errors: a class of `same.metrics.ERRORS` for each answer.
        flaws: what a reader of a reading's numbers must know.
    """

    scores: dict[str, list[float]]
    means: dict[str, float]
    errors: list[str]
    flaws: dict[str, str]


def judge(scorer: str, predictions: Sequence[str], rows: Sequence[Row]) -> Verdict:
    """Score a task's answers in every reading, and say what is wrong with the form of each.

    Args:
        scorer: stem of a file in `same/scorers`.
        predictions: the answers, in the order of the rows.
        rows: the task's test rows; at least one.
    """
    rule = registry.load("same.scorers", scorer)
    found = {variant: _in_reading(rule, predictions, rows, variant) for variant in READINGS}
    scores = {variant: each for variant, (each, _) in found.items()}
    graded = is_graded(scorer)
    errors = [
        "graded" if graded and text.strip() else error_class(text, row, strict, semantic, scorer == "choice")
        for text, row, strict, semantic in zip(predictions, rows, scores["strict"], scores["semantic"], strict=True)
    ]
    return Verdict(scores, {name: mean for name, (_, mean) in found.items()}, errors, dict(getattr(rule, "FLAWS", {})))


def is_graded(scorer: str) -> bool:
    """Whether a rule says how good an answer is, on a scale of its own, and not whether it is right."""
    return hasattr(registry.load("same.scorers", scorer), "score_all")


def _in_reading(
    rule: ModuleType, predictions: Sequence[str], rows: Sequence[Row], variant: str
) -> tuple[list[float], float]:
    if hasattr(rule, "score_all"):
        each, whole = rule.score_all(predictions, rows, variant)
        return list(each), float(whole)
    each = [rule.score(text, row, variant) for text, row in zip(predictions, rows, strict=True)]
    return each, sum(each) / len(each)
