"""mini-ScienceQA: lettered questions on elements, flags, animals, masses and materials; one capital letter answers."""

from __future__ import annotations

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

from same.data.mini._world import (
    DRAWINGS,
    FOODS,
    Part,
    Sample,
    Split,
    an,
    choice,
    drawing_of,
    flag_character,
    font,
    icon,
    is_light,
    multiple_choice,
    pale_ground,
    paste,
    some,
    table,
    write_centred,
)

ELEMENTS = "H He C N O F Ne Na Al Si Cl Ar Fe Ni Cu Zn Br Ag Sn I Au Hg Pb U".split()
COUNTRIES = (
    "BR CA AR MX US CU FR DE IT ES GR SE CH PL FI GB JP CN VN KR AU IN PK NP EG IL MA KE ZA NG".split()
)  # well known, easily told apart at 64 pixels
GROUPS = {
    "mammal": "cat dog horse cow pig rabbit bear tiger whale elephant".split(),
    "bird": ["bird", "owl", "penguin"],
    "reptile": ["snake", "turtle"],
    "insect": ["butterfly", "bee"],
    "fish": ["fish"],
    "amphibian": ["frog"],
    "arachnid": ["spider"],
}
MASSES = "bee egg key apple cat horse car elephant bus whale".split()  # from light to heavy
MATERIALS = {"key": "metal", "hammer": "metal", "book": "paper", "shoe": "fabric", "cup": "ceramic", "tree": "wood"}
FROM_ANIMALS = ("egg", "cheese")


@cache
def _elements() -> dict[str, tuple[int, str, str, str]]:
    """Symbol to number, name, standard state and CPK colour, from the periodic table."""
    rows = table("elements.csv")
    rows.columns = rows.columns.str.strip()
    columns = ("atomic number", "name", "standard state", "CPK", "symbol")
    found = {}
    for number, name, state, colour, symbol in zip(*(rows[c].astype(str).str.strip() for c in columns), strict=True):
        if symbol in ELEMENTS:
            found[symbol] = (int(number), name, state, colour if colour.startswith("#") else "#dddddd")
    return found


@cache
def _countries() -> dict[str, tuple[str, str]]:
    """Country code to name and region, from Gapminder's table."""
    rows = table("gapminder_regions.csv")
    known = {
        code: (name, region) for name, region, code in zip(rows["Country"], rows["Group"], rows["ID"], strict=True)
    }
    return {code: known[code] for code in COUNTRIES if code in known}


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; both splits share drawings, elements and flags under other options, grounds and places."""
    return choice(rng, (_element, _flag, _animal, _mass, _material))(rng)


def _sample(
    image: Image.Image, question: tuple[str, str, tuple[tuple[str, str], ...]], parts: list[Part], caption: str
) -> Sample:
    text, letter, talk = question
    return Sample(image, text, letter, parts=tuple(parts), talk=(("Describe the picture.", caption), *talk))


def _element(rng: np.random.Generator) -> Sample:
    image = pale_ground(rng)
    symbol = choice(rng, list(_elements()))
    number, name, state, colour = _elements()[symbol]
    left, top = (int(v) for v in rng.integers(2, 9, 2))
    ImageDraw.Draw(image).rectangle((left, top, left + 53, top + 53), fill=colour, outline="black", width=2)
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    ink = "black" if is_light((red, green, blue)) else "white"
    write_centred(image, (left + 11, top + 10), str(number), font("DejaVuSans", 11), ink)
    write_centred(image, (left + 27, top + 33), symbol, font("DejaVuSans-Bold", 28), ink)
    part = Part(name, (left, top, left + 53, top + 53))
    caption = f"A tile of the element {name}, which is a {state}."
    if rng.random() < 0.5:
        names = [row[1] for row in _elements().values()]
        return _sample(image, multiple_choice(rng, "Which element is shown?", name, names, 3), [part], caption)
    question = multiple_choice(rng, "What is the standard state of this element?", state, ["gas", "liquid", "solid"], 3)
    return _sample(image, question, [part], caption)


def _flag(rng: np.random.Generator) -> Sample:
    image = pale_ground(rng)
    code = choice(rng, list(_countries()))
    name, region = _countries()[code]
    drawing = icon(flag_character(code), int(rng.integers(48, 61)))
    box = paste(image, drawing, rng.integers(0, 65 - drawing.width), rng.integers(0, 65 - drawing.height))
    caption = f"The flag of {name}, a country in {region}."
    if rng.random() < 0.5:
        names = [country for country, _ in _countries().values()]
        question = multiple_choice(rng, "Which country has this flag?", name, names, 4)
    else:
        regions = sorted({region for _, region in _countries().values()})
        question = multiple_choice(rng, "In which region is the country with this flag?", region, regions, 3)
    return _sample(image, question, [Part(f"flag of {name}", box)], caption)


def _one_thing(rng: np.random.Generator, label: str) -> tuple[Image.Image, Part]:
    image = pale_ground(rng)
    drawing = icon(drawing_of(rng, label), int(rng.integers(40, 54)), "", bool(rng.random() < 0.5))
    left, top = (rng.integers(0, 65 - extent) for extent in drawing.size)
    return image, Part(label, paste(image, drawing, left, top))


def _animal(rng: np.random.Generator) -> Sample:
    group = choice(rng, list(GROUPS))
    label = choice(rng, GROUPS[group])
    image, part = _one_thing(rng, label)
    question = multiple_choice(rng, "To which group does this animal belong?", group, list(GROUPS), 3)
    return _sample(image, question, [part], f"The picture shows {an(label)}, which is {an(group)}.")


def _mass(rng: np.random.Generator) -> Sample:
    image = pale_ground(rng)
    labels = some(rng, MASSES, 2)
    parts = []
    for column, label in enumerate(labels):
        drawing = icon(DRAWINGS[label][0], int(rng.integers(24, 30)))
        parts.append(Part(label, paste(image, drawing, 2 + 32 * column, rng.integers(4, 60 - drawing.height))))
    ImageDraw.Draw(image).line((32, 4, 32, 60), fill="black")
    heavier = max(labels, key=MASSES.index)
    question = multiple_choice(rng, "Which object has more mass?", heavier, labels, 2)
    caption = f"There is {an(labels[0])} on the left and {an(labels[1])} on the right. The {heavier} has more mass."
    return _sample(image, question, parts, caption)


def _material(rng: np.random.Generator) -> Sample:
    label = choice(rng, [*MATERIALS, *(food for food in FOODS if food not in ("pizza", "cake"))])
    image, part = _one_thing(rng, label)
    if label in MATERIALS:
        material = MATERIALS[label]
        question = multiple_choice(
            rng, "Which material is this object mostly made of?", material, list(MATERIALS.values()), 3
        )
        return _sample(image, question, [part], f"The picture shows {an(label)}, mostly made of {material}.")
    origin = "animal" if label in FROM_ANIMALS else "plant"
    question = multiple_choice(rng, "Is this food from a plant or from an animal?", origin, ["plant", "animal"], 2)
    return _sample(image, question, [part], f"The picture shows {an(label)}, a food from {an(origin)}.")
