"""Questions about photographs with several people's answers (VQAv2, VizWiz).

`strict` is equality in upper case to the one reference answer, as CoIN's public code has it. `normalised` compares
normal forms and gives part credit for agreeing with some of the people, as the data sets' own rule does.
"""

from same.scorers._reading import Row, normal_form, scorer, soft_accuracy


def strict(prediction: str, row: Row) -> float:
    """Equality in upper case."""
    return float(prediction.upper() == str(row["answer"]).strip().upper())


def normalised(prediction: str, row: Row) -> float:
    """Soft accuracy of the normal forms, and 1 for the reference answer."""
    return max(strict(prediction, row), soft_accuracy(prediction, row["answers"] or [row["answer"]], normal_form))


READINGS = {"strict": strict, "normalised": normalised}
VARIANTS = tuple(READINGS)
score = scorer(READINGS)
