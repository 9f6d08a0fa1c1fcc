"""Class labels (ImageNet and its renditions).

`strict` is plain equality, the data sets' own rule: case counts. CoIN's public code asks instead whether one text
contains the other, by which an empty answer is right; that is no measure of a model and is not used here.
"""

from same.scorers._reading import Row, forgiving, same_normal_form, scorer


def strict(prediction: str, row: Row) -> float:
    """Equality, case and all."""
    return float(prediction == str(row["answer"]).strip())


READINGS = {"strict": strict, "normalised": forgiving(strict, same_normal_form)}
VARIANTS = tuple(READINGS)
score = scorer(READINGS)
