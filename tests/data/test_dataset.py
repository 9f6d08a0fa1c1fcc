"""Instruction files are read whole and as they stand, or refused by file, row and key."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from same.data import dataset
from same.data.manifest import Benchmark
from same.errors import DataError


def _edit(path: Path, row: int, **changes: Any) -> None:
    rows = json.loads(path.read_text(encoding="utf-8"))
    rows[row].update(changes)
    rows[row] = {key: value for key, value in rows[row].items() if value is not ...}
    path.write_text(json.dumps(rows), encoding="utf-8")


def test_training_rows_keep_order_and_mix_text_only_rows(benchmark: Benchmark, folder: Path) -> None:
    rows = dataset.training_rows(benchmark, benchmark.task("birds"), folder)
    assert rows["id"] == ["a", "b", "c"]
    assert rows["image"] == [str(folder / "images/one.png"), None, str(folder / "images/two.png")]
    assert rows[1]["conversations"] == [
        {"from": "human", "value": "What is this?"},
        {"from": "gpt", "value": "bird b"},
    ]


def test_whole_number_ids_become_text_and_missing_training_ids_the_row_number(
    benchmark: Benchmark, folder: Path
) -> None:
    _edit(folder / "birds/train.json", 0, id=7)
    _edit(folder / "birds/train.json", 1, id=...)
    _edit(folder / "birds/test.json", 0, question_id=12)
    assert dataset.training_rows(benchmark, benchmark.task("birds"), folder)["id"] == ["7", "1", "c"]
    assert dataset.test_rows(benchmark, benchmark.task("birds"), folder)["question_id"][0] == "12"


def test_training_rows_may_repeat_an_id(benchmark: Benchmark, folder: Path) -> None:
    _edit(folder / "birds/train.json", 1, id="a")
    assert dataset.training_rows(benchmark, benchmark.task("birds"), folder)["id"] == ["a", "a", "c"]


def test_boxes_written_as_text_become_numbers(benchmark: Benchmark, folder: Path) -> None:
    (row,) = dataset.test_rows(benchmark, benchmark.task("boxes"), folder)
    assert (row["answer_bbox"], row["size"]) == ([0.1, 0.2, 0.5, 0.75], [80, 64])
    _edit(folder / "boxes/test.json", 0, answer=...)
    (row,) = dataset.test_rows(benchmark, benchmark.task("boxes"), folder)
    assert row["answer"] == "[0.1, 0.2, 0.5, 0.75]"


def test_answers_default_to_the_one_answer(benchmark: Benchmark, folder: Path) -> None:
    _edit(folder / "birds/test.json", 2, answers=["bird", "bird", "a bird"])
    rows = dataset.test_rows(benchmark, benchmark.task("birds"), folder)
    assert rows["answers"] == [["bird"], ["bird"], ["bird", "bird", "a bird"]]


@pytest.mark.parametrize(("limit", "ids"), [(1, ["a"]), (2, ["a", "b"]), (3, ["a", "b", "c"]), (9, ["a", "b", "c"])])
def test_a_limit_takes_rows_spread_over_the_file(
    benchmark: Benchmark, folder: Path, limit: int, ids: list[str]
) -> None:
    assert dataset.training_rows(benchmark, benchmark.task("birds"), folder, limit)["id"] == ids


TURNS = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize(
    ("row", "changes", "said"),
    [
        (0, {"id": [1]}, r"row 0: id must be a text or a whole number; got \[1\]"),
        (0, {"image": "gone.png"}, r"row a: image must be a file .* 1 of 2 images are missing, first gone\.png"),
        (0, {"image": 3}, r"row 0 \(a\): image must be a path"),
        (0, {"image": "../one.png"}, r"row 0 \(a\): image must be a path inside"),
        (0, {"image": ...}, r"row 0 \(a\): image must be given where the question holds <image>"),
        (2, {"conversations": ...}, r"row 2 \(c\): conversations must be a list of human and gpt turns"),
        (2, {"conversations": TURNS[:1]}, r"conversations must be a list of human and gpt turns in pairs"),
        (2, {"conversations": TURNS[::-1]}, r"conversations\[0\]\.from must be human; got 'gpt'"),
        (
            2,
            {"conversations": [TURNS[0], {"from": "gpt", "value": ""}]},
            r"conversations\[1\]\.value must be a non-emp",
        ),
        (2, {"conversations": [TURNS[0], {"from": "gpt", "value": 4}]}, r"conversations\[1\]\.value .* got 4"),
        (2, {"conversations": TURNS * 2}, r"conversations must hold <image> at most once, in the first turn"),
    ],
)
def test_a_bad_training_row_is_named(
    benchmark: Benchmark, folder: Path, row: int, changes: dict[str, Any], said: str
) -> None:
    file = folder / "birds/train.json"
    _edit(file, row, **changes)
    with pytest.raises(DataError, match=said) as caught:
        dataset.training_rows(benchmark, benchmark.task("birds"), folder)
    assert str(caught.value).startswith(f"{file}: row ")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"question_id": "2"}, r"row 1 \(2\): question_id must differ"),
        ({"question_id": ...}, r"row 0: question_id must be a text or a whole number; got None"),
        ({"text": ...}, r"row 0 \(1\): text must be a non-empty text; got None"),
        ({"answer": ...}, r"row 0 \(1\): answer must be a non-empty text; got None"),
        ({"answer": 4}, r"row 0 \(1\): answer must be a non-empty text; got 4"),
        ({"answers": "bird"}, r"row 0 \(1\): answers must be a list of texts; got 'bird'"),
        ({"answers": []}, r"answers must be a list of texts"),
        ({"answer_bbox": "[1, 2, 3]"}, r"answer_bbox must hold 4 numbers; got '\[1, 2, 3\]'"),
        ({"answer_bbox": "[1, 2, 3, NaN]"}, r"answer_bbox must hold 4 numbers"),
        ({"size": [64]}, r"size must hold 2 numbers; got \[64\]"),
        ({"text": "<image> <image>"}, r"text must hold <image> at most once"),
    ],
)
def test_a_bad_test_row_is_named(benchmark: Benchmark, folder: Path, changes: dict[str, Any], said: str) -> None:
    file = folder / "birds/test.json"
    _edit(file, 0, **changes)
    with pytest.raises(DataError, match=said) as caught:
        dataset.test_rows(benchmark, benchmark.task("birds"), folder)
    assert str(caught.value).startswith(f"{file}: row ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "must exist"),
        ("[{", "readable JSON"),
        ("{}", "list of rows; got dict"),
        ("[]", "got an empty list"),
        ("[3]", r"row 0: a row must be a mapping; got 3"),
    ],
)
def test_a_bad_file_is_named(benchmark: Benchmark, folder: Path, content: str | None, said: str) -> None:
    file = folder / "birds/train.json"
    file.unlink()
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=said) as caught:
        dataset.training_rows(benchmark, benchmark.task("birds"), folder)
    assert str(caught.value).startswith(str(file))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["from", "value"]), inner),
    max_leaves=5,
)
KEYS = ["question_id", "image", "text", "answer", "answers", "answer_bbox", "size"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1))
def test_a_mutated_test_row_is_read_or_refused_in_our_own_words(
    benchmark: Benchmark, folder: Path, changes: dict[str, Any]
) -> None:
    file = folder / "birds/test.json"
    original = file.read_text(encoding="utf-8")
    _edit(file, 0, **changes)
    said = str(file)
    try:
        dataset.test_rows(benchmark, benchmark.task("birds"), folder)
    except DataError as error:
        said = str(error)
    finally:
        file.write_text(original, encoding="utf-8")
    assert said.startswith(str(file))
