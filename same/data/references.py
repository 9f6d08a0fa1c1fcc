"""Reference answers that a data set keeps in a file of their own: TextVQA's annotations, or captions in COCO's form."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from same.errors import DataError

References = Mapping[str, list[str]]


def read_references(file: Path) -> References:
    """The answers to each question, by its id.

    Two forms are known: `{"data": [{"question_id", "answers": [text, …]}, …]}` and
    `{"annotations": [{"image_id", "caption"}, …]}`, where the image's id stands for the question's.

    Raises:
        DataError: the file is missing or of another form; names file, row and key.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: a file of references must be readable JSON; got {error}. Download it again."
        ) from error
    forms = {"data": ("question_id", "answers"), "annotations": ("image_id", "caption")}
    known = [key for key in forms if isinstance(content, Mapping) and isinstance(content.get(key), list)]
    if not known:
        raise DataError(
            f"{file}: a file of references must hold a list named data or annotations; got {type(content).__name__} "
            "without. Download it again."
        )
    found: dict[str, list[str]] = {}
    for index, row in enumerate(content[known[0]]):
        name, answers = _row(file, f"{known[0]}[{index}]", row, *forms[known[0]])
        found.setdefault(name, []).extend(answers)
    return found


def _row(file: Path, place: str, row: Any, name_key: str, answer_key: str) -> tuple[str, list[str]]:
    given = row if isinstance(row, Mapping) else {}
    name, answers = given.get(name_key), given.get(answer_key)
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise DataError(f"{file}: {place}.{name_key} must be a text or a whole number; got {name!r}. Mend the file.")
    listed = [one for one in (answers if isinstance(answers, list) else [answers]) if isinstance(one, str)]
    if not listed or (isinstance(answers, list) and len(listed) < len(answers)):
        raise DataError(
            f"{file}: {place}.{answer_key} must be text or a list of texts; got {answers!r}. Mend the file."
        )
    return str(name), listed
