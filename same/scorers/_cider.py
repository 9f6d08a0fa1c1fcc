"""CIDEr-D: how much of what people agree to say about a picture a caption says.

Source: Vedantam et al., "CIDEr: Consensus-based Image Description Evaluation", 2015, with the paper's variant D (counts
    clipped to the reference's, a Gaussian penalty of the difference in length, times 10). Words are not stemmed, as in
    the public evaluation code. It is written here because the packages that offer it call Java for their words.
"""

import math
from collections import Counter
from collections.abc import Sequence

ORDERS = (1, 2, 3, 4)
SIGMA = 6.0
"""Width of the length penalty, in words."""

Words = Sequence[str]
Weights = dict[Words, float]


def grams(words: Words, order: int) -> Counter[Words]:
    """How often each run of so many words is in a caption."""
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def _weighted(words: Words, order: int, rarity: Weights, unseen: float) -> Weights:
    return {gram: count * rarity.get(gram, unseen) for gram, count in grams(words, order).items()}


def _length(weights: Weights) -> float:
    return math.sqrt(sum(value * value for value in weights.values()))


def _clipped_cosine(candidate: Weights, reference: Weights) -> float:
    both = _length(candidate) * _length(reference)
    shared = sum(min(value, reference.get(gram, 0.0)) * reference.get(gram, 0.0) for gram, value in candidate.items())
    return shared / both if both else 0.0


def cider(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """The CIDEr-D of each caption, in [0, 10]; their mean is that of all.

    Args:
        candidates: one caption a picture, in words.
        references: people's captions of each picture. How rare an n-gram is, is counted over these: with a single
            picture every n-gram is in all of them, and the score is 0.
    """
    totals = [0.0] * len(candidates)
    unseen = math.log(max(1, len(references)))
    for order in ORDERS:
        pictures = Counter(
            gram for captions in references for gram in {gram for words in captions for gram in grams(words, order)}
        )
        rarity = {gram: unseen - math.log(count) for gram, count in pictures.items()}
        for index, (mine, others) in enumerate(zip(candidates, references, strict=True)):
            given = _weighted(mine, order, rarity, unseen)
            for other in others:
                penalty = math.exp(-((len(mine) - len(other)) ** 2) / (2 * SIGMA**2))
                found = penalty * _clipped_cosine(given, _weighted(other, order, rarity, unseen))
                totals[index] += found / (len(others) * len(ORDERS))
    return [10.0 * min(1.0, total) for total in totals]
