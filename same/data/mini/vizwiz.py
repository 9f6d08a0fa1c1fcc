"""mini-VizWiz: blurred, dark, tilted household things; the answer is a lower-case label, colour or ``unanswerable``."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from same.data.mini._world import (
    DRAWINGS,
    HUES,
    RECOLOURABLE,
    SHORT,
    Part,
    Sample,
    Split,
    an,
    choice,
    icon,
    paste,
    photo_crop,
    place_turned,
)

HOUSEHOLD = [
    "cup", "book", "phone", "key", "pizza", "bread", "apple", "banana", "shoe", "hat", "chair", "clock",
    "cheese", "egg", "cake", "umbrella", "dog", "cat",
]  # fmt: skip
GROUNDS = ("coffee", "gravel", "coins", "page", "brick")
WHAT = ("What is this?", "What is this item?", "Can you tell me what this is?")
UNANSWERABLE = 0.25


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; both splits share the drawings under other sizes, angles, light and grounds."""
    ground = choice(rng, GROUNDS)
    image = photo_crop(rng, ground)
    if rng.random() < UNANSWERABLE:
        return _hidden(rng, image)
    if rng.random() < 0.3:
        return _coloured(rng, image, ground)
    label = choice(rng, HOUSEHOLD)
    part = Part(label, place_turned(rng, image, label, (46, 70), 50))
    image = _hand_held(rng, image, float(rng.uniform(0.3, 1.2)))
    question = choice(rng, WHAT)
    talk = (("Describe the picture.", f"A blurred picture of {an(label)}."), (question, f"This is {an(label)}."))
    return Sample(image, f"{question}\n{SHORT}", label, (label,), None, (part,), ground, talk)


def _hand_held(rng: np.random.Generator, image: Image.Image, blur: float) -> Image.Image:
    dimmed = ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.55, 1.3)))
    return dimmed.filter(ImageFilter.GaussianBlur(blur))


def _hidden(rng: np.random.Generator, image: Image.Image) -> Sample:
    if rng.random() < 0.5:
        place_turned(rng, image, choice(rng, HOUSEHOLD), (46, 70), 50)
    image = _hand_held(rng, image, float(rng.uniform(6, 8)))
    question = choice(rng, (*WHAT, "What color is this?"))
    sentence = "The picture is too blurred to tell."
    talk = (("Describe the picture.", sentence), (question, sentence))
    return Sample(image, f"{question}\n{SHORT}", "unanswerable", ("unanswerable",), None, (), "blur", talk)


def _coloured(rng: np.random.Generator, image: Image.Image, ground: str) -> Sample:
    label = choice(rng, [label for label in HOUSEHOLD if label in RECOLOURABLE])
    colour = choice(rng, list(HUES))
    drawing = icon(DRAWINGS[label][0], int(rng.integers(40, 56)), colour)
    drawing = drawing.rotate(float(rng.uniform(-40, 40)), Image.Resampling.BICUBIC, expand=True)
    part = Part(label, paste(image, drawing, rng.integers(-8, 20), rng.integers(-8, 20)), colour)
    image = _hand_held(rng, image, float(rng.uniform(0.3, 1.2)))
    question = f"What color is this {label}?"
    talk = (
        ("Describe the picture.", f"A blurred picture of a {colour} {label}."),
        (question, f"This {label} is {colour}."),
    )
    return Sample(image, f"{question}\n{SHORT}", colour, (colour,), None, (part,), ground, talk)
