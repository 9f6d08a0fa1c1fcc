"""Text read in photographs, with several people's answers (TextVQA).

`strict` is the soft accuracy of the text as it stands: case counts, so that a model which has learnt to answer `A`
where the data say `a` is seen to have drifted. (The data set's own evaluation lowers the case first and is blind to
that.)
`normalised` is the soft accuracy of the normal forms.
"""

from same.scorers._reading import Row, normal_form, scorer, soft_accuracy


def strict(prediction: str, row: Row) -> float:
    """Soft accuracy of the text as it stands."""
    return soft_accuracy(prediction, row["answers"] or [row["answer"]])


def normalised(prediction: str, row: Row) -> float:
    """Soft accuracy of the normal forms."""
    return max(strict(prediction, row), soft_accuracy(prediction, row["answers"] or [row["answer"]], normal_form))


READINGS = {"strict": strict, "normalised": normalised}
VARIANTS = tuple(READINGS)
score = scorer(READINGS)
