"""Captions (VizWiz-caption, Flickr30k), against several people's captions in `answers`.

`strict`, `standard` and `semantic` are CIDEr-D, in [0, 10]: 1 is what tables of the field print as 100. `paper` is
UCIT's mean of BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D. UCIT's own has METEOR as a seventh, which needs Java: no reading
depends on what is installed, so it is counted by `measures` alone, when asked for. A caption's score depends on all the
others', so there is only `score_all`. Words are those of the Penn Treebank in lower case without punctuation, by nltk
instead of the Java program.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from statistics import fmean
from typing import Any

from rapidfuzz.distance import LCSseq

from same.scorers._cider import Words, cider
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

_BLEU = [(1.0,), (1 / 2,) * 2, (1 / 3,) * 3, (1 / 4,) * 4]
_SPOKEN = re.compile(r"\w")


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from nltk.tokenize import TreebankWordTokenizer

    return TreebankWordTokenizer()


@lru_cache(maxsize=2**17)
def words_of(text: str) -> tuple[str, ...]:
    """The words of a caption, in lower case and without punctuation."""
    return tuple(token.rstrip(".") for token in _tokenizer().tokenize(text.lower()) if _SPOKEN.search(token))


def _floored(precisions: Sequence[Fraction], **_: Any) -> list[float]:
    """N-gram precisions with the public evaluation's tiny floor, under which a missing order does not warn."""
    return [(part.numerator + 1e-15) / (part.denominator + 1e-9) for part in precisions]


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """BLEU-1 to BLEU-4 of all captions together."""
    from nltk.translate.bleu_score import corpus_bleu

    found = corpus_bleu(references, candidates, weights=_BLEU, smoothing_function=_floored)
    return [min(1.0, float(value)) for value in found] if isinstance(found, list) else [0.0] * len(_BLEU)


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
