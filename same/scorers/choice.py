"""Multiple choice (ScienceQA, ArxivQA, PMC-VQA): the answer is an option's letter.

`strict`, `paper` and `standard` accept one capital letter A to E, alone, before ". ", or in one "The answer is X.";
case counts. `semantic` also accepts the letter in lower case or in brackets, and the text of the right option instead
of its letter.
"""

import re

from same.scorers._reading import Row, normal_form, scorer

LETTERS = "ABCDE"
_SAID = re.compile(r"The answer is ([A-E])\.")
_LOOSE = re.compile(
    r"(?:(?:the )?(?:answer|option|choice)(?: is)?:? ?)?[(\[]?([A-E])(?!.*answer is)(?:[)\].:](?:\s.*)?)?",
    re.IGNORECASE | re.DOTALL,
)
_LISTED = re.compile(r"^\s*\(?([A-E])[.):]\s*(.+?)\s*$", re.MULTILINE)
_INLINE = re.compile(r"\(([A-E])\)\s*([^()]+?)\s*(?=\([A-E]\)|$)", re.MULTILINE)


def letter(prediction: str) -> str | None:
    """The letter a well-formed answer gives."""
    if len(prediction) == 1 or prediction[1:3] == ". ":
        return prediction[0] if prediction[0] in LETTERS else None
    said = _SAID.findall(prediction)
    return said[0] if len(said) == 1 else None


def options(question: str) -> dict[str, str]:
    """The options in a question's text, by letter: lines "A. cat", or "(A) cat (B) dog" in one line."""
    inline = _INLINE.findall(question)
    return dict(inline if len(inline) > 1 else _LISTED.findall(question))


def strict(prediction: str, row: Row) -> float:
    """Whether a well-formed answer gives the right letter."""
    return float(letter(prediction) == row["answer"].strip())


def semantic(prediction: str, row: Row) -> float:
    """Whether the answer gives the right letter in any form, or the right option's text."""
    right = row["answer"].strip().upper()
    if found := _LOOSE.fullmatch(prediction):
        return float(found[1].upper() == right)
    text = options(row["text"]).get(right)
    return float(text is not None and normal_form(text) == normal_form(prediction))


score = scorer(strict=strict, semantic=semantic)
