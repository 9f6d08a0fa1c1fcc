"""mini-Grounding: find the thing a phrase describes; the answer is ``[left,top,right,bottom]`` as fractions."""

from __future__ import annotations

import numpy as np

from same.data.mini._world import (
    HUES,
    LABELS,
    RECOLOURABLE,
    SIDE,
    Part,
    Sample,
    Split,
    an,
    cell_of,
    choice,
    grid_scene,
    named,
    photo_crop,
    place_name,
    places_talk,
    some,
)

GROUNDS = ("grass", "china", "gravel", "brick")
PROMPT = "Please provide the bounding box coordinate of the region this sentence describes: "


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; both splits share the drawings in other arrangements on other crops."""
    ground = choice(rng, GROUNDS)
    image = photo_crop(rng, ground)
    parts = grid_scene(rng, image, choice(rng, (_different, _same_kind, _twins))(rng), (20, 24, 28, 32))
    target = parts[0]
    phrase = f"the {_phrase(target, parts)}"
    left, top, right, bottom = (value / SIDE for value in target.box)
    fractions = (left, top, right, bottom)
    caption = " ".join(f"There is {an(named(part))} at the {place_name(part)}." for part in parts)
    talk = (("Describe the picture.", caption), *_talk(parts), *places_talk(rng, parts))
    return Sample(image, PROMPT + phrase, written_box(fractions), (), fractions, tuple(parts), ground, talk)


def written_box(fractions: tuple[float, ...]) -> str:
    """The box in the benchmark's format, two decimals a number."""
    return "[" + ",".join(f"{value:.2f}" for value in fractions) + "]"


def _different(rng: np.random.Generator) -> list[tuple[str, str]]:
    return [(label, "") for label in some(rng, LABELS, int(rng.integers(1, 3)))]


def _same_kind(rng: np.random.Generator) -> list[tuple[str, str]]:
    label = choice(rng, RECOLOURABLE)
    return [(label, colour) for colour in some(rng, list(HUES), 2)]


def _twins(rng: np.random.Generator) -> list[tuple[str, str]]:
    return [(choice(rng, LABELS), "")] * 2


def _phrase(target: Part, parts: list[Part]) -> str:
    others = [part for part in parts if part is not target]
    if all(part.label != target.label for part in others):
        return target.label
    if target.colour:
        return named(target)
    (column, row), (other_column, _) = cell_of(target), cell_of(others[0])
    side = f"on the {('left', 'right')[column]}" if column != other_column else f"at the {('top', 'bottom')[row]}"
    return f"{target.label} {side}"


def _talk(parts: list[Part]) -> list[tuple[str, str]]:
    """Where each part is, in whole sentences that name the four edges."""
    pairs = []
    for part in parts:
        left, top, right, bottom = (f"{value / SIDE:.2f}" for value in part.box)
        answer = f"It reaches from {left} to {right} across and from {top} to {bottom} down."
        pairs.append((f"Where is the {_phrase(part, parts)}?", answer))
    return pairs
