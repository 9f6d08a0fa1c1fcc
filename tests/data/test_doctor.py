"""The doctor names every fault of a benchmark's files, and says whether training could start."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from same.data import dataset
from same.data.doctor import ERROR, WARNING, Finding, examine
from same.data.manifest import Benchmark, load_benchmark
from same.data.references import read_references

QUIZ = """
title: Quiz
tasks:
  - {key: quiz, title: Quiz, scorer: choice, train_items: 3, test_items: 2, references: quiz/answers.json}
"""


def found(benchmark: Benchmark, folder: Path, allow_missing: bool = False) -> dict[tuple[str, str], Finding]:
    """Findings by file and problem."""
    report = examine(benchmark, folder.parent, allow_missing, progress=False)
    assert report.ready == (not any(finding.level == ERROR for finding in report.findings))
    return {(finding.file, finding.problem): finding for finding in report.findings}


def named(findings: dict[tuple[str, str], Finding], part: str) -> Finding:
    """The one finding whose problem has this part."""
    (finding,) = [finding for (_, problem), finding in findings.items() if part in problem]
    return finding


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    rows = json.loads(path.read_text())
    change(rows)
    path.write_text(json.dumps(rows))


def test_whole_files_have_no_finding(benchmark: Benchmark, folder: Path) -> None:
    report = examine(benchmark, folder.parent, progress=False)
    assert report.ready
    assert report.findings == []
    birds = report.tasks[0]
    assert (birds.rows, birds.pictures) == ({"train": 3, "test": 3}, 2)
    assert report.seconds_a_pass is not None
    assert 0 < report.seconds_to_start < report.seconds
    assert report.gigabytes_free > report.gigabytes_needed
    assert "Training could start." in report.text()
    assert not (folder.parent / dataset.KEPT_IN).exists(), "examining writes nothing"


def test_every_bad_row_is_named_with_its_key(benchmark: Benchmark, folder: Path) -> None:
    def harm(rows: list[dict[str, Any]]) -> None:
        rows[0]["conversations"] = []
        rows[2]["image"] = 3

    rewrite(folder / "birds/train.json", harm)
    finding = found(benchmark, folder)["birds/train.json", "bad row(s)"]
    assert (finding.level, finding.task, finding.count) == (ERROR, "birds", 2)
    assert finding.first[0].startswith("row 0 (a): conversations must be a list")
    assert finding.first[1].startswith("row 2 (c): image must be a path")


def test_missing_and_broken_files_are_named(benchmark: Benchmark, folder: Path) -> None:
    (folder / "birds/train.json").unlink()
    (folder / "boxes/test.json").write_text("[{")
    findings = found(benchmark, folder)
    assert findings["birds/train.json", "file missing"].level == ERROR
    assert "readable JSON" in findings["boxes/test.json", "file unreadable"].first[0]


def test_what_is_missing_is_named_with_what_to_do(benchmark: Benchmark, folder: Path) -> None:
    whole = dataclasses.replace(benchmark.tasks[0], references="birds/answers.json", unverified=("references",))
    with_references = dataclasses.replace(benchmark, tasks=(whole, benchmark.tasks[1]))
    (folder / "birds/test.json").unlink()
    findings = found(with_references, folder)
    assert ("birds/test.json", "file missing") in findings
    assert "unverified" in findings["birds/answers.json", "file missing"].first[0]
    text = examine(with_references, folder.parent, progress=False).text()
    assert text.endswith("Complete the download of A small one (https://example.org).")


def test_a_servers_message_in_a_pictures_place_is_shown(benchmark: Benchmark, folder: Path) -> None:
    (folder / "images/one.png").write_text("<html>404 Not found</html>")
    (folder / "images/two.png").write_bytes(b"")
    broken = named(found(benchmark, folder), "undecodable")
    assert "begins with b'<html>404 Not found<'" in broken.first[0]
    assert broken.first[1].endswith("(an empty file)")


def test_an_answer_to_learn_that_the_scorer_cannot_read_is_a_warning(benchmark: Benchmark, folder: Path) -> None:
    rewrite(folder / "boxes/train.json", lambda rows: rows[0]["conversations"][1].update(value="on the left"))
    finding = named(found(benchmark, folder), "scorer grounding")
    assert (finding.level, finding.file, finding.count) == (WARNING, "boxes/train.json", 1)


def test_pictures_missing_and_cut_short_are_counted_and_named(benchmark: Benchmark, folder: Path) -> None:
    (folder / "images/one.png").unlink()
    noise = Image.effect_noise((200, 200), 80).convert("RGB")
    noise.save(folder / "pictures/one.jpg", quality=95)
    whole = (folder / "pictures/one.jpg").read_bytes()
    (folder / "pictures/one.png").write_bytes(whole[: len(whole) // 2])
    findings = found(benchmark, folder)
    missing = findings["birds/train.json", f"picture(s) missing in {folder / 'images'}"]
    assert (missing.level, missing.count, missing.first) == (ERROR, 1, ("one.png",))
    counts = examine(benchmark, folder.parent, progress=False).tasks
    assert [task.missing_pictures for task in counts] == [1, 0], "a picture of both files is missing once"
    assert [task.undecodable_pictures for task in counts] == [0, 1]
    broken = named(findings, "undecodable")
    assert (broken.level, broken.count) == (ERROR, 1)
    assert "pictures/one.png (" in broken.first[0]


def test_missing_pictures_are_a_warning_where_they_are_allowed(benchmark: Benchmark, folder: Path) -> None:
    (folder / "images/one.png").unlink()
    report = examine(benchmark, folder.parent, allow_missing=True, progress=False)
    assert report.ready
    assert {finding.level for finding in report.findings} == {WARNING}
    assert report.tasks[0].rows_without_their_picture == {"train": 1, "test": 1}
    (folder / "pictures/one.png").unlink()  # now no row of boxes is left
    assert not examine(benchmark, folder.parent, allow_missing=True, progress=False).ready


def test_repeated_ids_are_errors_in_test_files_only(benchmark: Benchmark, folder: Path) -> None:
    rewrite(folder / "birds/train.json", lambda rows: rows[1].update(id="a"))
    rewrite(folder / "birds/test.json", lambda rows: rows[1].update(question_id="1"))
    findings = found(benchmark, folder)
    assert findings["birds/train.json", "repeated id(s)"].level == WARNING
    assert findings["birds/test.json", "repeated question_id(s)"].first == ("1",)
    assert findings["birds/test.json", "repeated question_id(s)"].level == ERROR


def test_an_answer_the_scorer_cannot_read_is_named(benchmark: Benchmark, folder: Path) -> None:
    rewrite(folder / "boxes/test.json", lambda rows: rows[0].update(answer="left", answer_bbox=None))
    finding = named(found(benchmark, folder), "scorer grounding")
    assert (finding.level, finding.count) == (ERROR, 1)
    assert "answer_bbox must hold four numbers" in finding.first[0]


def test_counts_answers_and_references_are_compared(tmp_path: Path) -> None:
    folder = tmp_path / "quiz/quiz"
    folder.mkdir(parents=True)
    (tmp_path / "quiz.yaml").write_text(QUIZ)
    turns = [{"from": "human", "value": "A. cat\nB. dog"}, {"from": "gpt", "value": "A"}]
    (folder / "train.json").write_text(json.dumps([{"conversations": turns}]))
    answers = {"1": "A", "2": "cat"}
    rows = [{"question_id": name, "text": "A. cat\nB. dog", "answer": answer} for name, answer in answers.items()]
    (folder / "test.json").write_text(json.dumps(rows))
    (folder / "answers.json").write_text(json.dumps({"data": [{"question_id": 1, "answers": ["A", "cat"]}]}))
    benchmark = load_benchmark(tmp_path / "quiz.yaml")
    findings = found(benchmark, tmp_path / "quiz")
    assert findings["quiz/train.json", "count differs"].level == WARNING
    assert "row 2: 'cat'" in named(findings, "scorer choice").first[0]
    assert named(findings, "scorer choice").level == WARNING, "training would start, and never score there"
    assert named(findings, "does not have").first == ("2",)
    rewrite(folder / "test.json", lambda rows: rows.pop())
    (row,) = dataset.test_rows(benchmark, benchmark.tasks[0], tmp_path / "quiz")
    assert row["answers"] == ["A", "cat"], "references are the row's answers"


@pytest.mark.parametrize("content", ["[]", "{}", '{"data": [{"question_id": 1}]}', '{"annotations": [3]}', "{"])
def test_references_of_another_form_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "answers.json").write_text(content)
    with pytest.raises(dataset.DataError, match=r"answers\.json: "):
        read_references(tmp_path / "answers.json")


def test_captions_in_the_form_of_coco_are_grouped_by_picture(tmp_path: Path) -> None:
    rows = [{"image_id": 7, "caption": "A cat."}, {"image_id": 7, "caption": "A grey cat."}]
    (tmp_path / "captions.json").write_text(json.dumps({"images": [], "annotations": rows}))
    assert read_references(tmp_path / "captions.json") == {"7": ["A cat.", "A grey cat."]}
