"""What the rules share: the four readings, and the normal forms of a short answer."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from same.errors import InputError
from same.metrics import READINGS

Row = Mapping[str, Any]
Reading = Callable[[str, Row], float]


class Score(Protocol):
    """The public function of every rule."""

    def __call__(self, prediction: str, row: Row, variant: str = "strict") -> float:
        """Score of one prediction, in [0, 1]."""


def scorer(
    *, strict: Reading, semantic: Reading, paper: Reading | None = None, standard: Reading | None = None
) -> Score:
    """The `score` function of a rule from its readings; `paper` and `standard` default to `strict`.

    The semantic reading also accepts what `strict` and `standard` do.
    """
    paper, standard = paper or strict, standard or strict
    readings: dict[str, Reading] = {
        "strict": strict,
        "paper": paper,
        "standard": standard,
        "semantic": lambda prediction, row: max(read(prediction, row) for read in (strict, standard, semantic)),
    }

    def score(prediction: str, row: Row, variant: str = "strict") -> float:
        read = readings[known(variant)]
        return float(read(prediction.strip(), row))

    return score


def known(variant: str) -> str:
    """The reading's name, if there is such a reading.

    Raises:
        InputError: there is none.
    """
    if variant not in READINGS:
        raise InputError(f"a scorer's variant must be one of {', '.join(READINGS)}; got {variant!r}. Choose one.")
    return variant


def answer_of(row: Row) -> str:
    """The one reference answer of a row."""
    return str(row["answer"]).strip()


def answers_of(row: Row) -> Sequence[str]:
    """Every reference answer of a row."""
    return row.get("answers") or [row["answer"]]


def equal(prediction: str, row: Row) -> float:
    """Equality with the reference answer, case and all."""
    return float(prediction == answer_of(row))


def equal_in_capitals(prediction: str, row: Row) -> float:
    """Equality with the reference answer in upper case, as most public code of this field compares."""
    return float(prediction.upper() == answer_of(row).upper())


def equal_in_normal_form(prediction: str, row: Row) -> float:
    """Equality of the normal forms."""
    return float(normal_form(prediction) == normal_form(row["answer"]))


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


_CONTRACTIONS = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's i'm
    i've isn't it'd it'll let's ma'am might've mightn't must've mustn't needn't not've o'clock oughtn't shan't she's
    should've shouldn't somebody's someone's something's that'd that's there'd there're there's they'd they'll they're
    they've wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll who's
    who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_JOINED = {word.replace("'", ""): word for word in _CONTRACTIONS.split()}
_LONE_POINT = re.compile(r"\.(?!\d)")


def spoken_numbers(text: str) -> str:
    """A text with number words as digits."""
    return " ".join(_SPOKEN.get(word, word) for word in text.split())


def evalai_form(text: str) -> str:
    """A short answer as the VQA data sets' own evaluation normalises it.

    Source: the evaluation server's published rule for VQAv2, TextVQA and VizWiz: lower case, punctuation away or a
        space, number words as digits, no articles, one spelling of contractions. Articles alone become empty.
    """
    text = " ".join(text.lower().replace(",", "").replace("?", "").replace("'s", " 's").split())
    for mark in ';/[]"{}()=+\\_-><@`!':
        loose = f"{mark} " in text or f" {mark}" in text
        text = text.replace(mark, "" if loose else " ")
    words = spoken_numbers(_LONE_POINT.sub("", text)).split()
    return " ".join(_JOINED.get(word, word) for word in words if word not in _ARTICLES)


def evalai_form_kept(text: str) -> str:
    """The same, but an answer of articles alone (the letter a, say) stays as it is."""
    return evalai_form(text) or text.strip().lower()
