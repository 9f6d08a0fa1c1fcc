"""Scoring files of answers and giving a run's to peers: what goes out scores the same when it comes in."""

import importlib.util
import json
import shutil
import sys

import pytest

from same import cli
from same.errors import SnapshotError
from same.metrics import READINGS


@pytest.fixture
def same(data, monkeypatch, capsys):
    """Run a command on the small benchmark; gives exit code, standard output and standard error."""
    monkeypatch.setenv("SAME_DATA", str(data))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["same", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def asked(data):
    return ["score", "--benchmark", data / "colours.yaml", "--task", "colour", "--predictions"]


@pytest.mark.parametrize("after", [1, "zero_shot"])
def test_a_run_that_is_exported_scores_as_it_did(same, asked, finished, tmp_path, after):
    out = tmp_path / "answers.jsonl"
    code, printed, _ = same("export", "--run", finished.path, "--after", after, "--task", "colour", "--out", out)
    assert (code, printed) == (0, f"{out}: 5 answers\n")
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert set(lines[0]) == {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}
    assert len({line["answer_id"] for line in lines}) == 5
    out.write_text("\n".join(json.dumps(line) for line in reversed(lines)))
    found = json.loads(same(*asked, out, "--json")[1])
    assert found["scores"] == finished.predictions(after).manifest()["scores"]["colour"]
    assert found["errors"] == finished.predictions(after).manifest()["errors"]["colour"]
    table = finished.predictions(after).file("colour.parquet")
    assert json.loads(same(*asked, table, "--json")[1]) == found


def test_a_peers_answers_are_scored_in_every_reading_without_pictures(same, asked, data, tmp_path):
    answers = [row["answer"] for row in json.loads((data / "colours/colour/test.json").read_text())]
    texts = [answers[0].upper(), f"{answers[1]}.", "", "mauve", answers[4]]
    rows = [{"question_id": f"colour-{index}", "text": text} for index, text in enumerate(texts)]
    (tmp_path / "peer.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pictures = data / "colours" / "images"
    pictures.rename(tmp_path / "away")
    try:
        code, out, _ = same(*asked, tmp_path / "peer.jsonl", "--json")
        printed = same(*asked, tmp_path / "peer.jsonl")[1]
    finally:
        (tmp_path / "away").rename(pictures)
    found = json.loads(out)
    assert (code, found["items"], found["scorer"]) == (0, 5, "exact")
    assert found["scores"] == {"strict": 0.4, "paper": 0.4, "standard": 0.2, "semantic": 0.6}
    assert found["errors"] == {"right": 2, "punctuation": 1, "empty": 1, "wrong": 1}
    assert all(name in printed for name in READINGS)
    assert "2 right, 1 punctuation" in printed


def test_rows_without_their_picture_are_left_out_where_that_is_allowed(same, asked, data, tmp_path):
    rows = json.loads((data / "colours/colour/test.json").read_text())
    kept = [row for row in rows if row["image"] != rows[0]["image"]]
    for name, chosen in {"all": rows, "some": kept}.items():
        answers = [{"question_id": row["question_id"], "text": row["answer"]} for row in chosen]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, answers)))
    picture = data / "colours/images" / rows[0]["image"]
    picture.rename(tmp_path / "away.png")
    try:
        assert same(*asked, tmp_path / "some.jsonl")[0] == 2
        found = [
            json.loads(same(*asked, tmp_path / f"{name}.jsonl", "--allow-missing", "--json")[1])
            for name in ("all", "some")
        ]
        printed = same(*asked, tmp_path / "some.jsonl", "--allow-missing")[1]
    finally:
        (tmp_path / "away.png").rename(picture)
    assert found[0] == found[1]
    assert (found[0]["items"], found[0]["left_out"]) == (len(kept), len(rows) - len(kept))
    assert f"Left out for missing pictures: {len(rows) - len(kept)} rows." in printed


