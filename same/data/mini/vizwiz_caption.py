"""mini-VizWiz-caption: one thing in a sharp or blurred photograph; the answer is a caption with a full stop."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from same.data.mini._captions import CAPTION, PLACES, ground_talk
from same.data.mini._world import (
    DRAWINGS,
    HUES,
    LABELS,
    RECOLOURABLE,
    SIDE,
    Part,
    Sample,
    Split,
    an,
    choice,
    drawing_of,
    icon,
    named,
    paste,
    photo_crop,
)

BLURRED = 0.4
COLOURED = 0.35  # recolourable things are a fifth of the labels


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; both splits share the drawings under other sizes, angles, light and grounds."""
    ground, blurred, colour = choice(rng, list(PLACES)), bool(rng.random() < BLURRED), ""
    label = choice(rng, RECOLOURABLE if rng.random() < COLOURED else LABELS)
    if label in RECOLOURABLE:
        colour = choice(rng, list(HUES))
    image = photo_crop(rng, ground)
    character = DRAWINGS[label][0] if colour else drawing_of(rng, label)
    drawing = icon(character, int(rng.integers(38, 54)), colour, bool(rng.random() < 0.5))
    drawing = drawing.rotate(float(rng.uniform(-25, 25)), Image.Resampling.BICUBIC, expand=True)
    left, top = (rng.integers(min(0, SIDE - extent), max(1, SIDE - extent + 1)) for extent in drawing.size)
    part = Part(label, paste(image, drawing, left, top), colour)
    image = ImageEnhance.Brightness(image).enhance(float(rng.uniform(0.65, 1.2)))
    image = image.filter(ImageFilter.GaussianBlur(float(rng.uniform(1.3, 1.7) if blurred else 0.3)))
    caption = f"A {'blurry ' * blurred}photo of {an(named(part))} {PLACES[ground]}."
    return Sample(image, CAPTION, caption, (caption,), None, (part,), ground, _talk(part, ground, blurred))


def _talk(part: Part, ground: str, blurred: bool) -> tuple[tuple[str, str], ...]:
    behind = ground_talk(ground)
    thing = f"There is {an(named(part))}."
    state = "It is blurred." if blurred else "It is sharp."
    asked = [
        ("Describe the picture.", f"{thing} {behind[1]} {state}"),
        ("What is this?", f"This is {an(part.label)}."),
        ("Is the picture sharp or blurred?", state),
        behind,
    ]
    if part.colour:
        asked.append((f"What color is this {part.label}?", f"This {part.label} is {part.colour}."))
    return tuple(asked)
