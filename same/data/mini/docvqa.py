"""mini-DocVQA: small forms with real order lines; the answer stands in the form, letter for letter."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from same.data.mini._questions import Asked, asked_sample, write_characters
from same.data.mini._world import (
    SIDE,
    Part,
    Sample,
    Split,
    choice,
    fitting_font,
    font,
    pale_ground,
    some,
    table,
    write_centred,
)

ITEMS = ("Art", "Binders", "Chairs", "Labels", "Paper", "Phones", "Storage", "Tables")
PAPERS = ("Invoice", "Order", "Receipt")
NAMES = {"Item": "item", "Qty": "quantity", "Sum": "total", "To": "region"}  # as printed, as asked for
LARGEST_SUM, LARGEST_QUANTITY = 99, 9
LINES = 3
BANDS = ((40, 60, 110), (120, 40, 40), (30, 90, 60), (70, 70, 70))


@dataclass(frozen=True)
class Order:
    """A real order line: what was bought, how many, for how many dollars, and the region it went to."""

    item: str
    quantity: int
    total: int
    region: str

    def printed(self) -> dict[str, str]:
        """Its values by their printed names."""
        return {"Item": self.item, "Qty": str(self.quantity), "Sum": str(self.total), "To": self.region}


@cache
def orders(split: Split) -> tuple[Order, ...]:
    """The split's order lines with short words and small numbers; no line is in both."""
    rows = table("SampleSuperstore.csv.gz")
    rows = rows.assign(total=rows["Sales"].round().astype(int))
    small = rows["total"].between(1, LARGEST_SUM) & (rows["Quantity"] <= LARGEST_QUANTITY)
    rows = rows[small & rows["Sub-Category"].isin(ITEMS)]
    columns = (rows[name].tolist() for name in ("Sub-Category", "Quantity", "total", "Region"))
    known = sorted(set(zip(*columns, strict=True)))
    return tuple(Order(*line) for at, line in enumerate(known) if (at % 5 == 4) == (split == "test"))


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item: a form that shows three of an order line's four values, in any order."""
    order, paper = choice(rng, orders(split)), choice(rng, PAPERS)
    image = pale_ground(rng)
    ImageDraw.Draw(image).rectangle((0, 0, SIDE, 14), fill=choice(rng, BANDS))
    write_centred(image, (32, 7), paper, font("DejaVuSans-Bold", 11), "white")
    parts = [Part(f"paper {paper}", (8, 0, 56, 15))]
    shown = dict(some(rng, list(order.printed().items()), LINES))
    for line, (name, value) in enumerate(shown.items()):
        parts += _line(image, 24 + 16 * line, name, value)
    caption = f"This {paper} shows " + ", ".join(f"the {NAMES[name]} {value}" for name, value in shown.items()) + "."
    places = ("first", "second", "third")
    lines = tuple(
        (f"What stands in the {place} line?", f"The {place} line says {name} and then {value}.")
        for place, (name, value) in zip(places, shown.items(), strict=True)
    )
    return asked_sample(rng, image, caption, _questions(paper, shown), parts, "paper", lines)


def _line(image: Image.Image, middle: int, name: str, value: str) -> list[Part]:
    face = font("DejaVuSans-Bold", 9)
    ImageDraw.Draw(image).text((1, middle), name, font=face, fill=(90, 90, 90), anchor="lm")
    key = Part(f"key {name}", (0, middle - 7, 24, middle + 7))
    if value.isdigit():
        return [key, *write_characters(image, 32, middle, value, font("DejaVuSans-Bold", 12), "black")]
    face = fitting_font("DejaVuSans", value, 38, 11)
    ImageDraw.Draw(image).text((26, middle), value, font=face, fill="black", anchor="lm")
    return [key, Part(f"word {value}", (26, middle - 7, 26 + face.getlength(value), middle + 7))]


def _questions(paper: str, shown: dict[str, str]) -> list[Asked]:
    values = [
        (f"What is the {NAMES[name]}?", value, f"The {NAMES[name]} reads {value}.") for name, value in shown.items()
    ]
    return [*values, ("What kind of document is this?", paper, f"The heading says {paper}.")]
