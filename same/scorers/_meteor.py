"""METEOR, by the Java program that public code runs: the only one of a caption's measures that is not counted here."""

import shutil
from collections.abc import Sequence

from same import registry
from same.errors import InputError, RunFailed
from same.scorers._cider import Words


def meteor(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """METEOR 1.5 of all captions together, in [0, 1].

    Source: Denkowski and Lavie, "Meteor Universal", 2014, with English paraphrases and the weights for ranking.

    Raises:
        InputError: Java, or the package that brings the program, is not there.
        RunFailed: the program did not answer.
    """
    registry.require_extra("pycocoevalcap", "meteor", "METEOR")
    if shutil.which("java") is None:
        raise InputError("METEOR must find a Java runtime; no java is on the PATH. Install one, or leave --meteor out.")
    from pycocoevalcap.meteor.meteor import Meteor

    given = {index: [" ".join(words)] for index, words in enumerate(candidates)}
    wanted = {index: [" ".join(words) for words in captions] for index, captions in enumerate(references)}
    try:
        whole, _ = Meteor().compute_score(wanted, given)
    except (OSError, ValueError) as error:
        raise RunFailed(f"METEOR's Java program stopped without an answer: {error}.") from error
    return float(whole)