def test_a_data_root_that_is_named_goes_before_the_environments(same, asked, data, tmp_path, monkeypatch):
    rows = json.loads((data / "colours/colour/test.json").read_text())
    answers = [{"question_id": row["question_id"], "text": row["answer"]} for row in rows]
    (tmp_path / "peer.jsonl").write_text("\n".join(map(json.dumps, answers)))
    monkeypatch.setenv("SAME_DATA", str(tmp_path / "nothing"))
    assert same(*asked, tmp_path / "peer.jsonl")[0] == 2
    assert "strict      1.0000" in same(*asked, tmp_path / "peer.jsonl", "--data-root", data)[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[:-1], "1 of 5 are missing, first 'colour-4' (row 4"),
        (lambda rows: [*rows, {"question_id": "x", "text": ""}], "row 5: question_id must be one of the 5"),
        (lambda rows: [*rows, rows[0]], "row 5: question_id must differ"),
    ],
)
def test_answers_that_do_not_match_the_test_rows_are_bad_input(same, asked, tmp_path, change, said):
    rows = [{"question_id": f"colour-{index}", "text": "red"} for index in range(5)]
    (tmp_path / "peer.jsonl").write_text("\n".join(map(json.dumps, change(rows))))
    code, out, err = same(*asked, tmp_path / "peer.jsonl")
    assert (code, out) == (2, "")
    assert "peer.jsonl" in err
    assert said in err


@pytest.fixture
def captions(data, tmp_path):
    """A benchmark of two captions, and somebody's answers."""
    task = {"key": "letter", "title": "Captions", "scorer": "caption"}
    (data / "captions.yaml").write_text(json.dumps({"title": "Captions", "tasks": [task]}))
    (data / "captions/letter").mkdir(parents=True, exist_ok=True)
    said = ["A cat sits on a mat.", "Two dogs run."]
    rows = [{"question_id": index, "text": "Say it.", "answer": answer} for index, answer in enumerate(said)]
    (data / "captions/letter/test.json").write_text(json.dumps(rows))
    answers = [{"question_id": index, "text": text} for index, text in enumerate(["A cat sits.", "Two dogs run."])]
    (tmp_path / "peer.jsonl").write_text("\n".join(map(json.dumps, answers)))
    return [
        "score",
        "--benchmark",
        data / "captions.yaml",
        "--task",
        "letter",
        "--predictions",
        tmp_path / "peer.jsonl",
    ]


def test_the_measures_of_captions_are_printed_and_the_one_left_out_is_named(same, captions):
    found = json.loads(same(*captions, "--json")[1])
    assert list(found["measures"]) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr-D"]
    assert found["scores"]["paper"] == pytest.approx(sum(found["measures"].values()) / 6)
    printed = same(*captions)[1]
    assert "METEOR            left out" in printed
    assert "captions without METEOR" in printed


def test_meteor_is_refused_without_java_and_where_there_are_no_captions(same, asked, captions, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert same(*captions, "--meteor")[0] == 2
    code, _, err = same(*asked, tmp_path / "peer.jsonl", "--meteor")
    assert (code, err) == (2, "error: METEOR must be asked for captions; colour is scored by the rule exact.\n")


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("pycocoevalcap") is None or shutil.which("java") is None,
    reason="needs Java and the extra meteor",
)
def test_meteor_is_counted_where_java_is(same, captions):
    measures = json.loads(same(*captions, "--meteor", "--json")[1])["measures"]
    assert 0.3 < measures["METEOR"] < 1
    assert measures.pop("mean of all seven") == pytest.approx(sum(measures.values()) / 7)


def test_what_cannot_be_exported_is_said(same, finished, tmp_path):
    asked = ["export", "--run", finished.path, "--out", tmp_path / "x.jsonl"]
    assert "Choose one of: colour, letter" in same(*asked, "--after", 0, "--task", "taste")[2]
    assert "predictions/task_09 does not exist" in same(*asked, "--after", 9, "--task", "colour")[2]
    assert "--after must be a task's index" in same(*asked, "--after", "last", "--task", "colour")[2]
    assert list(tmp_path.iterdir()) == []


def test_answers_of_another_schema_are_refused_with_what_to_do(copied):
    path = copied.predictions(0).path / "manifest.json"
    path.write_text(path.read_text().replace('"schema": 2', '"schema": 1'))
    with pytest.raises(SnapshotError, match=r"must have schema 2; got 1\. Delete that folder and run `same evaluate`"):
        copied.read_predictions(0, "colour")
