"""Text read in photographs, with several people's answers (TextVQA).

`strict` is the soft accuracy of the text as it stands: case counts, so that a model which has learnt to answer `A`
where the data say `a` is seen to have drifted. `paper` is the data set's own evaluation, which CoIN's code runs;
`standard` the same, but an answer of articles alone is not emptied. `semantic` is the soft accuracy of the normal
forms.
"""

from same.scorers._reading import (
    Row,
    answers_of,
    evalai_form,
    evalai_form_kept,
    normal_form,
    scorer,
    soft_accuracy,
)

FLAWS = {
    "paper": "blind to letter case; an empty answer is right where the reference is an article, such as the letter a"
}


def strict(prediction: str, row: Row) -> float:
    """Soft accuracy of the text as it stands."""
    return soft_accuracy(prediction, answers_of(row))


def paper(prediction: str, row: Row) -> float:
    """Soft accuracy after the evaluation server's normalisation."""
    return soft_accuracy(prediction, answers_of(row), evalai_form)


def standard(prediction: str, row: Row) -> float:
    """Soft accuracy after the evaluation server's normalisation; articles alone stay."""
    return soft_accuracy(prediction, answers_of(row), evalai_form_kept)


def semantic(prediction: str, row: Row) -> float:
    """Soft accuracy of the normal forms."""
    return soft_accuracy(prediction, answers_of(row), normal_form)


score = scorer(strict=strict, paper=paper, standard=standard, semantic=semantic)
