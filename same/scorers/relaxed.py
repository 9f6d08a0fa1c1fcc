"""Values read off charts (ChartQA): numbers may be 5 % off.

`strict` and `standard` are relaxed accuracy, `semantic` the same of the normal forms (commas, currency signs, number
words). `paper` is equality in upper case.

Source: Masry et al., "ChartQA", 2022: a number within 5 % of the reference is right; anything else must be equal in
    lower case.
"""

import math
import re

from same.scorers._reading import Row, answer_of, equal_in_capitals, normal_form, scorer

TOLERANCE = 0.05
FLAWS = {"paper": "no tolerance: 1.99 is wrong where the reference is 2"}
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.ASCII | re.IGNORECASE)


def number(text: str) -> float | None:
    """A text that is a number, or a number of per cent, as a finite number; None where it is neither."""
    bare = text.strip().removesuffix("%").rstrip()
    if not _NUMBER.fullmatch(bare) or not math.isfinite(value := float(bare)):
        return None
    return value / 100 if text.strip().endswith("%") else value


def near(prediction: str, answer: str) -> float:
    """Whether two numbers are within 5 % of the second, or two texts equal in lower case."""
    given, true = number(prediction), number(answer)
    if given is not None and true:
        return float(abs(given - true) <= TOLERANCE * abs(true))
    return float(prediction.strip().lower() == answer.strip().lower())


def standard(prediction: str, row: Row) -> float:
    """Relaxed accuracy."""
    return near(prediction, answer_of(row))


def semantic(prediction: str, row: Row) -> float:
    """Relaxed accuracy of the normal forms."""
    return near(normal_form(prediction), normal_form(row["answer"]))


score = scorer(strict=standard, paper=equal_in_capitals, semantic=semantic)
