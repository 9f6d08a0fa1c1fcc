"""Instruction files in LLaVA's format, checked row by row and given as `datasets.Dataset`.

The same code reads a built benchmark and a downloaded one. Pictures stay paths (absolute, checked to exist) until a
batch is made.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value
from PIL import Image

from same.data.manifest import Benchmark, Task
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


def training_rows(benchmark: Benchmark, task: Task, root: Path, limit: int | None = None) -> Dataset:
    """The training rows of a task: id, image (absolute path or None), conversations.

    Args:
        root: the benchmark's folder, as `prepare` gives it.
        limit: at most this many rows, evenly spread over the file; None for all.

    Raises:
        DataError: the file, a row or an image is not as it must be; the message names file, row and key.
    """
    return _rows(benchmark, task, root, task.train, limit, _training_row, TRAINING)


def test_rows(
    benchmark: Benchmark,
    task: Task,
    root: Path,
    limit: int | None = None,  # noqa: PT028
    images: bool = True,  # noqa: PT028
) -> Dataset:
    """The test rows of a task: question_id, image, text, answer, answers, answer_bbox, size; as `training_rows`.

    Args:
        images: whether the images must be there; scoring answers needs none.
    """
    return _rows(benchmark, task, root, task.test, limit, _test_row, TEST, images)


test_rows.__test__ = False  # type: ignore[attr-defined]  # rows of a test set, not a test


def read_picture(path: str | Path) -> Image.Image:
    """A row's picture in RGB.

    Raises:
        DataError: the file cannot be read as a picture.
    """
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: an image must be readable; got {error}. Replace the file.") from error


class _Row:
    """One row of a file as read; knows how to complain about itself."""

    def __init__(self, file: Path, index: int, content: Any, name_key: str) -> None:
        self.file, self.index, self.name = file, index, ""
        self.content: Mapping[str, Any] = content if isinstance(content, Mapping) else {}
        if not isinstance(content, Mapping):
            raise self.error("a row", "be a mapping", content)
        name = content.get(name_key, index if name_key == "id" else None)
        if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
            raise self.error(name_key, "be a text or a whole number", name)
        self.name = str(name)

    def error(self, key: str, must: str, found: Any, advice: str = "Mend the file.") -> DataError:
        name = f" ({self.name})" if self.name else ""
        shown = repr(found)
        shown = shown if len(shown) <= 120 else shown[:117] + "..."
        return DataError(f"{self.file}: row {self.index}{name}: {key} must {must}; got {shown}. {advice}")

    def text(self, key: str) -> str:
        value = self.content.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(key, "be a non-empty text", value)
        return value

    def image(self) -> str | None:
        value = self.content.get("image")
        if value is None:
            return None
        if not isinstance(value, str) or not value:
            raise self.error("image", "be a path, or left out", value)
        if Path(value).is_absolute() or ".." in Path(value).parts:
            raise self.error("image", "be a path inside the image folder", value)
        return value


def _rows(
    benchmark: Benchmark,
    task: Task,
    root: Path,
    name: str,
    limit: int | None,
    read: Callable[[_Row], dict[str, Any]],
    features: Features,
    need_images: bool = True,
) -> Dataset:
    file, images = root / name, root / task.images
    name_key = next(iter(features))
    rows: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for index, content in enumerate(_content(file, benchmark)):
        row = _Row(file, index, content, name_key)
        if row.name in seen and features is TEST:  # predictions are keyed by it; public training files repeat theirs
            raise row.error(name_key, f"differ from every other (row {seen[row.name]} has it)", row.name)
        seen[row.name] = index
        rows.append(read(row))
    if limit is not None:
        if limit < 1:
            raise DataError(f"{file}: the number of rows asked for must be at least 1; got {limit}. Ask for more.")
        count = min(limit, len(rows))
        rows = [rows[index * len(rows) // count] for index in range(count)]
    if need_images:
        _check_images(file, images, rows, name_key, benchmark)
    for ready in rows:
        ready["image"] = str((images / ready["image"]).absolute()) if ready["image"] else None
    return Dataset.from_list(rows, features=features)


def _content(file: Path, benchmark: Benchmark) -> list[Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{file}: the instruction file must exist; found nothing. {_advice(benchmark)}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: an instruction file must be readable JSON; got {error}. {_advice(benchmark)}"
        ) from error
    if not isinstance(content, list) or not content:
        kind = "an empty list" if content == [] else type(content).__name__
        raise DataError(f"{file}: an instruction file must be a list of rows; got {kind}. {_advice(benchmark)}")
    return content


def _check_images(file: Path, images: Path, rows: list[dict[str, Any]], name_key: str, benchmark: Benchmark) -> None:
    wanted = dict.fromkeys(row["image"] for row in rows if row["image"])
    missing = [name for name in wanted if not (images / name).is_file()]
    if missing:
        row = next(row for row in rows if row["image"] == missing[0])
        raise DataError(
            f"{file}: row {row[name_key]}: image must be a file in {images}; "
            f"{len(missing)} of {len(wanted)} images are missing, first {', '.join(missing[:3])}. {_advice(benchmark)}"
        )


def _advice(benchmark: Benchmark) -> str:
    if benchmark.builder:
        return f"Remove the folder and run `same prepare --benchmark {benchmark.name}`."
    return f"Complete the download of {benchmark.title}."


def _training_row(row: _Row) -> dict[str, Any]:
    image = row.image()
    turns = row.content.get("conversations")
    if not isinstance(turns, list) or not turns or len(turns) % 2:
        raise row.error("conversations", "be a list of human and gpt turns in pairs", turns)
    conversations = [_turn(row, turn, index) for index, turn in enumerate(turns)]
    _check_tags(row, [turn["value"] for turn in conversations], image, "conversations")
    return {"id": row.name, "image": image, "conversations": conversations}


def _turn(row: _Row, turn: Any, index: int) -> dict[str, str]:
    key = f"conversations[{index}]"
    speaker = "gpt" if index % 2 else "human"
    if not isinstance(turn, Mapping) or turn.get("from") != speaker:
        raise row.error(f"{key}.from", f"be {speaker}", turn.get("from") if isinstance(turn, Mapping) else turn)
    value = turn.get("value")
    if not isinstance(value, str) or not value.strip():
        raise row.error(f"{key}.value", "be a non-empty text", value)
    return {"from": speaker, "value": value}


def _check_tags(row: _Row, texts: list[str], image: str | None, key: str) -> None:
    first, later = texts[0].count(IMAGE_TAG), sum(text.count(IMAGE_TAG) for text in texts[1:])
    if later or first > 1:
        raise row.error(key, f"hold {IMAGE_TAG} at most once, in the first turn", texts)
    if first and image is None:
        raise row.error("image", f"be given where the question holds {IMAGE_TAG}", None)


def _test_row(row: _Row) -> dict[str, Any]:
    image, text = row.image(), row.text("text")
    _check_tags(row, [text], image, "text")
    box = _numbers(row, "answer_bbox", 4)
    answer = str(row.content["answer_bbox"]) if box and "answer" not in row.content else row.text("answer")
    answers = row.content.get("answers", [answer])
    if not isinstance(answers, list) or not answers or not all(isinstance(one, str) for one in answers):
        raise row.error("answers", "be a list of texts", answers)
    size = _numbers(row, "size", 2)
    return {
        "question_id": row.name,
        "image": image,
        "text": text,
        "answer": answer,
        "answers": answers,
        "answer_bbox": box,
        "size": [int(side) for side in size] if size else None,
    }


def _numbers(row: _Row, key: str, count: int) -> list[float] | None:
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
