"""What is wrong with the form of an answer."""

import re

from same.scorers._reading import Row, answers_of, normal_form, spoken_numbers
from same.scorers.choice import options

_MARKS = re.compile(r"[\W_]+")
ACCEPTED = 0.5
"""An answer with at least this score counts as right."""


def error_class(prediction: str, row: Row, strict: float, semantic: float, by_letter: bool = False) -> str:
    """The first class of `same.metrics.ERRORS` that fits an answer.

    Args:
        strict, semantic: its scores in these readings.
        by_letter: whether the answer is an option's letter, so that other words are not searched for it.
    """
    given = prediction.strip()
    if strict >= ACCEPTED:
        return "right"
    if not given:
        return "empty"
    answers = answers_of(row)
    for name, form in (("case", _case), ("punctuation", _bare), ("number word", _numbered)):
        if any(form(given) == form(answer) for answer in answers):
            return name
    if by_letter and _is_option(given, row):
        return "option text"
    if semantic >= ACCEPTED:
        return "extra words" if len(_bare(given).split()) > max(map(_count, answers)) else "punctuation"
    return "extra words" if not by_letter and any(_within(answer, given) for answer in answers) else "wrong"


def _case(text: str) -> str:
    return text.strip().casefold()


def _bare(text: str) -> str:
    return " ".join(_MARKS.sub(" ", text.casefold()).split())


def _numbered(text: str) -> str:
    return spoken_numbers(_bare(text))


def _count(answer: str) -> int:
    return len(_bare(answer).split())


def _is_option(given: str, row: Row) -> bool:
    right = options(row["text"]).get(row["answer"].strip().upper())
    return right is not None and normal_form(right) == normal_form(given)


def _within(answer: str, given: str) -> bool:
    """Whether the answer's words stand together among others."""
    wanted, found = normal_form(answer), normal_form(given)
    return bool(wanted) and f" {wanted} " in f" {found} "
