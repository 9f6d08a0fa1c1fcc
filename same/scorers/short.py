"""Open questions with short answers (GQA).

`strict` is equality in lower case after one final full stop is dropped.
"""

from same.scorers._reading import Row, forgiving, same_normal_form, scorer


def strict(prediction: str, row: Row) -> float:
    """Equality in lower case, without a final full stop."""
    return float(prediction.lower().removesuffix(".") == str(row["answer"]).strip().lower().removesuffix("."))


READINGS = {"strict": strict, "normalised": forgiving(strict, same_normal_form)}
VARIANTS = tuple(READINGS)
score = scorer(READINGS)
