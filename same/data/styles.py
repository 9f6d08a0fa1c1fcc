"""The same questions in other answer styles, so that a task does not teach its one format.

Source: Chen et al., "SEFE: superficial and essential forgetting eliminator for multimodal continual instruction
tuning", ICML 2025: answer style diversification. There a language model writes the new questions; here templates do,
from the row's own question and answer and the answers of other rows.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

Rewrite = Callable[[str, str, Sequence[str], np.random.Generator], tuple[str, str]]


def _short(question: str, answer: str, others: Sequence[str], chance: np.random.Generator) -> tuple[str, str]:
    return f"{question}\nAnswer the question using a single word or phrase.", answer


def _sentence(question: str, answer: str, others: Sequence[str], chance: np.random.Generator) -> tuple[str, str]:
    return f"{question}\nAnswer the question in a full sentence.", f"The answer is {answer}."


def _explained(question: str, answer: str, others: Sequence[str], chance: np.random.Generator) -> tuple[str, str]:
    text = f"Going by what is asked and what can be seen, the answer to the question is {answer}."
    return f"{question}\nAnswer the question and say what the answer goes by.", text


def _yes_or_no(question: str, answer: str, others: Sequence[str], chance: np.random.Generator) -> tuple[str, str]:
    right = not others or chance.random() < 0.5
    shown = answer if right else others[int(chance.integers(len(others)))]
    return f"{question}\nIs the answer {shown}? Answer the question with yes or no.", "yes" if right else "no"


def _choice(question: str, answer: str, others: Sequence[str], chance: np.random.Generator) -> tuple[str, str]:
    options = [answer, *(others[i] for i in chance.permutation(len(others))[:3])]
    options = [options[i] for i in chance.permutation(len(options))]
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCD", options, strict=False))
    letter = "ABCD"[options.index(answer)]
    return f"{question}\n{listed}\nAnswer with the option's letter from the given choices directly.", letter


STYLES: dict[str, Rewrite] = {
    "yes or no": _yes_or_no,
    "multiple choice": _choice,
    "short": _short,
    "sentence": _sentence,
    "explanation": _explained,
}
_SEEN = 200
"""Answers of so many rows are offered as wrong ones."""


def diversify(rows: Dataset, share: float, seed: int) -> Dataset:
    """Rewrite a share of the rows, each style in equal parts; the others and their order stay.

    Of a row only the first question and answer are rewritten. The format that the question asks for in its last line
    gives way to the style's own.

    Args:
        rows: as `training_rows` gives them.
        share: of the rows that are rewritten, in [0, 1].
        seed: of which rows, which style and which wrong answers.
    """
    chance = np.random.default_rng([seed, 5])
    chosen = chance.permutation(len(rows))[: round(share * len(rows))]
    names = dict(zip(chosen.tolist(), (list(STYLES) * (len(chosen) // len(STYLES) + 1))[: len(chosen)], strict=True))
    answers = sorted({row["conversations"][1]["value"] for row in rows.select(range(min(_SEEN, len(rows))))})

    def rewritten(row: dict[str, Any], index: int) -> dict[str, Any]:
        if index not in names:
            return row
        asked, answered, *rest = row["conversations"]
        head, _, last = asked["value"].rpartition("\n")
        question = head if head and last.startswith("Answer") else asked["value"]
        others = [answer for answer in answers if answer != answered["value"]]
        own = np.random.default_rng([seed, 6, index])
        text, answer = STYLES[names[index]](question, answered["value"], others, own)
        turns = [{"from": "human", "value": text}, {"from": "gpt", "value": answer}, *rest]
        return {**row, "conversations": turns}

    return Dataset.from_list([rewritten(row, index) for index, row in enumerate(rows)], features=rows.features)
