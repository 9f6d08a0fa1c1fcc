"""Predictions files: JSON lines as peers' code writes and reads them, or the Parquet tables of a run.

Rows are found by `question_id`, never by their place.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from same.errors import DataError, InputError


def read_predictions(file: Path) -> dict[str, str]:
    """The answers in a file by question_id, in the file's order; other columns are not looked at.

    Args:
        file: Parquet where it is named `.parquet`, else JSON lines; question_id and text must be there.

    Raises:
        DataError: the file or a row is not as it must be, or two rows answer one question; names file, row and key.
    """
    rows = _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file)
    found: dict[str, str] = {}
    places: dict[str, int] = {}
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise _error(file, index, "a row", "be a mapping", row)
        name, text = row.get("question_id"), row.get("text")
        if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
            raise _error(file, index, "question_id", "be a text or a whole number", name)
        if not isinstance(text, str):
            raise _error(file, index, f"({name}): text", "be a text", text)
        if (key := str(name)) in found:
            raise _error(file, index, "question_id", f"differ from every other (row {places[key]} has it)", key)
        found[key], places[key] = text, index
    if not found:
        raise DataError(f"{file}: a predictions file must have at least one row; got none. Answer the test questions.")
    return found


def in_order_of(predictions: Mapping[str, str], names: Sequence[str], file: Path, test: Path) -> list[str]:
    """The answers in the order of the test rows.

    Args:
        predictions: by question_id, as `read_predictions` gives them.
        names: the question_id of every test row.
        file, test: where predictions and test rows were read, for messages.

    Raises:
        DataError: a test row has no answer, or an answer no test row; names file, row and key.
    """
    known = set(names)
    for index, name in enumerate(predictions):
        if name not in known:
            raise _error(file, index, "question_id", f"be one of the {len(known)} of {test}", name)
    missing = [(index, name) for index, name in enumerate(names) if name not in predictions]
    if missing:
        index, name = missing[0]
        raise DataError(
            f"{file}: question_id must be there for every row of {test}; {len(missing)} of {len(names)} are missing, "
            f"first {name!r} (row {index} of the test file). Answer them: a missing answer is no smaller test."
        )
    return [predictions[name] for name in names]


def write_predictions(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, complete or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        raise InputError(f"the file to write must be in a folder that is there; got {file} ({error}).") from None


def _error(file: Path, index: int, key: str, must: str, found: Any) -> DataError:
    shown = repr(found)
    shown = shown if len(shown) <= 120 else shown[:117] + "..."
    return DataError(f"{file}: row {index}: {key} must {must}; got {shown}. Mend the file.")


def _json_rows(file: Path) -> Iterable[Any]:
    try:
        lines = file.read_bytes().removesuffix(b"\n").split(b"\n")
    except OSError as error:
        raise _unreadable(file, error) from None
    for index, line in enumerate(lines if lines != [b""] else []):
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}: row {index}: a line must be JSON; got {error}. Mend the file.") from None


def _parquet_rows(file: Path) -> Iterable[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(file)
        absent = [name for name in ("question_id", "text") if name not in table.column_names]
        rows = [] if absent else table.select(["question_id", "text"]).to_pylist()
    except (OSError, ValueError, MemoryError, pyarrow.ArrowException) as error:
        raise _unreadable(file, error) from None
    if absent:
        raise DataError(f"{file}: the columns must include {', '.join(absent)}; got {', '.join(table.column_names)}.")
    return rows


def _unreadable(file: Path, error: BaseException) -> DataError:
    if isinstance(error, FileNotFoundError):
        return DataError(f"{file}: the predictions file must exist; found nothing. Give the path of one.")
    return DataError(f"{file}: a predictions file must be JSON lines or Parquet; got {error}. Mend the file.")
