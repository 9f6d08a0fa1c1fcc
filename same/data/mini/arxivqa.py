"""mini-ArxivQA: lettered questions on small charts of real tables; one capital letter answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from same.data.mini._charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    YEARS,
    curves,
    draw_bars,
    draw_curve,
    draw_points,
    empty_plot,
    heat_map,
    tables,
    unit,
)
from same.data.mini._world import HUES, Part, Sample, Split, choice, multiple_choice, some

TYPE = "What type of plot is shown in the figure?"
CORNERS = ("top left", "top right", "bottom left", "bottom right")
SIDES = ("on the left", "in the middle", "on the right")
RAMPS = (("black", "white"), ("#101050", "#ffe040"), ("#300810", "#ffb0a0"))
CELLS = 8  # a side of a heat map
FERTILITY, LIFE, POPULATION = range(3)  # places in `tables`
AGAINST_LIFE = {"positive": LIFE, "negative": FERTILITY, "none": POPULATION}  # what correlates so with life expectancy


@dataclass(frozen=True)
class Figure:
    """A drawn chart and a question about what it shows: the right option and all of them."""

    image: Image.Image
    parts: list[Part]
    question: str
    right: str
    options: tuple[str, ...]


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; the countries of the two splits are different ones."""
    kind = choice(rng, list(FIGURES))
    figure = FIGURES[kind](rng, split)
    type_asked = multiple_choice(rng, TYPE, kind, list(FIGURES), 4, ordered=True)
    count = min(4, len(figure.options))
    asked = multiple_choice(rng, figure.question, figure.right, figure.options, count, ordered=True)
    text, letter, talk = choice(rng, (type_asked, asked))
    other = (asked if talk is type_asked[2] else type_asked)[2][-1]
    described = ("Describe the picture.", f"The figure is a {kind}.")
    parts = (Part(kind, (LEFT, TOP, RIGHT, BOTTOM)), *figure.parts)
    return Sample(figure.image, text, letter, (letter,), None, parts, "plain", (described, other, *talk))


def _line_plot(rng: np.random.Generator, split: Split) -> Figure:
    """Two curves, each in a band of its own height."""
    image, colours, known = empty_plot(), some(rng, list(HUES), 2), curves(split)
    trends = [choice(rng, list(known)) for _ in colours]
    parts, ends = [], []
    for colour, trend, low in zip(colours, trends, some(rng, (0.0, 0.4), 2), strict=True):
        heights = low + float(rng.uniform(0.4, 0.6)) * choice(rng, known[trend])
        parts += draw_curve(image, heights, colour)
        ends.append(heights[-1])
    if abs(ends[0] - ends[1]) > 0.1 and rng.random() < 0.5:
        highest = colours[int(np.argmax(ends))]
        return Figure(image, parts, "Which curve is the highest at the right end?", highest, tuple(HUES))
    return Figure(image, parts, f"How does the {colours[0]} curve run?", trends[0], tuple(known))


def _scatter_plot(rng: np.random.Generator, split: Split) -> Figure:
    """Countries by life expectancy and another year's life expectancy, fertility or population (its logarithm)."""
    wanted = choice(rng, list(AGAINST_LIFE))
    while True:
        table = tables(split)[some(rng, range(len(tables(split))), 25)]
        one, two = (int(year) for year in rng.integers(0, YEARS, 2))
        x, y = table[:, LIFE, one], table[:, AGAINST_LIFE[wanted], two]
        if wanted == "none":
            y = np.log(y)
        strength = float(np.corrcoef(x, y)[0, 1])
        if {"positive": strength > 0.6, "negative": strength < -0.6, "none": abs(strength) < 0.15}[wanted]:
            break
    image, colour = empty_plot(), choice(rng, list(HUES))
    draw_points(image, unit(x), unit(y), colour)
    question = "What correlation does the figure show?"
    return Figure(image, [], question, wanted, tuple(AGAINST_LIFE))


def _bar_chart(rng: np.random.Generator, split: Split) -> Figure:
    """Three or four countries' values in one year, the largest and the smallest well apart from the others."""
    size, indicator = int(rng.integers(3, 5)), choice(rng, (FERTILITY, POPULATION))
    while True:
        heights = tables(split)[some(rng, range(len(tables(split))), size), indicator, rng.integers(YEARS)]
        heights = heights / heights.max()
        ranked = np.sort(heights)
        if ranked[0] > 0.12 and ranked[1] - ranked[0] > 0.1 and ranked[-1] - ranked[-2] > 0.1:
            break
    image, colours = empty_plot(), some(rng, list(HUES), size)
    parts = draw_bars(image, heights, colours, 3)
    most = bool(rng.random() < 0.5)
    right = colours[int(np.argmax(heights) if most else np.argmin(heights))]
    return Figure(image, parts, f"Which bar is the {'tallest' if most else 'shortest'}?", right, tuple(colours))


def _heat_map(rng: np.random.Generator, split: Split) -> Figure:
    """Countries sorted by one indicator down, years across, possibly turned round."""
    while True:
        chosen = some(rng, range(len(tables(split))), CELLS)
        years = np.linspace(0, YEARS - 1, CELLS).astype(int)
        values = unit(tables(split)[chosen][:, choice(rng, (FERTILITY, LIFE))][:, years])
        values = values[np.argsort(values.mean(1))][:: choice(rng, (1, -1)), :: choice(rng, (1, -1))]
        corners = [
            values[rows, columns].mean()
            for rows in (slice(3), slice(-3, None))
            for columns in (slice(3), slice(-3, None))
        ]
        ranked = np.sort(corners)
        if ranked[-1] - ranked[-2] > 0.12:
            break
    image = heat_map(values, *choice(rng, RAMPS))
    right = CORNERS[int(np.argmax(corners))]
    return Figure(image, [], "Which corner of the heat map is the brightest?", right, CORNERS)


def _histogram(rng: np.random.Generator, split: Split) -> Figure:
    """How many of forty countries have which value in one year; the peak is well above the other thirds."""
    wanted = int(rng.integers(len(SIDES)))
    while True:
        chosen = some(rng, range(len(tables(split))), 40)
        numbers, _ = np.histogram(tables(split)[chosen, choice(rng, (FERTILITY, LIFE)), rng.integers(YEARS)], 8)
        thirds = [part.max() for part in (numbers[:3], numbers[3:5], numbers[5:])]
        if thirds[wanted] > 1.2 * np.delete(thirds, wanted).max():
            break
    image = empty_plot()
    draw_bars(image, numbers / numbers.max(), [choice(rng, list(HUES))] * len(numbers), 0)
    return Figure(image, [], "Where is the peak of the histogram?", SIDES[wanted], SIDES)


FIGURES = {
    "line plot": _line_plot,
    "scatter plot": _scatter_plot,
    "bar chart": _bar_chart,
    "heat map": _heat_map,
    "histogram": _histogram,
}
