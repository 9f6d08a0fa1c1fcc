"""Text read in documents (DocVQA, InfographicVQA): how near the answer's letters are to the reference's.

`strict` and `standard` are ANLS, `semantic` is ANLS of the normal forms. `paper` leaves the cut-off away.

Source: Biten et al., "Scene Text Visual Question Answering", 2019: s = max over answers of 1 − NL(prediction, answer),
    0 where NL ≥ 0.5; NL is the edit distance over the longer length, in lower case.
"""

from collections.abc import Callable, Sequence

from rapidfuzz.distance import Levenshtein

from same.scorers._reading import Row, answer_of, answers_of, normal_form, scorer

CUT_OFF = 0.5
FLAWS = {"paper": "no cut-off at 0.5, so that a wrong answer earns the letters it shares with the right one"}


def lowered(text: str) -> str:
    """Lower case, single spaces."""
    return " ".join(text.lower().split())


def nearness(prediction: str, answers: Sequence[str], form: Callable[[str], str] = lowered) -> float:
    """1 − the edit distance to the nearest answer over the longer length."""
    given = form(prediction)
    return max(float(Levenshtein.normalized_similarity(given, form(answer))) for answer in answers)


def _cut(value: float) -> float:
    return value if value > CUT_OFF else 0.0


def standard(prediction: str, row: Row) -> float:
    """ANLS."""
    return _cut(nearness(prediction, answers_of(row)))


def paper(prediction: str, row: Row) -> float:
    """Nearness to the one reference answer, without a cut-off."""
    return nearness(prediction, [answer_of(row)])


def semantic(prediction: str, row: Row) -> float:
    """ANLS of the normal forms."""
    return _cut(nearness(prediction, answers_of(row), normal_form))


score = scorer(strict=standard, paper=paper, semantic=semantic)
