"""What a page shows of a view before its scripts are there: tables, as page.html writes them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from plotly.colors import sample_colorscale, unlabel_rgb

from workbench.figures._style import SEQUENTIAL

DIGITS = 3
"""After the point."""
MIDDLE = 128
"""Grey level from which on the ink is dark."""


@dataclass(frozen=True)
class Cell:
    """One field; without a ground it stands on the page's own."""

    text: str
    ground: str = ""
    ink: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its heading."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


def plain(title: str, table: pd.DataFrame) -> Table:
    """Write a table as it is."""
    rows = (tuple(Cell(_said(value)) for value in row) for row in table.itertuples(index=False))
    return Table(title, tuple(map(str, table.columns)), tuple(rows))


def coloured(title: str, matrix: pd.DataFrame, largest: float) -> Table:
    """Write numbers from 0 to `largest` on the colours of the figures, each row after its name; nan stays empty."""
    rows = (
        (Cell(str(name)), *_coloured(row, largest)) for name, row in zip(matrix.index, matrix.to_numpy(), strict=True)
    )
    return Table(title, ("", *map(str, matrix.columns)), tuple(rows))


def _coloured(values: Iterable[float], largest: float) -> Iterable[Cell]:
    for value in values:
        if math.isnan(value):
            yield Cell("")
        else:
            ground = sample_colorscale(SEQUENTIAL, min(max(value / largest, 0.0), 1.0))[0]
            light = sum(unlabel_rgb(ground)) / 3 > MIDDLE
            yield Cell(_said(value), ground, "#000" if light else "#fff")


def _said(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.{DIGITS}f}"
    return str(value)
