"""Shaded spheres, cubes and cylinders, drawn by their surfaces' slant to one light at the upper left."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from same.data.mini._world import PAINTS, SIDE, Box, paste

_FINE = 4  # drawn this much larger, for smooth edges
Surface = tuple[np.ndarray, np.ndarray]  # where the solid is, and how brightly it is lit there


def _sphere(x: np.ndarray, y: np.ndarray) -> Surface:
    height = np.sqrt(np.clip(1 - x**2 - y**2, 0, 1))
    slant = np.clip(-0.5 * x - 0.6 * y + 0.62 * height, 0, 1)
    return x**2 + y**2 < 1, 0.4 + 0.6 * slant + 0.6 * slant**20


def _cube(x: np.ndarray, y: np.ndarray) -> Surface:
    edge, depth = 0.5, 0.5  # right and upper edge of the front, and how far the back is shifted
    front = (x < edge) & (y > -edge)
    up, right = (-edge - y) / depth, (x - edge) / depth
    top = (up >= 0) & (x > -1 + depth * up) & (x < edge + depth * up)
    side = (right >= 0) & (y > -edge - depth * right) & (y < 1 - depth * right)
    return front | top | side, np.select([front, top], [0.85, 1.2], 0.55)


def _cylinder(x: np.ndarray, y: np.ndarray) -> Surface:
    radius, rim, lid = 0.75, 0.25, -0.75
    around = np.sqrt(np.clip(1 - (x / radius) ** 2, 0, 1))
    top = (x / radius) ** 2 + ((y - lid) / rim) ** 2 < 1
    body = (np.abs(x) < radius) & (y > lid) & (y < -lid + rim * around)
    across = np.clip(1 - (x / radius + 0.4) ** 2, 0, 1)
    return top | body, np.where(top, 1.2, 0.4 + 0.55 * across)


SHAPES = {"sphere": _sphere, "cube": _cube, "cylinder": _cylinder}


@cache
def _solid(shape: str, colour: str, size: int) -> Image.Image:
    at = (np.arange(_FINE * size) + 0.5) / (_FINE * size) * 2 - 1
    inside, light = SHAPES[shape](*np.meshgrid(at, at))
    shaded = np.multiply.outer(light, PAINTS[colour]) + 160 * np.clip(light - 1, 0, 1)[..., None]
    pixels = np.dstack([np.clip(shaded, 0, 255), 255 * inside]).astype(np.uint8)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS)


def floor(rng: np.random.Generator) -> Image.Image:
    """A grey floor, lighter towards the viewer."""
    rows = np.linspace(165, 215, SIDE)[:, None] + rng.normal(0, 2, (SIDE, SIDE))
    return Image.fromarray(rows.astype(np.uint8)).convert("RGB")


def stand(image: Image.Image, shape: str, colour: str, size: int, centre: int, base: int) -> Box:
    """Put a solid with its shadow on the floor in place, around column ``centre``, down to row ``base``."""
    left, top = centre - size // 2, base - size
    shadow = (left + size // 5, base - size // 3, left + size + size // 5, base + 1)
    ImageDraw.Draw(image, "RGBA").ellipse(shadow, fill=(40, 40, 40, 90))
    return paste(image, _solid(shape, colour, size), left, top)
