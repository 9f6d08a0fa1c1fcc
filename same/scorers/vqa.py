"""Questions about photographs with several people's answers (VQAv2, VizWiz).

`strict` and `paper` are equality in upper case to the one reference answer, as CoIN's public code has it. `standard` is
the data sets' own soft accuracy over all answers, `semantic` that of the normal forms; both give part credit for
agreeing with some of the people.
"""

from same.scorers._reading import (
    Row,
    answers_of,
    equal_in_capitals,
    evalai_form_kept,
    normal_form,
    scorer,
    soft_accuracy,
)

FLAWS = {"paper": "compares with one reference answer only, however many people answered"}


def standard(prediction: str, row: Row) -> float:
    """Soft accuracy after the evaluation server's normalisation."""
    return soft_accuracy(prediction, answers_of(row), evalai_form_kept)


def semantic(prediction: str, row: Row) -> float:
    """Soft accuracy of the normal forms."""
    return soft_accuracy(prediction, answers_of(row), normal_form)


score = scorer(strict=equal_in_capitals, standard=standard, semantic=semantic)
