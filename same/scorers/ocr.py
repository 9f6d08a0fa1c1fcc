"""Text read off a cover (OCR-VQA): `strict`, `paper` and `standard` are equality in lower case."""

from same.scorers._reading import Row, answer_of, equal_in_normal_form, scorer


def strict(prediction: str, row: Row) -> float:
    """Equality in lower case."""
    return float(prediction.lower() == answer_of(row).lower())


score = scorer(strict=strict, semantic=equal_in_normal_form)
