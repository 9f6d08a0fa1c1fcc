"""mini-ImageNet: one object, turned, shaded and cropped, on a photograph; the answer is its lower-case class label."""

from __future__ import annotations

import numpy as np

from same.data.mini._world import (
    LABELS,
    SHORT,
    Part,
    Sample,
    Split,
    an,
    choice,
    multiple_choice,
    photo_crop,
    place_turned,
)

GROUNDS = ("grass", "gravel", "brick", "china", "flower", "moon", "coffee")
QUESTION = "What is the object in the image?"


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; both splits share the drawings under other sizes, angles, shades and grounds."""
    label, ground = choice(rng, LABELS), choice(rng, GROUNDS)
    image = photo_crop(rng, ground)
    part = Part(label, place_turned(rng, image, label, (36, 60), 20))
    talk = (("Describe the picture.", f"The picture shows {an(label)}."), (QUESTION, f"It is {an(label)}."))
    lettered = multiple_choice(rng, QUESTION, label, LABELS, int(rng.integers(2, 5)))[2][:3]
    return Sample(image, f"{QUESTION}\n{SHORT}", label, (label,), None, (part,), ground, talk + lettered)
