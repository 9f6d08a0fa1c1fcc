"""mini-FloodNet: real hills from above, drowned by us; the answer is ``flooded``, a number, or ``Yes`` / ``No``."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from same.data.mini._questions import Asked, asked_sample
from same.data.mini._world import SIDE, Part, Sample, Split, choice, installed, some

WINDOW = 48  # cells of the elevation model that a picture shows
WEST = 0.7  # share of the model, from the west, that is for training
CELL = 16  # buildings stand apart, one a square of this side
BUILDING = 10
MOST_BUILDINGS = 4
ROAD = 5
WATER, ASPHALT = np.array([70, 110, 160]), np.array([150, 150, 150])
ROOFS = ((200, 60, 50), (235, 235, 235), (240, 170, 60))


@cache
def _terrain() -> tuple[np.ndarray, np.ndarray]:
    """Elevation in metres and the light on it in [0, 1], from the north-west."""
    with np.load(installed("matplotlib", "mpl-data", "sample_data", "jacksboro_fault_dem.npz")) as model:
        elevation = model["elevation"].astype(np.float32)
    down, across = np.gradient(elevation, 90)  # metres between cells
    light = (1 + across + down) / np.sqrt(3 * (1 + across**2 + down**2))
    return elevation, np.clip(light, 0, 1)


def region(split: Split) -> slice:
    """The split's columns of the elevation model; no column is in both."""
    columns = _terrain()[0].shape[1]
    cut = round(columns * WEST)
    return slice(0, cut) if split == "train" else slice(cut, columns)


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; the terrain of the two splits lies apart."""
    height, light = _window(rng, split)
    flooded = bool(rng.random() < 0.6)
    wet = height < np.percentile(height, rng.uniform(40, 60)) if flooded else np.zeros(height.shape, bool)
    ground = np.array([95, 150, 70]) * (0.55 + 0.8 * light[..., None]) + rng.normal(0, 4, (SIDE, SIDE, 1))
    water = WATER * (0.95 + 0.1 * light[..., None]) + rng.normal(0, 3, (SIDE, SIDE, 1))
    pixels = np.where(wet[..., None], water, ground)
    road = CELL * int(rng.integers(1, 3)) + (CELL - ROAD) // 2 if rng.random() < 0.5 else None
    if road is not None:
        row = slice(road, road + ROAD)
        pixels[row] = np.where(wet[row, :, None], 0.6 * WATER + 0.4 * ASPHALT - 20, ASPHALT)
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    parts = _surface(wet)
    if road is not None:
        parts.append(Part("road", (0, road - 2, SIDE, road + ROAD + 2)))
    buildings = _buildings(rng, image, wet, road)
    drowned = sum(part.label == "building flooded" for part in buildings)
    asked = _questions(flooded, len(buildings), drowned) + _about_road(wet, road)
    land = "Water covers a part of the land" if flooded else "The land is not under water"
    counted = f"{len(buildings)} building{'s' * (len(buildings) != 1)}"
    caption = f"{land}, and one can see {counted}, {drowned} of them in water."
    return asked_sample(rng, image, caption, asked, [*parts, *buildings], "land")


def _window(rng: np.random.Generator, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Elevation and light of a random square of the split's terrain, [SIDE, SIDE] each."""
    columns = region(split)
    left = int(rng.integers(columns.start, columns.stop - WINDOW + 1))
    top = int(rng.integers(0, _terrain()[0].shape[0] - WINDOW + 1))
    squares = (field[top : top + WINDOW, left : left + WINDOW] for field in _terrain())
    height, light = (
        np.asarray(Image.fromarray(square).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for square in squares
    )
    return height, light


def _surface(wet: np.ndarray) -> list[Part]:
    """The squares of eight pixels that are mostly water."""
    step = 8
    share = wet.reshape(SIDE // step, step, SIDE // step, step).mean((1, 3))
    return [
        Part("water", (step * column, step * row, step * (column + 1), step * (row + 1)))
        for row, column in np.argwhere(share > 0.5).tolist()
    ]


def _buildings(rng: np.random.Generator, image: Image.Image, wet: np.ndarray, road: int | None) -> list[Part]:
    """Draw some buildings in place, each clearly in the water or clearly out of it."""
    squares = [
        (CELL * column, CELL * row) for row in range(4) for column in range(4) if road is None or row != road // CELL
    ]
    count, found = int(rng.integers(1, MOST_BUILDINGS + 1)), list[Part]()
    for left, top in some(rng, squares, len(squares)):
        x, y = (corner + int(shift) for corner, shift in zip((left, top), rng.integers(2, 5, 2), strict=True))
        share = wet[y : y + BUILDING, x : x + BUILDING].mean()
        if len(found) == count or 0.1 < share < 0.9:
            continue
        pen, roof = ImageDraw.Draw(image), choice(rng, ROOFS)
        pen.rectangle((x, y, x + BUILDING - 1, y + BUILDING - 1), fill=roof, outline=(30, 30, 30))
        pen.line((x + 1, y + BUILDING // 2, x + BUILDING - 2, y + BUILDING // 2), fill=(30, 30, 30))
        state = "flooded" if share >= 0.9 else "dry"
        found.append(Part(f"building {state}", (x, y, x + BUILDING, y + BUILDING)))
    return found


def _questions(flooded: bool, buildings: int, drowned: int) -> list[Asked]:
    condition = "flooded" if flooded else "non flooded"
    covered = "Water covers a part of it." if flooded else "There is no water on it."
    any_said = f"Indeed, water surrounds {drowned} of them." if drowned else "Not at all, water surrounds none of them."
    return [
        ("What is the overall condition of the given image?", condition, covered),
        ("How many buildings are in the image?", str(buildings), f"One can count {buildings} of them."),
        ("Is any building flooded?", "Yes" if drowned else "No", any_said),
        *([("How many buildings are flooded?", str(drowned), f"Water surrounds {drowned} of them.")] * flooded),
    ]


def _about_road(wet: np.ndarray, road: int | None) -> list[Asked]:
    """A question on the road where there is one, clearly in the water or clearly out of it."""
    if road is None:
        return []
    share = wet[road : road + ROAD].mean()
    if 0.15 < share < 0.5:
        return []
    under = bool(share >= 0.5)
    said = "Water covers much of the road." if under else "The road is free of water."
    return [("What is the condition of the road?", "flooded" if under else "non flooded", said)]
