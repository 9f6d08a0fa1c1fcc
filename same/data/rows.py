"""Rows of an instruction file in LLaVA's format: read one by one, every complaint by file, row and key."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Features, List, Value

from same.errors import DataError

IMAGE_TAG = "<image>"
"""Marks the picture's place in a question; at most once, in the first turn."""

_TEXT = Value("string")
TRAINING = Features({"id": _TEXT, "image": _TEXT, "conversations": List({"from": _TEXT, "value": _TEXT})})
TEST = Features(
    {
        "question_id": _TEXT,
        "image": _TEXT,
        "text": _TEXT,
        "answer": _TEXT,
        "answers": List(_TEXT),
        "answer_bbox": List(Value("float64")),
        "size": List(Value("int64")),
    }
)
_BETWEEN = re.compile(r"[ \t\n\r]*(,?)[ \t\n\r]*(\]?)[ \t\n\r]*")


class RawRow:
    """One row of a file as it stands there; knows how to complain about itself.

    Raises:
        DataError: it is no mapping, or has no usable name.
    """

    def __init__(self, file: Path, index: int, content: Any, name_key: str) -> None:
        self.file, self.index, self.name = file, index, ""
        self.content: Mapping[str, Any] = content if isinstance(content, Mapping) else {}
        if not isinstance(content, Mapping):
            raise self.error("a row", "be a mapping", content)
        name = content.get(name_key, index if name_key == "id" else None)
        if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
            raise self.error(name_key, "be a text or a whole number", name)
        self.name = self._sayable(name_key, str(name))

    def error(self, key: str, must: str, found: Any, advice: str = "Mend the file.") -> DataError:
        """The complaint that a key does not hold what it must."""
        name = f" ({self.name})" if self.name else ""
        shown = repr(found)
        shown = shown if len(shown) <= 120 else shown[:117] + "..."
        return DataError(f"{self.file}: row {self.index}{name}: {key} must {must}; got {shown}. {advice}")

    def text(self, key: str, value: Any) -> str:
        """A value that must be a text with something in it."""
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, "be a non-empty text", value)
        return self._sayable(key, value)

    def image(self) -> str | None:
        """The picture's path inside the image folder; None for a row of text alone."""
        value = self.content.get("image")
        if value is None:
            return None
        if not isinstance(value, str) or not value or "\0" in value:
            raise self.error("image", "be a path, or left out", value)
        if Path(value).is_absolute() or ".." in Path(value).parts:
            raise self.error("image", "be a path inside the image folder", value)
        return self._sayable("image", value)

    def _sayable(self, key: str, value: str) -> str:
        """JSON can name halves of characters, which no other file can hold."""
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.error(key, "hold whole characters", value) from None
        return value


def read_objects(file: Path, advice: str) -> Iterator[Any]:
    """The items of a JSON list, one at a time: only the file's text and one item are in memory.

    Raises:
        DataError: the file is missing, is no JSON, or no list with something in it; ends in ``advice``.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
        items = iter(_items(text))
        yield next(items)
        yield from items
    except FileNotFoundError:
        raise DataError(f"{file}: the instruction file must exist; found nothing. {advice}") from None
    except StopIteration:
        raise DataError(f"{file}: an instruction file must be a list of rows; got an empty list. {advice}") from None
    except _NoListError as error:
        raise DataError(f"{file}: an instruction file must be a list of rows; got {error}. {advice}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: an instruction file must be readable JSON; got {error}. {advice}") from error


class _NoListError(Exception):
    """The file holds something else."""


def _items(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder()
    place = len(text) - len(text.lstrip())
    if text[place : place + 1] != "[":
        raise _NoListError(type(json.loads(text)).__name__)
    comma, end, place = _between(text, place + 1)
    if comma:
        raise json.JSONDecodeError("Expecting value", text, place)
    while not end:
        item, place = decoder.raw_decode(text, place)
        yield item
        comma, end, place = _between(text, place)
        if comma == end:
            raise json.JSONDecodeError("Expecting ',' or ']'", text, place)
    if place != len(text):
        raise json.JSONDecodeError("Extra data", text, place)


def _between(text: str, place: int) -> tuple[bool, bool, int]:
    """What stands after an item: whether a comma, whether the list's end, and where it goes on."""
    found = _BETWEEN.match(text, place)
    return (bool(found[1]), bool(found[2]), found.end()) if found else (False, False, place)


