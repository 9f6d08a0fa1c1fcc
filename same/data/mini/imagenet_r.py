"""mini-ImageNet-R: one object as line art, print, mosaic or painting; the answer is its lower-case class label."""

from __future__ import annotations

import numpy as np
from PIL import Image

from same.data.mini._renditions import FINE, RENDITIONS
from same.data.mini._world import (
    LABELS,
    SHORT,
    SIDE,
    Part,
    Sample,
    Split,
    an,
    choice,
    drawing_of,
    icon,
    multiple_choice,
    paste,
)

QUESTION = "What is the object in the image?"


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; both splits share drawings and renditions under other sizes, angles and inks."""
    label, rendition = choice(rng, LABELS), choice(rng, list(RENDITIONS))
    drawing = icon(drawing_of(rng, label), FINE * int(rng.integers(46, 59)), "", bool(rng.random() < 0.5))
    drawing = drawing.rotate(float(rng.uniform(-15, 15)), Image.Resampling.BICUBIC, expand=True)
    page = Image.new("RGB", (FINE * SIDE, FINE * SIDE), "white")
    corner = ((FINE * SIDE - extent) // 2 + int(rng.integers(-6, 7)) for extent in drawing.size)
    left, top, right, bottom = (edge / FINE for edge in paste(page, drawing, *corner))
    part = Part(label, (left, top, right, bottom))
    talk = (
        ("Describe the picture.", f"The picture shows {an(label)}, drawn as {an(rendition)}."),
        (QUESTION, f"It is {an(label)}."),
        ("How is it drawn?", f"It is drawn as {an(rendition)}."),
        *multiple_choice(rng, QUESTION, label, LABELS, int(rng.integers(2, 5)))[2][:3],
    )
    image = RENDITIONS[rendition](rng, page)
    return Sample(image, f"{QUESTION}\n{SHORT}", label, (label,), None, (part,), rendition, talk)
