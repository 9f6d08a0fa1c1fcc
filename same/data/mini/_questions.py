"""Samples out of a list of questions, and numbers written so that each character is a part."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from same.data.mini._world import SHORT, Colour, Part, Sample, choice

Asked = tuple[str, str, str]  # a question, its answer in the benchmark's format, a whole sentence that answers it
Talk = tuple[tuple[str, str], ...]


def asked_sample(
    rng: np.random.Generator,
    image: Image.Image,
    caption: str,
    asked: Sequence[Asked],
    parts: Sequence[Part],
    backdrop: str = "plain",
    more: Talk = (),
) -> Sample:
    """An item that asks one of the questions; all of them, the caption and ``more`` are talked about."""
    question, answer, _ = choice(rng, asked)
    told = tuple((what, sentence) for what, _, sentence in asked)
    talk = (("Describe the picture.", caption), *told, *more)
    return Sample(image, f"{question}\n{SHORT}", answer, (answer,), None, tuple(parts), backdrop, talk)


def write_characters(
    image: Image.Image,
    left: float,
    middle: float,
    text: str,
    face: ImageFont.FreeTypeFont,
    ink: Colour | str,
) -> list[Part]:
    """Write text in place, from ``left`` on, its height centred at ``middle``; a part for each digit and letter."""
    ImageDraw.Draw(image).text((left, middle), text, font=face, fill=ink, anchor="lm")
    half, parts = face.size / 2, []
    for at, character in enumerate(text):
        start, end = (left + face.getlength(text[:stop]) for stop in (at, at + 1))
        if character.isalnum():
            kind = "digit" if character.isdigit() else "letter"
            parts.append(Part(f"{kind} {character}", (start, middle - half, end, middle + half)))
    return parts