def training_row(row: RawRow) -> dict[str, Any]:
    """A training row in the form of `TRAINING`, its image as the file has it."""
    image = row.image()
    turns = row.content.get("conversations")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise row.error("conversations", "be a list of human and gpt turns in pairs", turns)
    conversations = [_turn(row, turn, index) for index, turn in enumerate(turns)]
    _check_tags(row, [turn["value"] for turn in conversations], image, "conversations")
    return {"id": row.name, "image": image, "conversations": conversations}


def _turn(row: RawRow, turn: Any, index: int) -> dict[str, str]:
    key = f"conversations[{index}]"
    speaker = "gpt" if index % 2 else "human"
    if not isinstance(turn, Mapping) or turn.get("from") != speaker:
        raise row.error(f"{key}.from", f"be {speaker}", turn.get("from") if isinstance(turn, Mapping) else turn)
    return {"from": speaker, "value": row.text(f"{key}.value", turn.get("value"))}


def _check_tags(row: RawRow, texts: list[str], image: str | None, key: str) -> None:
    first, later = texts[0].count(IMAGE_TAG), sum(text.count(IMAGE_TAG) for text in texts[1:])
    if later or first > 1:
        raise row.error(key, f"hold {IMAGE_TAG} at most once, in the first turn", texts)
    if first and image is None:
        raise row.error("image", f"be given where the question holds {IMAGE_TAG}", None)


def test_row(row: RawRow) -> dict[str, Any]:
    """A test row in the form of `TEST`, its image as the file has it."""
    image, text = row.image(), row.text("text", row.content.get("text"))
    _check_tags(row, [text], image, "text")
    box = _numbers(row, "answer_bbox", 4)
    plain = box and "answer" not in row.content
    answer = str(row.content["answer_bbox"]) if plain else row.text("answer", row.content.get("answer"))
    answers = row.content.get("answers", [answer])
    if not isinstance(answers, list) or not answers or not all(isinstance(one, str) for one in answers):
        raise row.error("answers", "be a list of texts", answers)
    size = _numbers(row, "size", 2)
    if size and not all(0 < side < 2**31 for side in size):
        raise row.error("size", "hold width and height in pixels", row.content["size"])
    return {
        "question_id": row.name,
        "image": image,
        "text": text,
        "answer": answer,
        "answers": [row.text("answers", one) if one.strip() else one for one in answers],
        "answer_bbox": box,
        "size": [int(side) for side in size] if size else None,
    }


test_row.__test__ = False  # type: ignore[attr-defined]  # a row of a test set, not a test

READERS: dict[str, tuple[str, Features, Callable[[RawRow], dict[str, Any]]]] = {
    "train": ("id", TRAINING, training_row),
    "test": ("question_id", TEST, test_row),
}
"""For each split the key that names a row, the columns, and what reads a row."""


def _numbers(row: RawRow, key: str, count: int) -> list[float] | None:
    """A list of numbers, or such a list written out as text; None where the row has none."""
    given = row.content.get(key)
    if given is None:
        return None
    try:
        numbers = list(_floats(json.loads(given) if isinstance(given, str) else given))
    except (ValueError, TypeError, OverflowError, RecursionError):
        numbers = []
    if len(numbers) != count:
        raise row.error(key, f"hold {count} numbers", given)
    return numbers


def _floats(values: Any) -> Iterator[float]:
    for value in values:
        if isinstance(value, bool | str) or not math.isfinite(number := float(value)):
            raise ValueError(value)
        yield number
