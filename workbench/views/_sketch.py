"""What a page shows of a view before its scripts are there: tables, as page.html writes them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from bokeh.colors import RGB
from plotly.colors import sample_colorscale, unlabel_rgb

from workbench.figures._style import SEQUENTIAL

MOST = 6
"""Rows of a table that are written."""
MIDDLE = 0.18
"""Luminance of the ground from which on dark ink stands out more than light ink."""


@dataclass(frozen=True, slots=True)
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
    more: int = 0
    """Rows that are left out."""


def plain(title: str, table: pd.DataFrame) -> Table:
    """Write the first rows of a table, numbers with three digits."""
    rows = (tuple(Cell(_said(value, 3)) for value in row) for row in table.head(MOST).itertuples(index=False))
    return Table(title, tuple(map(str, table.columns)), tuple(rows), max(0, len(table) - MOST))


def coloured(title: str, matrix: pd.DataFrame, largest: float) -> Table:
    """Write numbers from 0 to `largest` as a heat map does: two digits on its colours; nan stays empty."""
    rows = (
        (Cell(str(name)), *_coloured(row, largest)) for name, row in zip(matrix.index, matrix.to_numpy(), strict=True)
    )
    return Table(title, ("", *map(str, matrix.columns)), tuple(rows))


def luminance(colour: str) -> float:
    """Relative luminance of a colour "rgb(r, g, b)", from 0 to 1."""
    return RGB(*unlabel_rgb(colour)).luminance


def _coloured(values: Iterable[float], largest: float) -> Iterable[Cell]:
    for value in values:
        if math.isnan(value):
            yield Cell("")
        else:
            ground = sample_colorscale(SEQUENTIAL, min(max(value / largest, 0.0), 1.0))[0]
            yield Cell(_said(value, 2), ground, "#000" if luminance(ground) > MIDDLE else "#fff")


def _said(value: Any, digits: int) -> str:
    if pd.isna(value):
        return ""
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
