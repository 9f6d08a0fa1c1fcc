"""Open questions with short answers (GQA).

`strict`, `paper` and `standard` are equality in lower case after one final full stop is dropped.
"""

from same.scorers._reading import Row, answer_of, equal_in_normal_form, scorer


def strict(prediction: str, row: Row) -> float:
    """Equality in lower case, without a final full stop."""
    return float(prediction.lower().removesuffix(".") == answer_of(row).lower().removesuffix("."))


score = scorer(strict=strict, semantic=equal_in_normal_form)
