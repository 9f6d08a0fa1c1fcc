"""Ways to render a drawing that is not a photograph: line art, prints, tiles and the like."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from same.data.mini._world import PAINTS, SIDE, Colour, choice

Rendition = Callable[[np.random.Generator, Image.Image], Image.Image]
FINE = 2  # a drawing comes in FINE x SIDE pixels a side, a rendition goes in SIDE
_INK: Colour = (35, 35, 40)


def _small(image: Image.Image) -> Image.Image:
    return image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _strokes(drawing: Image.Image) -> Image.Image:
    """The drawing's dark outlines in white on black, thick enough to survive at half the size."""
    return drawing.convert("L").point(lambda value: 255 * (value < 70)).filter(ImageFilter.MaxFilter(3))


def _outline(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    return _small(
        ImageOps.colorize(_strokes(drawing), "white", PAINTS[choice(rng, ("red", "green", "blue", "purple"))])
    )


def _blueprint(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    sheet = ImageOps.colorize(_strokes(drawing), (25, 60, int(rng.integers(120, 160))), (240, 245, 255))
    return _small(sheet)


def _sketch(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """Outlines, with hatching where the drawing is not light."""
    rows, columns = np.mgrid[: drawing.height, : drawing.width]
    slope = choice(rng, (1, -1))
    hatched = ((rows + slope * columns) % 6 < 2) & (np.asarray(drawing.convert("L")) < 215)
    shaded = ImageChops.lighter(_strokes(drawing), Image.fromarray((hatched * 150).astype(np.uint8)))
    return _small(ImageOps.colorize(shaded, (250, 248, 240), _INK))


def _mosaic(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    tiles = int(rng.integers(20, 25))
    return drawing.resize((tiles, tiles), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.NEAREST)


def _negative(_: np.random.Generator, drawing: Image.Image) -> Image.Image:
    return ImageOps.invert(_small(drawing))


def _poster(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """Three flat inks: dark outlines, a colour, and a light ground."""
    paint = choice(rng, list(PAINTS.values()))
    return _small(ImageOps.colorize(drawing.convert("L"), _INK, (255, 250, 225), mid=paint))


def _print(_: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """A dot of the mean colour in each cell of a grid."""
    cells, pitch = 21, 12
    sheet = Image.new("RGB", (cells * pitch, cells * pitch), "white")
    pen, colours = ImageDraw.Draw(sheet), np.asarray(drawing.resize((cells, cells), Image.Resampling.BOX))
    for row, column in np.ndindex(cells, cells):
        box = (pitch * column, pitch * row, pitch * column + pitch - 2, pitch * row + pitch - 2)
        pen.ellipse(box, fill=tuple(colours[row, column].tolist()))
    return _small(sheet)


def _painting(rng: np.random.Generator, drawing: Image.Image) -> Image.Image:
    """Colours run together on a tinted canvas."""
    canvas = Image.new("RGB", drawing.size, choice(rng, ((235, 220, 190), (215, 225, 235), (225, 235, 210))))
    return _small(ImageChops.multiply(drawing, canvas).filter(ImageFilter.ModeFilter(7)))


RENDITIONS: dict[str, Rendition] = {
    "outline": _outline,
    "blueprint": _blueprint,
    "sketch": _sketch,
    "mosaic": _mosaic,
    "negative": _negative,
    "poster": _poster,
    "print": _print,
    "painting": _painting,
}
