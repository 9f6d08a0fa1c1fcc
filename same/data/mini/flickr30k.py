"""mini-Flickr30k: one or two people doing something beside a thing; the answer is a caption with a full stop."""

from __future__ import annotations

import numpy as np
from PIL import Image

from same.data.mini._captions import CAPTION, PLACES, ground_talk
from same.data.mini._world import (
    SIDE,
    Part,
    Sample,
    Split,
    an,
    choice,
    drawing_of,
    icon,
    joined_character,
    paste,
    photo_crop,
)

ACTIONS = {
    "running": "🏃", "cycling": "🚴", "surfing": "🏄", "swimming": "🏊", "walking": "🚶", "climbing": "🧗",
    "lifting weights": "🏋", "playing basketball": "⛹", "rowing": "🚣", "meditating": "🧘",
}  # fmt: skip
SKINS = "🏻🏽🏿"
THINGS = ("tree", "dog", "house", "car", "flower", "bird", "umbrella", "cat", "horse", "chair")
GROUNDS = ("grass", "gravel", "brick", "page")
PALE = 0.45  # how far the photograph is bleached, so that thin limbs stand out
TWO = 0.4


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; both splits share the drawings in other arrangements on other crops."""
    ground, action, thing = choice(rng, GROUNDS), choice(rng, list(ACTIONS)), choice(rng, THINGS)
    several = bool(rng.random() < TWO)
    image = Image.blend(photo_crop(rng, ground), Image.new("RGB", (SIDE, SIDE), "white"), PALE)
    parts = _two(rng, image, action, thing) if several else _one(rng, image, action, thing)
    people = "Two people are" if several else "A person is"
    caption = f"{people} {action} next to {an(thing)} {PLACES[ground]}."
    behind = ground_talk(ground)
    talk = (
        ("Describe the picture.", f"There is {an(thing)}, and somebody is {action}. {behind[1]}"),
        ("What is the person doing?", f"The person is {action}."),
        ("How many people are there?", f"One can count {1 + several} of them."),
        ("What is next to the person?", f"Next to the person is {an(thing)}."),
        behind,
    )
    return Sample(image, CAPTION, caption, (caption,), None, tuple(parts), ground, talk)


def _person(rng: np.random.Generator, action: str, size: int) -> Image.Image:
    return icon(joined_character(ACTIONS[action] + choice(rng, SKINS)), size, "", bool(rng.random() < 0.5))


def _one(rng: np.random.Generator, image: Image.Image, action: str, thing: str) -> list[Part]:
    """Person and thing side by side, in random order."""
    person, other = _person(rng, action, int(rng.integers(36, 41))), icon(drawing_of(rng, thing), 22)
    first = bool(rng.random() < 0.5)
    at = (rng.integers(0, 3) if first else SIDE - person.width, rng.integers(0, SIDE + 1 - person.height))
    beside = (SIDE - other.width if first else 0, rng.integers(20, SIDE + 1 - other.height))
    return [Part(thing, paste(image, other, *beside)), Part(action, paste(image, person, *at))]


def _two(rng: np.random.Generator, image: Image.Image, action: str, thing: str) -> list[Part]:
    """Two people in one row and the thing in the other."""
    low = bool(rng.random() < 0.5)
    parts = []
    for column in range(2):
        person = _person(rng, action, 30)
        top = (34 if low else 2) + (30 - person.height) // 2
        parts.append(Part(action, paste(image, person, 32 * column + (32 - person.width) // 2, top)))
    other = icon(drawing_of(rng, thing), 24)
    parts.append(Part(thing, paste(image, other, rng.integers(2, 38), 4 if low else 38)))
    return parts
