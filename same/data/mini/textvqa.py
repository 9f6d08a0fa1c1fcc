"""mini-TextVQA: city signs, letters and handwritten numbers on photographs; the answer is a lower-case string."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from same.data.mini._world import (
    SHORT,
    Part,
    Sample,
    Split,
    choice,
    fitting_font,
    font,
    installed,
    paste,
    photo_crop,
    table,
    write_centred,
)

CITIES = [
    "paris", "london", "tokyo", "delhi", "cairo", "lima", "rome", "oslo", "berlin", "madrid", "moscow",
    "dublin", "vienna", "prague", "zurich", "milan", "boston", "denver", "miami", "quito", "bogota", "dakar",
    "lagos", "osaka", "seoul", "hanoi", "perth", "sydney",
]  # fmt: skip
LETTERS = "ABCDEFHKMRST"
SIGNS = (((0, 110, 60), "white"), ((20, 60, 160), "white"), ((250, 210, 40), "black"), ((245, 245, 245), "black"))
GROUNDS = ("china", "brick", "gravel", "coffee")


@cache
def _cities() -> tuple[str, ...]:
    """The signs' city names that GeoNames knows."""
    known = set(table("world_cities.csv.gz")["name"].str.lower())
    return tuple(city for city in CITIES if city in known)


@cache
def _handwriting(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Handwritten digits (8x8, 0-255) and their values; the first four fifths are for training."""
    rows = np.loadtxt(installed("sklearn", "datasets", "data", "digits.csv.gz"), delimiter=",")
    cut = len(rows) * 4 // 5
    part = rows[:cut] if split == "train" else rows[cut:]
    return (part[:, :-1].reshape(-1, 8, 8) * 15.9).astype(np.uint8), part[:, -1].astype(int)


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; handwritten digits of the two splits are different pictures, cities and letters are shared."""
    ground = choice(rng, GROUNDS)
    image = photo_crop(rng, ground)
    kind = int(rng.integers(4))
    if kind == 0:
        return _letter(rng, image, ground)
    return _number(rng, image, ground, split) if kind == 1 else _city(rng, image, ground)


def _letter(rng: np.random.Generator, image: Image.Image, ground: str) -> Sample:
    letter = choice(rng, LETTERS)
    background, ink = choice(rng, SIGNS)
    left, top = (int(v) for v in rng.integers(2, 26, 2))
    ImageDraw.Draw(image).rounded_rectangle((left, top, left + 35, top + 35), 4, fill=background, outline=ink)
    face = font(choice(rng, ("DejaVuSans-Bold", "DejaVuSerif-Bold")), 28)
    write_centred(image, (left + 18, top + 18), letter, face, ink)
    question = "What letter is on the sign?"
    parts = (Part(f"letter {letter}", (left, top, left + 35, top + 35)),)
    talk = (
        ("Describe the picture.", f"A sign with the letter {letter}."),
        (question, f"The sign shows the letter {letter}."),
    )
    return Sample(image, f"{question}\n{SHORT}", letter.lower(), (letter.lower(),), None, parts, ground, talk)


def _city(rng: np.random.Generator, image: Image.Image, ground: str) -> Sample:
    city = choice(rng, _cities())
    name = city.title()
    background, ink = choice(rng, SIGNS)
    top = int(rng.integers(2, 38))
    draw_on = ImageDraw.Draw(image)
    draw_on.rounded_rectangle((1, top, 62, top + 24), 3, fill=background, outline=ink)
    draw_on.line((32, top + 25, 32, 63), fill=(90, 90, 90), width=3)
    write_centred(image, (32, top + 12), name, fitting_font("DejaVuSans-Bold", name, 58, 17), ink)
    question = choice(
        rng, ("What city name is on the sign?", "What does the sign say?", "What is written on the sign?")
    )
    parts = (Part(f"sign {city}", (1, top, 62, top + 24)),)
    talk = (("Describe the picture.", f"A sign of the city {name}."), (question, f"The sign says {name}."))
    return Sample(image, f"{question}\n{SHORT}", city, (city,), None, parts, ground, talk)


def _number(rng: np.random.Generator, image: Image.Image, ground: str, split: Split) -> Sample:
    pictures, values = _handwriting(split)
    chosen = rng.integers(0, len(values), 2)
    row = Image.fromarray(255 - np.hstack([pictures[i] for i in chosen])).resize((48, 24), Image.Resampling.BICUBIC)
    plate = ImageOps.expand(row.convert("RGBA"), 2, "black")
    left, top = int(rng.integers(0, 13)), int(rng.integers(0, 37))
    paste(image, plate, left, top)
    digits = [str(values[i]) for i in chosen]
    parts = tuple(
        Part(f"digit {d}", (left + 2 + 24 * i, top + 2, left + 26 + 24 * i, top + 26)) for i, d in enumerate(digits)
    )
    number, question = "".join(digits), "What number is written on the plate?"
    talk = (
        ("Describe the picture.", f"A plate with the number {number}."),
        (question, f"The plate shows the number {number}."),
    )
    return Sample(image, f"{question}\n{SHORT}", number, (number,), None, parts, ground, talk)
