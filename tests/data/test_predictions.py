"""Predictions files are read whole, by question_id, or refused by file, row and key."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from same.data.predictions import in_order_of, read_predictions, write_predictions
from same.errors import DataError, InputError
from same.runs import write_table

ROWS = [{"question_id": f"q{index}", "text": text, "model_id": "m"} for index, text in enumerate(["a", "", "ü b", "4"])]
TEST = Path("test.json")
MUTANTS = 1200


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write lines (or bytes) to a file and give its path."""

    def write(content: bytes | list[Any], name: str = "answers.jsonl") -> Path:
        path = tmp_path / name
        if isinstance(content, list):
            content = "\n".join(json.dumps(row) for row in content).encode()
        path.write_bytes(content)
        return path

    return write


def test_lines_are_read_by_question_id(written: Callable[..., Path]) -> None:
    expected = {"q0": "a", "q1": "", "q2": "ü b", "q3": "4"}
    assert read_predictions(written(ROWS)) == expected
    assert read_predictions(written(list(reversed(ROWS)))) == expected
    assert read_predictions(written([{"question_id": 7, "text": "x"}])) == {"7": "x"}


def test_a_table_of_a_run_is_read_as_its_lines_are(tmp_path: Path) -> None:
    columns = {name: [row[name] for row in ROWS] for name in ("question_id", "text")}
    write_table(tmp_path / "answers.parquet", columns)
    write_predictions(tmp_path / "answers.jsonl", ROWS)
    assert read_predictions(tmp_path / "answers.parquet") == read_predictions(tmp_path / "answers.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.jsonl", "answers.parquet"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([ROWS[0], ROWS[1], ROWS[0]], r"row 2: question_id must differ .*row 0 has it.*'q0'"),
        ([ROWS[0], {"text": "a"}], r"row 1: question_id must be a text or a whole number; got None"),
        ([{"question_id": True, "text": "a"}], r"row 0: question_id must"),
        ([{"question_id": "q0", "text": None}], r"row 0: \(q0\): text must be a text; got None"),
        ([{"question_id": "q0"}], r"row 0: \(q0\): text must"),
        ([ROWS[0], ["q1"]], r"row 1: a row must be a mapping"),
        (b'{"question_id": "q0", "text": "a"}\n\n{"question_id": "q1", "text": "a"}', r"row 1: a line must be JSON"),
        (b'{"question_id": "q0", "text": "\xff"}', r"row 0: a line must be JSON"),
        (b"[" * 100_000, r"row 0: a line must be JSON"),
        (b"", r"a predictions file must have at least one row"),
    ],
)
def test_what_is_wrong_is_named_by_file_row_and_key(
    written: Callable[..., Path], content: bytes | list[Any], said: str
) -> None:
    with pytest.raises(DataError, match=rf"answers\.jsonl: {said}"):
        read_predictions(written(content))


def test_a_table_without_the_columns_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "answers.parquet", {"question_id": ["q0"], "answer": ["a"]})
    with pytest.raises(DataError, match=r"answers\.parquet: the columns must include text; got question_id, answer"):
        read_predictions(tmp_path / "answers.parquet")
    (tmp_path / "answers.parquet").write_text("no table")
    with pytest.raises(DataError, match=r"answers\.parquet: a predictions file must be JSON lines or Parquet"):
        read_predictions(tmp_path / "answers.parquet")


def test_a_file_that_is_not_there_or_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.jsonl: the predictions file must exist"):
        read_predictions(tmp_path / "nothing.jsonl")
    with pytest.raises(InputError, match=r"no/answers\.jsonl"):
        write_predictions(tmp_path / "no" / "answers.jsonl", ROWS)


def test_answers_take_the_order_of_the_test_rows() -> None:
    file = Path("answers.jsonl")
    assert in_order_of({"a": "1", "b": "2"}, ["b", "a"], file, TEST) == ["2", "1"]
    with pytest.raises(
        DataError, match=r"answers\.jsonl: row 1: question_id must be one of the 1 of test\.json; got 'b'"
    ):
        in_order_of({"a": "1", "b": "2"}, ["a"], file, TEST)
    with pytest.raises(DataError, match=r"answers\.jsonl: question_id .* 2 of 3 are missing, first 'b' \(row 1 of the"):
        in_order_of({"a": "1"}, ["a", "b", "c"], file, TEST)


def _mutant(content: bytes, chance: random.Random) -> bytes:
    """Change, cut, double or drop some bytes."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(changed) + 1)
        match chance.randrange(5):
            case 0:
                changed[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del changed[place : place + chance.randint(1, 20)]
            case 2:
                changed[place:place] = changed[max(0, place - 30) : place]
            case 3:
                changed[place:place] = chance.choice([b"null", b"[", b"{}", b'"', b"\n", b"1e999", b"NaN", b"\\ud800"])
            case _:
                del changed[place:]
    return bytes(changed)


def _refused(path: Path) -> bool:
    """Whether the reader refuses a file by its name; any other error comes out and fails the test."""
    try:
        found = read_predictions(path)
        in_order_of(found, [str(row["question_id"]) for row in ROWS], path, TEST)
    except DataError as error:
        return path.name in str(error)
    return False


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_only_our_own_errors_come_out_of_mutated_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"answers.{kind}"
    if kind == "jsonl":
        write_predictions(path, ROWS)
    else:
        write_table(path, {name: [row[name] for row in ROWS] for name in ("question_id", "text")})
    content, chance = path.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(MUTANTS):
        path.write_bytes(_mutant(content, chance))
        refused += _refused(path)
    assert refused > MUTANTS // 2
