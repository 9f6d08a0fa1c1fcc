"""mini-ChartQA: three bars of real figures; the answer is a number, a country's code, or ``Yes`` / ``No``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from same.data.mini._gapminder import figures
from same.data.mini._questions import Asked, Talk, asked_sample, write_characters
from same.data.mini._world import (
    PAINTS,
    SIDE,
    Part,
    Sample,
    Split,
    choice,
    font,
    pale_ground,
    some,
    write_centred,
)

CODES = ("BR", "CN", "DE", "EG", "FR", "IN", "JP", "KE", "MX", "NG", "US", "ZA")
COLOURS = ("red", "green", "blue", "purple")  # dark enough for white figures
BARS, WIDTH = 3, 18
FOOT, LOWEST, HIGHEST = 53, 15, 40  # where bars stand, and their heights, in pixels


@dataclass(frozen=True)
class Measure:
    """What a chart is about: a column, its name, decimals, and the difference that eyes can see."""

    column: str
    name: str
    decimals: int
    step: float


MEASURES = (Measure("babies", "Fertility", 1, 0.4), Measure("life", "Life span", 0, 4))


@cache
def _values(column: str, year: int) -> dict[str, float]:
    rows = figures()
    rows = rows[(rows["year"] == year) & rows["code"].isin(CODES)]
    return dict(zip(rows["code"], rows[column], strict=True))


@cache
def years(split: Split) -> tuple[int, ...]:
    """The split's years: every fifth is for testing."""
    known = sorted(set(figures()["year"].tolist()))
    return tuple(year for at, year in enumerate(known) if (at % 5 == 4) == (split == "test"))


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; the years of the two splits differ, the countries are shared."""
    measure = choice(rng, MEASURES)
    bars = _bars(rng, measure, choice(rng, years(split)))
    colour = choice(rng, COLOURS)
    image = pale_ground(rng)
    write_centred(image, (32, 5), measure.name, font("DejaVuSans", 10), "black")
    ImageDraw.Draw(image).line((0, FOOT, SIDE, FOOT), fill="black")
    parts = [Part(f"title {measure.name}", (4, 0, 60, 10))]
    low, high = (end(bars.values()) for end in (min, max))
    for at, (code, value) in enumerate(bars.items()):
        height = LOWEST + (HIGHEST - LOWEST) * (value - low) / (high - low)
        parts += _bar(image, 1 + 22 * at, height, colour, (f"{value:.{measure.decimals}f}", code))
    written = {code: f"{value:.{measure.decimals}f}" for code, value in bars.items()}
    listed = ", ".join(f"{code} at {value}" for code, value in written.items())
    caption = f"A {colour} bar chart of {measure.name.lower()} with {listed}."
    return asked_sample(rng, image, caption, _questions(rng, bars, written), parts, "chart", _more(written))


def _bars(rng: np.random.Generator, measure: Measure, year: int) -> dict[str, float]:
    """Values of some countries, far enough apart to be told by the bars' heights."""
    known = _values(measure.column, year)
    while True:
        bars = {code: known[code] for code in some(rng, list(known), BARS)}
        if np.diff(sorted(bars.values())).min() >= measure.step:
            return bars


def _bar(image: Image.Image, left: int, height: float, colour: str, texts: tuple[str, str]) -> list[Part]:
    top = FOOT - round(height)
    ImageDraw.Draw(image).rectangle((left, top, left + WIDTH - 1, FOOT - 1), fill=PAINTS[colour])
    value, code = texts
    bar = Part("bar", (left, top, left + WIDTH, FOOT), colour)
    face = font("DejaVuSans-Bold", 9)
    start = left + (WIDTH - face.getlength(value)) / 2
    digits = write_characters(image, start, FOOT - 7, value, face, "white")
    label = Part(
        f"code {code}", write_centred(image, (left + WIDTH / 2, FOOT + 6), code, font("DejaVuSans-Bold", 9), "black")
    )
    return [bar, *digits, label]


def _questions(rng: np.random.Generator, bars: dict[str, float], written: dict[str, str]) -> list[Asked]:
    one, two, _ = some(rng, list(bars), BARS)
    top, bottom = (end(bars, key=bars.__getitem__) for end in (max, min))
    higher = bars[one] > bars[two]
    said = f"{'Indeed' if higher else 'Not at all'}, {one} is at {written[one]} and {two} at {written[two]}."
    return [
        (f"What is the value of {one}?", written[one], f"The bar of {one} stands at {written[one]}."),
        ("Which country has the highest bar?", top, f"The highest bar is that of {top}."),
        ("Which country has the lowest bar?", bottom, f"The lowest bar is that of {bottom}."),
        ("What is the highest value?", written[top], f"The highest bar stands at {written[top]}."),
        (f"Is the value of {one} higher than that of {two}?", "Yes" if higher else "No", said),
    ]


def _more(written: dict[str, str]) -> Talk:
    places = ("left", "middle", "right")
    return tuple(
        (f"What does the {place} bar show?", f"The {place} bar is that of {code} and stands at {value}.")
        for place, (code, value) in zip(places, written.items(), strict=True)
    )
