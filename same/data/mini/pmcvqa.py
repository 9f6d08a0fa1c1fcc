"""mini-PMC-VQA: slices of a brain template, with lesions drawn by us, and tissue; one capital letter answers."""

from __future__ import annotations

from functools import cache

import nibabel
import numpy as np
from PIL import Image, ImageFilter, ImageOps

from same.data.mini._world import SIDE, Box, Part, Sample, Split, choice, installed, multiple_choice, some

PLANES = ("sagittal", "coronal", "axial")  # by axis of the volumes
MAPS = {"t1": "T1-weighted MRI", "gm": "gray matter map", "wm": "white matter map"}
TISSUES = {"retina": ("retina.jpg", "fundus photograph"), "tissue": ("ihc.png", "histology slide")}
KINDS = ["brain MRI", "chest X-ray", "fundus photograph", "histology slide", "ultrasound"]
PLACES = ("upper left", "upper right", "lower left", "lower right")
COUNTS = ("none", "one", "two", "three")
USABLE = (0.3, 0.7)  # part of an axis whose slices show much of the brain
SLAB = 6  # neighbouring slices that go to the same split


@cache
def _volume(name: str) -> np.ndarray:
    """A map of the ICBM 152 template, [right, anterior, superior] in millimetres, 0-255."""
    file = installed("nilearn", "datasets", "data", f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz")
    return np.asarray(nibabel.load(file).dataobj)


@cache
def slices(split: Split, axis: int) -> tuple[int, ...]:
    """The split's positions along an axis: of five slabs one is for testing."""
    length = _volume("t1").shape[axis]
    first, last = (round(length * share) for share in USABLE)
    return tuple(at for at in range(first, last) if (at // SLAB % 5 == 4) == (split == "test"))


@cache
def _tissue(file: str) -> Image.Image:
    with Image.open(installed("skimage", "data", file)) as photograph:
        photograph.thumbnail((400, 400))
        return photograph.convert("RGB")


def draw(rng: np.random.Generator, split: Split) -> Sample:
    """One item; slices and crops of the two splits come from different places."""
    return _crop(rng, split) if rng.random() < 0.2 else _slice(rng, split)


def _crop(rng: np.random.Generator, split: Split) -> Sample:
    name = choice(rng, list(TISSUES))
    file, kind = TISSUES[name]
    photograph = _tissue(file)
    cut = photograph.width * 2 // 3  # the right third is for testing
    start, stop = (0, cut) if split == "train" else (cut, photograph.width)
    width = int(rng.integers(70, 130))
    left, top = int(rng.integers(start, stop - width + 1)), int(rng.integers(0, photograph.height - width + 1))
    image = photograph.resize((SIDE, SIDE), Image.Resampling.LANCZOS, (left, top, left + width, top + width))
    whole = Part(name, (0, 0, SIDE, SIDE))
    return _sample(rng, image, [("What type of medical image is this?", kind, KINDS)], [whole], f"This is a {kind}.")


def _slice(rng: np.random.Generator, split: Split) -> Sample:
    name, axis = ("t1", "t1", "gm", "wm")[int(rng.integers(4))], int(rng.integers(3))
    plane = PLANES[axis]
    position = choice(rng, slices(split, axis))
    image, box = _framed(Image.fromarray(np.rot90(_volume(name)[(slice(None),) * axis + (position,)])))
    brain = Part(f"{name} {plane}", box)
    caption = f"A {plane} slice of a brain, shown as {MAPS[name]}"
    asked = [("Which imaging plane is shown?", plane, [*PLANES, "oblique"])]
    if name != "t1":
        asked.append(("Which map is shown in this brain image?", MAPS[name], [*MAPS.values(), "CT angiography"]))
        return _sample(rng, image, asked, [brain], f"{caption}.")
    places = some(rng, PLACES, choice(rng, (0, 1, 1, 2, 3)))
    lesions = [_lesion(rng, image, box, place) for place in places]
    asked.append(("How many bright lesions are shown?", COUNTS[len(places)], list(COUNTS)))
    if len(places) == 1:
        asked += [("In which part of the brain is the bright lesion?", places[0], list(PLACES))] * 2
    seen = " and ".join(f"a lesion at the {place}" for place in places) or "no lesion"
    return _sample(rng, image, asked, [brain, *lesions], f"{caption}, with {seen}.")


def _framed(drawn: Image.Image) -> tuple[Image.Image, Box]:
    """The slice on a black square, and where the brain is on it."""
    image = ImageOps.pad(drawn, (SIDE, SIDE), Image.Resampling.LANCZOS)
    box = image.point(lambda value: 255 * (value > 40)).getbbox()
    left, top, right, bottom = box or (0, 0, SIDE, SIDE)
    return image.point(lambda value: value * 0.7).convert("RGB"), (left, top, right, bottom)


def _lesion(rng: np.random.Generator, image: Image.Image, brain: Box, place: str) -> Part:
    """Draw a soft bright spot in one quarter of the brain, in place."""
    left, top, right, bottom = brain
    down, across = place.split()
    x = left + (right - left) * (0.3 if across == "left" else 0.7) + rng.uniform(-3, 3)
    y = top + (bottom - top) * (0.32 if down == "upper" else 0.66) + rng.uniform(-3, 3)
    radius = float(rng.uniform(3, 5))
    columns, rows = np.meshgrid(np.arange(SIDE), np.arange(SIDE))
    spot = np.hypot(columns - x, rows - y) < radius
    mask = Image.fromarray((230 * spot).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
    image.paste((255, 255, 255), (0, 0), mask)
    return Part("lesion", (x - radius, y - radius, x + radius, y + radius))


def _sample(
    rng: np.random.Generator,
    image: Image.Image,
    asked: list[tuple[str, str, list[str]]],
    parts: list[Part],
    caption: str,
) -> Sample:
    question, right, options = choice(rng, asked)
    text, letter, talk = multiple_choice(rng, question, right, options, 4)
    others = tuple((what, f"That would be {answer}.") for what, answer, _ in asked if what != question)
    talk = (("Describe the picture.", caption), *talk, *others)
    return Sample(image, text, letter, (letter,), None, tuple(parts), "scan", talk)
