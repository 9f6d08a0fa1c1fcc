"""Class labels (ImageNet in CoIN; UCIT scores its ImageNet-R by `exact`).

`strict` and `standard` are plain equality, the data sets' own rule: case counts. `paper` is CoIN's: one text contains
the other.
"""

from same.scorers._reading import Row, equal, equal_in_normal_form, scorer

FLAWS = {"paper": "an empty answer, or any piece of the label such as a single letter, counts as right"}


def contained(prediction: str, row: Row) -> float:
    """Whether one text contains the other, so that an empty prediction is right."""
    label = str(row["answer"])
    return float(prediction in label or label in prediction)


score = scorer(strict=equal, paper=contained, semantic=equal_in_normal_form)
