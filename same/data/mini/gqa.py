"""mini-GQA: two or three things in a 2x2 layout; the answer is a lower-case ``yes``, ``no``, label or colour."""

from __future__ import annotations

import numpy as np

from same.data.mini._world import (
    HUES,
    LABELS,
    RECOLOURABLE,
    SHORT,
    Part,
    Sample,
    Split,
    an,
    cell_of,
    choice,
    grid_scene,
    named,
    pale_ground,
    place_name,
    places_talk,
    some,
)


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; both splits share the drawings in other arrangements."""
    labels = some(rng, LABELS, int(rng.integers(2, 4)))
    if not set(labels) & set(RECOLOURABLE) and rng.random() < 0.6:
        labels[0] = choice(rng, RECOLOURABLE)
    things = [(label, choice(rng, list(HUES)) if label in RECOLOURABLE else "") for label in labels]
    image = pale_ground(rng)
    parts = grid_scene(rng, image, things)
    question, answer, sentence = _question(rng, parts)
    caption = " ".join(
        f"There is {an(named(part))} at the {place_name(part)}." for part in sorted(parts, key=_reading_order)
    )
    return Sample(
        image,
        f"{question}\n{SHORT}",
        answer,
        (answer,),
        parts=tuple(parts),
        talk=(("Describe the picture.", caption), (question, sentence), *_more_talk(rng, parts)),
    )


def _reading_order(part: Part) -> tuple[int, int]:
    column, row = cell_of(part)
    return row, column


def _question(rng: np.random.Generator, parts: list[Part]) -> tuple[str, str, str]:
    kinds = [_exists]
    coloured = [part for part in parts if part.colour]
    if coloured:
        kinds.append(_colour)
    if any(_neighbour(part, parts) for part in parts):
        kinds += [_beside, _beside]
    if len({cell_of(part)[0] for part in parts}) == 2 or len({cell_of(part)[1] for part in parts}) == 2:
        kinds.append(_relation)
    return choice(rng, kinds)(rng, parts)


def _exists(rng: np.random.Generator, parts: list[Part]) -> tuple[str, str, str]:
    present = [part.label for part in parts]
    if rng.random() < 0.5:
        label = choice(rng, present)
        return f"Is there {an(label)} in the picture?", "yes", f"Yes, there is {an(label)}."
    label = choice(rng, [other for other in LABELS if other not in present])
    return f"Is there {an(label)} in the picture?", "no", f"No, there is not {an(label)}."


def _colour(rng: np.random.Generator, parts: list[Part]) -> tuple[str, str, str]:
    part = choice(rng, [part for part in parts if part.colour])
    return f"What color is the {part.label}?", part.colour, f"The {part.label} is {part.colour}."


def _neighbour(part: Part, parts: list[Part]) -> Part | None:
    column, row = cell_of(part)
    return next((other for other in parts if cell_of(other) == (1 - column, row)), None)


def _beside(rng: np.random.Generator, parts: list[Part]) -> tuple[str, str, str]:
    part = choice(rng, [part for part in parts if _neighbour(part, parts)])
    other = _neighbour(part, parts)
    label = other.label if other else ""
    side = ("right", "left")[cell_of(part)[0]]
    return f"What is to the {side} of the {part.label}?", label, f"To the {side} of the {part.label} is {an(label)}."


def _relation(rng: np.random.Generator, parts: list[Part]) -> tuple[str, str, str]:
    axis = choice(rng, [a for a in (0, 1) if len({cell_of(part)[a] for part in parts}) == 2])
    one = choice(rng, parts)
    two = choice(rng, [part for part in parts if cell_of(part)[axis] != cell_of(one)[axis]])
    words = ("to the left of", "to the right of") if axis == 0 else ("above", "below")
    asked = int(rng.integers(2))
    holds = cell_of(one)[axis] == asked
    question = f"Is the {one.label} {words[asked]} the {two.label}?"
    return (
        question,
        "yes" if holds else "no",
        f"{'Yes' if holds else 'No'}, it is {words[cell_of(one)[axis]]} the {two.label}.",
    )


def _more_talk(rng: np.random.Generator, parts: list[Part]) -> list[tuple[str, str]]:
    """A second question of every kind, in whole sentences."""
    kinds = (_exists, _question, _question)
    asked = [(question, sentence) for question, _, sentence in (kind(rng, parts) for kind in kinds)]
    return asked + places_talk(rng, parts)
