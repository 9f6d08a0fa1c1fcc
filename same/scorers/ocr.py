"""Text read off a cover (OCR-VQA).

`strict` is equality in lower case.
"""

from same.scorers._reading import Row, forgiving, same_normal_form, scorer


def strict(prediction: str, row: Row) -> float:
    """Equality in lower case."""
    return float(prediction.lower() == str(row["answer"]).strip().lower())


READINGS = {"strict": strict, "normalised": forgiving(strict, same_normal_form)}
VARIANTS = tuple(READINGS)
score = scorer(READINGS)
