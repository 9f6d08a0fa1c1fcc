"""Small charts of real tables: Gapminder's fertility, life expectancy and population of countries over fifty years."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageOps

from same.data.mini._world import PAINTS, SIDE, Part, Split, table

INDICATORS = ("fertility", "life_expectancy", "population")
YEARS = 50  # in the table, of each country
LEFT, TOP, RIGHT, BOTTOM = 8, 5, 60, 55  # of the plot area, in pixels
_SEGMENTS = 4  # a curve's parts, so that their boxes hold little but the curve


@cache
def tables(split: Split) -> np.ndarray:
    """The indicators [countries, 3, years] of the split's countries: each fifth country is for testing."""
    rows = table("gapminder.csv.gz").set_index(["country", "year"])[[*INDICATORS]].apply(pd.to_numeric, errors="coerce")
    whole = np.stack([rows[name].unstack().sort_index().to_numpy() for name in INDICATORS], 1)
    whole = whole[~np.isnan(whole).any((1, 2))]
    tested = np.arange(len(whole)) % 5 == 0
    kept: np.ndarray = whole[tested if split == "test" else ~tested]
    return kept


@cache
def curves(split: Split) -> dict[str, list[np.ndarray]]:
    """The split's series that plainly rise, fall, or do both, by that word, each scaled to [0, 1]."""
    found: dict[str, list[np.ndarray]] = {"rising": [], "falling": [], "rising and falling": []}
    for series in tables(split).reshape(-1, tables(split).shape[-1]):
        along = np.corrcoef(np.arange(len(series)), series)[0, 1]
        if abs(along) > 0.9:
            found["rising" if along > 0 else "falling"].append(unit(series))
        elif abs(along) < 0.5:
            found["rising and falling"].append(unit(series))
    return found


def unit(values: np.ndarray) -> np.ndarray:
    """The values moved and scaled to [0, 1]."""
    scaled: np.ndarray = (values - values.min()) / np.ptp(values)
    return scaled


def empty_plot() -> Image.Image:
    """A white picture with two axes and their ticks."""
    image = Image.new("RGB", (SIDE, SIDE), "white")
    pen = ImageDraw.Draw(image)
    pen.line((LEFT, TOP - 2, LEFT, BOTTOM, RIGHT + 2, BOTTOM), fill="black")
    for step in range(4):
        across, up = LEFT + 10 + 13 * step, BOTTOM - 10 - 12 * step
        pen.line((across, BOTTOM, across, BOTTOM + 2), fill="black")
        pen.line((LEFT - 2, up, LEFT, up), fill="black")
    return image


def _placed(x: np.ndarray, y: np.ndarray) -> list[tuple[float, float]]:
    """Pixels of points given as fractions of the plot area, upwards."""
    across, down = LEFT + 2 + (RIGHT - LEFT - 4) * x, BOTTOM - 3 - (BOTTOM - TOP - 5) * y
    return list(zip(across.tolist(), down.tolist(), strict=True))


def draw_curve(image: Image.Image, heights: np.ndarray, colour: str) -> list[Part]:
    """Draw a curve through equally spaced heights in [0, 1], in place."""
    points = _placed(np.linspace(0, 1, len(heights)), heights)
    ImageDraw.Draw(image).line(points, fill=PAINTS[colour], width=2, joint="curve")
    parts = []
    for piece in np.array_split(np.array(points), _SEGMENTS):
        (left, top), (right, bottom) = piece.min(0).tolist(), piece.max(0).tolist()
        parts.append(Part("curve", (left - 1, top - 2, right + 2, bottom + 2), colour))
    return parts


def draw_points(image: Image.Image, x: np.ndarray, y: np.ndarray, colour: str) -> None:
    """Draw points whose coordinates lie in [0, 1], in place."""
    pen = ImageDraw.Draw(image)
    for across, down in _placed(x, y):
        pen.ellipse((across - 1.5, down - 1.5, across + 1.5, down + 1.5), fill=PAINTS[colour])


def draw_bars(image: Image.Image, heights: np.ndarray, colours: Sequence[str], gap: int) -> list[Part]:
    """Draw bars of heights in [0, 1] with ``gap`` pixels between them, in place."""
    pen, width = ImageDraw.Draw(image), (RIGHT - LEFT - 2) // len(heights)
    parts = []
    for place, (height, colour) in enumerate(zip(heights.tolist(), colours, strict=True)):
        left, top = LEFT + 2 + width * place, BOTTOM - round((BOTTOM - TOP) * height)
        box = (left, top, left + width - gap, BOTTOM)
        pen.rectangle(box, fill=PAINTS[colour], outline="black")
        parts.append(Part("bar", box, colour))
    return parts


def heat_map(values: np.ndarray, low: str, high: str) -> Image.Image:
    """A framed square of cells for values in [0, 1], from the colour ``low`` to the colour ``high``."""
    cells = ImageOps.colorize(Image.fromarray((255 * values).astype(np.uint8)), low, high)
    side = RIGHT - LEFT
    image = Image.new("RGB", (SIDE, SIDE), "white")
    image.paste(cells.resize((side, side), Image.Resampling.NEAREST), (LEFT, TOP))
    ImageDraw.Draw(image).rectangle((LEFT - 1, TOP - 1, LEFT + side, TOP + side), outline="black")
    return image
