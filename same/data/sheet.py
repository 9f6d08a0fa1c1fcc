"""A contact sheet: some examples of every task, picture above question and answer."""

import textwrap
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from same.data.dataset import read_picture, test_rows
from same.data.manifest import Benchmark
from same.data.rows import IMAGE_TAG
from same.errors import InputError

_SIDE, _WIDTH, _HEIGHT, _MARGIN, _LINE = 128, 190, 270, 150, 13
_LETTERS = 30
_LETTER = 6  # pixels a letter of the credits takes at most, on average


def contact_sheet(benchmark: Benchmark, root: Path, path: Path, examples: int = 6) -> None:
    """Write a picture of test items, a row of `examples` for each task.

    Args:
        root: the benchmark's folder, as `prepare` gives it.
        path: the picture to write; its suffix says the format.

    Raises:
        InputError: the picture cannot be written there, or one of the benchmark's cannot be read.
    """
    width, height = _MARGIN + examples * _WIDTH, len(benchmark.tasks) * _HEIGHT
    named = credit_lines(benchmark, max(40, width // _LETTER))
    sheet = Image.new("RGB", (width, height + (len(named) + 1) * _LINE), "white")
    for line, words in enumerate(named):
        ImageDraw.Draw(sheet).text((8, height + line * _LINE), words, "#666666", ImageFont.load_default(10))
    for line, task in enumerate(benchmark.tasks):
        ImageDraw.Draw(sheet).text((8, line * _HEIGHT + 8), task.title, "black", ImageFont.load_default(16))
        for column, row in enumerate(test_rows(benchmark, task, root, examples)):
            _draw(sheet, row, _MARGIN + column * _WIDTH, line * _HEIGHT + 8, task.prompt)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"a contact sheet must be a writable picture file; got {path} ({error}). Name a .png file."
        ) from error


def credit_lines(benchmark: Benchmark, letters: int) -> list[str]:
    """Who is to be named beside the tasks' pictures, in lines of so many letters."""
    used = dict.fromkeys(source for task in benchmark.tasks for source in task.sources)
    named = [source.credit or f"{source.name} ({source.licence})" for source in used]
    return textwrap.wrap(f"Pictures: {'; '.join(named)}.", letters) if named else []


def _draw(sheet: Image.Image, row: dict[str, Any], left: int, top: int, prompt: str) -> None:
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    if row["image"]:
        picture = read_picture(row["image"])
        scale = _SIDE / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        sheet.paste(
            picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS), (left, top)
        )
        if row["answer_bbox"] and max(row["answer_bbox"]) <= 1:
            _outline(pen, row["answer_bbox"], size, (left, top))
    question = row["text"].replace(IMAGE_TAG, "").replace(prompt, "").strip() or row["text"]
    lines = [part for line in question.splitlines() for part in textwrap.wrap(line, _LETTERS)][:7]
    below = top + _SIDE + 4
    for line in lines:
        pen.text((left, below), line, "#333333", font)
        below += _LINE
    for line in textwrap.wrap(row["answer"], _LETTERS)[:2]:
        pen.text((left, below), line, "#b00000", font)
        below += _LINE


def _outline(pen: ImageDraw.ImageDraw, box: list[float], size: tuple[int, int], corner: tuple[int, int]) -> None:
    """A box given as fractions of the padded square, on the picture shown."""
    side = max(size)
    shift = [corner[0] - (side - size[0]) / 2, corner[1] - (side - size[1]) / 2] * 2
    pen.rectangle([round(value * side + shift[place]) for place, value in enumerate(box)], outline="#b00000", width=2)
