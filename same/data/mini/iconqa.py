"""mini-IconQA: icons in rows, counted, compared or continued; the answer is a number or a lower-case word."""

from __future__ import annotations

import numpy as np
from PIL import Image

from same.data.mini._world import (
    LABELS,
    SHORT,
    Part,
    Sample,
    Split,
    an,
    choice,
    drawing_of,
    font,
    icon,
    pale_ground,
    paste,
    plural,
    some,
    write_centred,
)

PATTERNS = ("ABABAB", "AABAAB", "ABBABB", "ABCABC")  # the last one of a pattern is asked for
PITCH = 21  # of the grid's columns, in pixels
Asked = tuple[str, str, tuple[tuple[str, str], ...]]  # question, answer, talk


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; both splits share the drawings in other arrangements."""
    image = pale_ground(rng)
    parts: list[Part] = []
    question, answer, talk = choice(rng, (_count, _compare, _continue))(rng, image, parts)
    return Sample(image, f"{question}\n{SHORT}", answer, (answer,), None, tuple(parts), "plain", talk)


def _put(image: Image.Image, parts: list[Part], label: str, character: str, cell: tuple[int, int, int]) -> None:
    """Draw an icon of ``size`` into a column, below ``top``, in place: cell is (column, top, size)."""
    column, top, size = cell
    drawing = icon(character, size)
    left, top = PITCH * column + (PITCH - drawing.width) // 2, top + (size - drawing.height) // 2
    parts.append(Part(label, paste(image, drawing, left, top)))


def _count(rng: np.random.Generator, image: Image.Image, parts: list[Part]) -> Asked:
    label, count = choice(rng, LABELS), int(rng.integers(1, 10))
    character = drawing_of(rng, label)
    for place in range(count):
        _put(image, parts, label, character, (place % 3, 1 + PITCH * (place // 3), 18))
    question, sentence = f"How many {plural(label)} are there?", f"One can count {count} of them."
    shown = f"The picture shows {count} {plural(label) if count > 1 else label}."
    return question, str(count), (("Describe the picture.", shown), (question, sentence))


def _compare(rng: np.random.Generator, image: Image.Image, parts: list[Part]) -> Asked:
    labels = some(rng, LABELS, 2)
    counts = [int(count) for count in rng.integers(1, 4, 2)]
    for row, (label, count) in enumerate(zip(labels, counts, strict=True)):
        character = drawing_of(rng, label)
        for column in sorted(some(rng, range(3), count)):
            _put(image, parts, label, character, (column, 7 + 29 * row, 19))
    one, two = (plural(label) for label in labels)
    question = f"Are there more {one} or {two}?\nChoices: {one}, {two}, same."
    more = "same" if counts[0] == counts[1] else (one if counts[0] > counts[1] else two)
    numbers = [
        (f"How many {plural(a)} are there?", f"One can count {n} of them.") for a, n in zip(labels, counts, strict=True)
    ]
    sentence = f"There are as many {one} as {two}." if more == "same" else f"There are more {more}."
    shown = f"The number of {one} is {counts[0]}, that of {two} is {counts[1]}."
    return question, more, (("Describe the picture.", shown), (question, sentence), *numbers)


def _continue(rng: np.random.Generator, image: Image.Image, parts: list[Part]) -> Asked:
    pattern, labels = choice(rng, PATTERNS), some(rng, LABELS, 3)
    characters = [drawing_of(rng, label) for label in labels]
    row = ["ABC".index(letter) for letter in pattern]
    for place, kind in enumerate(row[:-1]):
        _put(image, parts, labels[kind], characters[kind], (place % 3, 7 + 29 * (place // 3), 19))
    box = write_centred(image, (53, 46), "?", font("DejaVuSans-Bold", 20), "black")
    parts.append(Part("question mark", box))
    question, last = "Which picture comes next in the pattern?", labels[row[-1]]
    shown = ", ".join(labels[kind] for kind in row[:-1])
    talk = (("Describe the picture.", f"The pattern goes {shown}."), (question, f"Next comes {an(last)}."))
    return question, last, talk
