"""Bounding boxes (RefCOCO and its kin): right where the boxes overlap enough.

Boxes are [left, top, right, bottom] as fractions of the picture padded to a square. `strict` and `paper` take the
first four numbers of the answer and ask for an intersection over union above 0.5; `standard` accepts 0.5 itself, and
`semantic` also the corners in either order. The form of the brackets never counts.
"""

import re
from collections.abc import Sequence

from same.errors import DataError
from same.scorers._reading import Row, scorer

_NUMBER = re.compile(r"-?\d*\.?\d+")
Box = tuple[float, float, float, float]


def first_box(text: str) -> Box | None:
    """The first four numbers of a text; None where there are fewer."""
    numbers = [float(number) for number in _NUMBER.findall(text)[:4]]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == 4 else None


def true_box(row: Row) -> Box:
    """The reference box of a row; one in pixels is brought to the padded square.

    Raises:
        DataError: the row has no box, or one in pixels without the picture's size.
    """
    given: Sequence[float] | None = row.get("answer_bbox") or first_box(row["answer"])
    if given is None:
        raise DataError(
            f"row {row.get('question_id')}: answer_bbox must hold four numbers; got none. Mend the test file."
        )
    left, top, right, bottom = given
    if max(given) <= 1:
        return left, top, right, bottom
    if not row.get("size"):
        raise DataError(
            f"row {row.get('question_id')}: a box in pixels must come with size; got {given}. Mend the test file."
        )
    width, height = row["size"]
    side = max(width, height)
    x, y = (side - width) / 2, (side - height) / 2
    return (left + x) / side, (top + y) / side, (right + x) / side, (bottom + y) / side


def check(row: Row) -> None:
    """Raise DataError if the row has no box to compare with."""
    true_box(row)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes; 0 where one has no area."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    if width <= 0 or height <= 0 or min(areas) <= 0:
        return 0.0
    return width * height / (sum(areas) - width * height)


def strict(prediction: str, row: Row) -> float:
    """Intersection over union above 0.5."""
    box = first_box(prediction)
    return float(box is not None and overlap(box, true_box(row)) > 0.5)


def standard(prediction: str, row: Row) -> float:
    """Intersection over union of at least 0.5."""
    box = first_box(prediction)
    return float(box is not None and overlap(box, true_box(row)) >= 0.5)


def semantic(prediction: str, row: Row) -> float:
    """Intersection over union of at least 0.5, corners in either order."""
    box = first_box(prediction)
    if box is None:
        return 0.0
    left, right = sorted((box[0], box[2]))
    top, bottom = sorted((box[1], box[3]))
    return float(overlap((left, top, right, bottom), true_box(row)) >= 0.5)


score = scorer(strict=strict, standard=standard, semantic=semantic)
