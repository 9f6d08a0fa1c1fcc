"""What the rules share: the table of readings, and the normal form of a short answer."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from same.errors import InputError

Row = Mapping[str, Any]
Reading = Callable[[str, Row], float]


class Score(Protocol):
    """The public function of every rule."""

    def __call__(self, prediction: str, row: Row, variant: str = "strict") -> float:
        """Score of one prediction, in [0, 1]."""


def scorer(readings: Mapping[str, Reading]) -> Score:
    """The `score` function of a rule from its table of readings (name to function)."""

    def score(prediction: str, row: Row, variant: str = "strict") -> float:
        if variant not in readings:
            raise InputError(f"a scorer's variant must be one of {', '.join(readings)}; got {variant!r}. Choose one.")
        return float(readings[variant](prediction.strip(), row))

    return score


def forgiving(strict: Reading, same_form: Callable[[str, str], bool]) -> Reading:
    """The normalised reading: what `strict` gives, or 1 where `same_form(prediction, answer)` holds."""

    def normalised(prediction: str, row: Row) -> float:
        return max(strict(prediction, row), float(same_form(prediction, row["answer"])))

    return normalised


def soft_accuracy(prediction: str, answers: Sequence[str], form: Callable[[str], str] = str.strip) -> float:
    """Agreement with several people's answers after `form`.

    Source: Antol et al., "VQA: Visual Question Answering", 2015: min(1, matches / 3) over nine people's answers,
        averaged over
    which of the ten is left out. With fewer than ten answers (one, in most instruction files): min(1, matches / 3 in
    ten).
    """
    given = form(prediction)
    matches = sum(form(answer) == given for answer in answers)
    if len(answers) < 10:
        return min(1.0, matches / (0.3 * len(answers))) if answers else 0.0
    with_mine_out = min(1.0, (matches - 1) / 3)
    with_other_out = min(1.0, matches / 3)
    return max(0.0, (matches * with_mine_out + (len(answers) - matches) * with_other_out) / len(answers))


_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_SPOKEN = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)|['\u2019]")
_MARKS = re.compile(r"(?<!\d)[.:/]|[.:/](?!\d)|-(?!\d)|[^\w\s.:/%-]|_")


def normal_form(text: str) -> str:
    """A short answer without case, articles, punctuation and thousands commas, number words as digits.

    Points, colons and slashes inside numbers stay (6.5, 10:30), and so does a sign. A text of articles alone (the
    letter a, say) keeps them.
    """
    bare = _MARKS.sub(" ", _THOUSANDS.sub("", text.casefold())).split()
    words = [_SPOKEN.get(word, word) for word in bare if word not in _ARTICLES]
    return " ".join(words or bare)


def same_normal_form(prediction: str, answer: str) -> bool:
    """Whether two short answers have one normal form."""
    return normal_form(prediction) == normal_form(answer)
