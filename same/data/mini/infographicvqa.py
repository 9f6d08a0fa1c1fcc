"""mini-InfographicVQA: flag, year and three figures of a real country; the answer is a figure as it is printed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from same.data.mini._gapminder import figures
from same.data.mini._questions import Asked, asked_sample, write_characters
from same.data.mini._world import (
    SIDE,
    Part,
    Sample,
    Split,
    choice,
    flag_character,
    font,
    icon,
    paste,
    some,
)

ICONS = {"life expectancy": "❤", "number of babies per woman": "👶", "population": "👥"}
INKS = ((170, 30, 40), (30, 70, 170), (20, 110, 60))
MOST_MILLIONS = 99
FACE = "DejaVuSans-Bold"


@dataclass(frozen=True)
class Portrait:
    """A country in a year, as the infographic prints it."""

    code: str
    year: str
    figures: tuple[str, ...]  # in the order of ICONS


@cache
def portraits(split: Split) -> tuple[Portrait, ...]:
    """The split's countries in all their years: every fifth country is for testing."""
    rows = figures()
    rows = rows[rows["millions"].between(1, MOST_MILLIONS)]
    held_out = set(sorted(set(rows["code"]))[4::5])
    rows = rows[rows["code"].isin(held_out) == (split == "test")]
    columns = (rows[name].tolist() for name in ("code", "year", "life", "babies", "millions"))
    return tuple(
        Portrait(code, str(year), (f"{life:.0f}", f"{babies:.1f}", f"{millions:.0f}M"))
        for code, year, life, babies, millions in zip(*columns, strict=True)
    )


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; no country is in both splits."""
    shown = choice(rng, portraits(split))
    red, green, blue = (int(v) for v in rng.integers(215, 250, 3))
    image = Image.new("RGB", (SIDE, SIDE), (red, green, blue))
    flag = icon(flag_character(shown.code), 24)
    parts = [Part("flag", paste(image, flag, 1, 8 - flag.height // 2))]
    parts += write_characters(image, 28, 8, shown.year, font(FACE, 12), "black")
    ImageDraw.Draw(image).line((0, 16, SIDE, 16), fill=(120, 120, 120))
    rows = some(rng, list(zip(ICONS, shown.figures, INKS, strict=True)), len(ICONS))
    for line, (name, figure, ink) in enumerate(rows):
        drawing = icon(ICONS[name], 14)
        box = paste(image, drawing, 12 - drawing.width // 2, 25 + 16 * line - drawing.height // 2)
        parts.append(Part(f"icon of {name}", box))
        parts += write_characters(image, 32, 25 + 16 * line, figure, font(FACE, 12), ink)
    figures_said = ", ".join(f"the {name} was {figure}" for name, figure, _ in rows)
    places = ("first", "second", "third")
    more = tuple(
        (f"What stands in the {place} row?", f"The {place} row gives the {name}, which is {figure}.")
        for place, (name, figure, _) in zip(places, rows, strict=True)
    )
    return asked_sample(rng, image, f"In {shown.year} {figures_said}.", _questions(shown), parts, "poster", more)


def _questions(shown: Portrait) -> list[Asked]:
    asked = [
        (f"What is the {name}?", figure, f"The {name} was {figure}.")
        for name, figure in zip(ICONS, shown.figures, strict=True)
    ]
    return [
        *asked,
        ("Which year does the infographic describe?", shown.year, f"The infographic describes {shown.year}."),
    ]
