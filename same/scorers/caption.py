"""Captions (VizWiz-caption, Flickr30k), against several people's captions in `answers`.

`strict`, `standard` and `semantic` are CIDEr-D, in [0, 10]: 1 is what tables of the field print as 100. `paper` is
UCIT's mean of BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D. UCIT's own has METEOR as a seventh, which needs Java: no reading
depends on what is installed, so it is counted by `measures` alone, when asked for. A caption's score depends on all the
others', so there is only `score_all`. Words are those of the Penn Treebank in lower case without punctuation, by nltk
instead of the Java program.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from rapidfuzz.distance import LCSseq

from same.scorers._cider import ORDERS, Words, cider, grams
from same.scorers._meteor import meteor
from same.scorers._reading import Row, answers_of, known

_SCALE = "CIDEr-D of captions, up to 10: means over tasks are no shares of right answers"
FLAWS = {
    "strict": _SCALE,
    "paper": "captions without METEOR, which needs Java: the mean of BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D, up to 2.5",
    "standard": _SCALE,
    "semantic": _SCALE,
}
BETA = 1.2
"""How many times more recall counts than precision in ROUGE-L, as in the public caption evaluation."""

_SPOKEN = re.compile(r"\w")


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from nltk.tokenize import TreebankWordTokenizer

    return TreebankWordTokenizer()


@lru_cache(maxsize=2**17)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a caption, in lower case and without punctuation."""
    return tuple(token.rstrip(".") for token in _tokenizer().tokenize(text.lower()) if _SPOKEN.search(token))


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 of all captions together.

    Source: Papineni et al., "BLEU", 2002, with the tiny numbers of the public caption evaluation. nltk's differs from
        it: a caption of fewer words than the order counts there as one n-gram that was missed.
    """
    pairs = list(zip(candidates, references, strict=True))
    given = sum(map(len, candidates))
    wanted = sum(min((abs(len(other) - len(mine)), len(other)) for other in others)[1] for mine, others in pairs)
    penalty = math.exp(min(0.0, 1 - (wanted + 1e-9) / (given + 1e-15)))
    found, product = [], 1.0
    for order in ORDERS:
        shared = sum((grams(mine, order) & _at_most(others, order)).total() for mine, others in pairs)
        possible = sum(max(0, len(mine) - order + 1) for mine in candidates)
        product *= (shared + 1e-15) / (possible + 1e-9)
        found.append(min(1.0, penalty * product ** (1 / order)))
    return found


def _at_most(references: Sequence[Words], order: int) -> Counter[Words]:
    """How often each n-gram is in the caption that has most of it."""
    most = Counter[Words]()
    for words in references:
        most |= grams(words, order)
    return most


def rouge_l(candidate: Words, references: Sequence[Words]) -> float:
    """ROUGE-L of one caption: the best precision and the best recall of a longest common subsequence.

    Source: Lin, "ROUGE", 2004, with the β of the public caption evaluation.
    """
    common = [int(LCSseq.similarity(candidate, reference)) for reference in references]
    precision = max(length / max(1, len(candidate)) for length in common)
    recall = max(length / max(1, len(words)) for length, words in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


@lru_cache(maxsize=1)
def _consensus(candidates: tuple[Words, ...], references: tuple[tuple[Words, ...], ...]) -> list[float]:
    """CIDEr-D, counted once for all readings."""
    return cider(candidates, references)


def _in_words(
    predictions: Sequence[str], rows: Sequence[Row]
) -> tuple[tuple[Words, ...], tuple[tuple[Words, ...], ...]]:
    """Captions, and people's captions of the same pictures."""
    references = tuple(tuple(words_of(text) for text in answers_of(row)) for row in rows)
    return tuple(words_of(text) for text in predictions), references


def measures(predictions: Sequence[str], rows: Sequence[Row], with_meteor: bool = False) -> dict[str, float]:
    """What `paper` is the mean of; with METEOR also the mean of all seven, as published columns have it.

    Raises:
        InputError: METEOR is asked for, and Java or the extra `meteor` is not there.
    """
    candidates, references = _in_words(predictions, rows)
    found = {f"BLEU-{order}": value for order, value in enumerate(bleu(candidates, references), 1)}
    found["ROUGE-L"] = fmean(rouge_l(*pair) for pair in zip(candidates, references, strict=True))
    found["CIDEr-D"] = fmean(_consensus(candidates, references))
    if with_meteor:
        found["METEOR"] = meteor(candidates, references)
        found["mean of all seven"] = fmean(found.values())
    return found


def score_all(predictions: Sequence[str], rows: Sequence[Row], variant: str = "strict") -> tuple[list[float], float]:
    """The score of each caption, and of all together: their mean but for BLEU, which is counted over all at once.

    Args:
        predictions: the captions, in the order of the rows.
        variant: a reading.
    """
    candidates, references = _in_words(predictions, rows)
    consensus = _consensus(candidates, references)
    if known(variant) != "paper":
        return list(consensus), fmean(consensus)
    recalls = [rouge_l(*pair) for pair in zip(candidates, references, strict=True)]
    each = [
        fmean([*bleu([mine], [others]), recall, agreed])
        for mine, others, recall, agreed in zip(candidates, references, recalls, consensus, strict=True)
    ]
    return each, fmean([*bleu(candidates, references), fmean(recalls), fmean(consensus)])
