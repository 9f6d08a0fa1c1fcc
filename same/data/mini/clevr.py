"""mini-CLEVR-Math: three to five solids on a floor, counted after adding or taking some away; a digit answers."""

from __future__ import annotations

import numpy as np

from same.data.mini._solids import SHAPES, floor, stand
from same.data.mini._world import HUES, SHORT, Part, Sample, Split, an, choice, some

SIZES = {"large": 19, "small": 11}
KINDS = (("colour",), ("shape",), ("size",), ("colour", "shape"))
Thing = dict[str, str]  # colour, shape and size


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; scenes of the two splits are different draws."""
    image = floor(rng)
    things, parts = [], []
    for cell in sorted(some(rng, range(6), int(rng.integers(3, 6)))):
        thing = {
            "colour": choice(rng, list(HUES)),
            "shape": choice(rng, list(SHAPES)),
            "size": choice(rng, list(SIZES)),
        }
        row, column = divmod(cell, 3)
        centre, base = 11 + 21 * column + int(rng.integers(-1, 2)), 29 + 31 * row + int(rng.integers(-3, 3))
        box = stand(image, thing["shape"], thing["colour"], SIZES[thing["size"]], centre, base)
        things.append(thing)
        parts.append(Part(f"{thing['size']} {thing['shape']}", box, thing["colour"]))
    asked = [kind(rng, things) for kind in (_subtract, _add, _count)]
    question, answer, _ = choice(rng, asked)
    listed = ", ".join(an(f"{thing['size']} {thing['colour']} {thing['shape']}") for thing in things)
    talk = (
        ("Describe the picture.", f"There are {len(things)} objects: {listed}."),
        ("How many objects are there?", f"One can count {len(things)} of them."),
        *((q, sentence) for q, _, sentence in asked),
        *((q, sentence) for q, _, sentence in (_count(rng, things) for _ in range(2))),
    )
    return Sample(image, f"{question}\n{SHORT}", answer, (answer,), None, tuple(parts), "floor", talk)


def _chosen(rng: np.random.Generator, things: list[Thing]) -> tuple[str, int]:
    """Words for some of the things, and how many they are."""
    one, traits = choice(rng, things), choice(rng, KINDS)
    alike = sum(all(thing[trait] == one[trait] for trait in traits) for thing in things)
    words = [one[trait] for trait in ("size", "colour") if trait in traits]
    return " ".join([*words, f"{one['shape']}s" if "shape" in traits else "objects"]), alike


def _subtract(rng: np.random.Generator, things: list[Thing]) -> tuple[str, str, str]:
    words, count = _chosen(rng, things)
    left = len(things) - count
    question = f"Subtract all {words}. How many objects are left?"
    return question, str(left), f"Of {len(things)} objects {count} are gone, which leaves {left}."


def _add(rng: np.random.Generator, things: list[Thing]) -> tuple[str, str, str]:
    more, colour, shape = int(rng.integers(1, 4)), choice(rng, list(HUES)), choice(rng, list(SHAPES))
    question = f"Add {more} {colour} {shape}{'s' * (more > 1)}. How many objects exist?"
    total = len(things) + more
    return question, str(total), f"To {len(things)} objects come {more}, which makes {total}."


def _count(rng: np.random.Generator, things: list[Thing]) -> tuple[str, str, str]:
    words, count = _chosen(rng, things)
    return f"How many {words} are there?", str(count), f"One can count {count} of them."
