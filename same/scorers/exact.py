"""Exact answers (icons, counting, remote sensing, chemistry).

`strict` is equality in upper case, as the public benchmark code has it.
"""

from same.scorers._reading import Row, forgiving, same_normal_form, scorer


def strict(prediction: str, row: Row) -> float:
    """Equality in upper case."""
    return float(prediction.upper() == str(row["answer"]).strip().upper())


READINGS = {"strict": strict, "normalised": forgiving(strict, same_normal_form)}
VARIANTS = tuple(READINGS)
score = scorer(READINGS)
