"""mini-Roadside: a road by day or night with signs and vehicles; the answer is a capitalised word or a digit."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from same.data.mini._questions import Asked, asked_sample
from same.data.mini._world import SIDE, Part, Sample, Split, choice, icon, paste, photo_crop, some

SIGNS = {
    "stop sign": "🛑", "no entry sign": "⛔", "warning sign": "⚠", "children sign": "🚸", "radiation sign": "☢",
    "traffic light": "🚦", "barrier": "🚧", "bicycle sign": "🚳",
}  # fmt: skip
VEHICLES = {"car": "🚗🚙", "bus": "🚌", "truck": "🚚", "bicycle": "🚲"}
TREES = "🌳🌲🌴"
SLOTS = ((34, 12), (46, 15), (62, 18))  # where a vehicle's wheels are, and its size, from far to near
SIDES = ("left", "right")


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; both splits share the drawings in other arrangements on other crops."""
    night, side, sign = bool(rng.random() < 0.5), int(rng.integers(2)), choice(rng, list(SIGNS))
    image = _landscape(rng)
    parts = [_tree(rng, image, 1 - side)] if rng.random() < 0.5 else []
    count = int(rng.integers(1, len(SLOTS) + 1)) if rng.random() < 0.6 else 0
    vehicles = [_vehicle(rng, image, slot) for slot in sorted(some(rng, SLOTS, count))]
    parts += [*vehicles, _sign(image, sign, side)]
    if night:
        image = ImageEnhance.Brightness(image).enhance(0.55)
    asked = _questions(sign, SIDES[side], night, [part.label for part in vehicles])
    traffic = "nothing on the road" if not vehicles else " and ".join(f"a {part.label}" for part in vehicles)
    caption = f"By {'night' if night else 'day'} there is a {sign} on the {SIDES[side]}, and {traffic}."
    more = ((f"What is on the {SIDES[side]} of the road?", f"On the {SIDES[side]} stands a {sign}."),)
    return asked_sample(rng, image, caption, asked, parts, "night road" if night else "day road", more)


def _landscape(rng: np.random.Generator) -> Image.Image:
    """Sky, grass and a road that widens towards the onlooker."""
    horizon = int(rng.integers(20, 25))
    image = photo_crop(rng, "grass")
    pen = ImageDraw.Draw(image)
    red, green, blue = (int(v) for v in rng.integers((120, 180, 225), (170, 215, 256)))
    pen.rectangle((0, 0, SIDE, horizon), fill=(red, green, blue))
    pen.polygon([(30, horizon), (34, horizon), (56, SIDE), (8, SIDE)], fill=(95, 95, 100))
    for top in range(horizon + 3, SIDE, 10):
        pen.line((32, top, 32, top + 4), fill=(235, 235, 235), width=1)
    return image


def _tree(rng: np.random.Generator, image: Image.Image, side: int) -> Part:
    drawing = icon(choice(rng, TREES), int(rng.integers(16, 22)))
    left = rng.integers(0, 6) + (SIDE - 6 - drawing.width) * side
    return Part("tree", paste(image, drawing, left, 30 - drawing.height))


def _vehicle(rng: np.random.Generator, image: Image.Image, slot: tuple[int, int]) -> Part:
    bottom, size = slot
    label = choice(rng, list(VEHICLES))
    drawing = icon(choice(rng, VEHICLES[label]), size, "", bool(rng.random() < 0.5))
    left = 32 - drawing.width // 2 + rng.integers(-bottom // 16, bottom // 16 + 1)
    return Part(label, paste(image, drawing, left, bottom - drawing.height))


def _sign(image: Image.Image, sign: str, side: int) -> Part:
    drawing = icon(SIGNS[sign], 20)
    left = 0 if side == 0 else SIDE - drawing.width
    centre = left + drawing.width // 2
    ImageDraw.Draw(image).line((centre, 30, centre, 52), fill=(110, 110, 110), width=2)
    return Part(sign.removesuffix(" sign"), paste(image, drawing, left, 14))


def _questions(sign: str, side: str, night: bool, vehicles: list[str]) -> list[Asked]:
    count, light = len(vehicles), "night" if night else "day"
    counted = "nothing" if count == 0 else f"{count} of them"
    return [
        ("What is standing at the roadside?", sign.capitalize(), f"At the roadside stands a {sign}."),
        (f"On which side of the road is the {sign}?", side.capitalize(), f"The {sign} is on the {side}."),
        ("How many vehicles are on the road?", str(count), f"One can count {counted} on the road."),
        ("Is it day or night?", light.capitalize(), f"The picture was taken by {light}."),
        (
            "Is the road clear of vehicles?",
            "No" if count else "Yes",
            f"{'Not at all' if count else 'Indeed'}, one can count {counted} on it.",
        ),
    ]
