"""The command line: what it prints and with which code it ends."""

import json
import sys

import pytest

from same import cli
from same.errors import InputError
from same.metrics import NAMES, READINGS
from same.runs import RunFolder, write_table


@pytest.fixture
def same(monkeypatch, capsys):
    """Run a command; returns exit code, stdout and stderr."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["same", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture
def run(tmp_path):
    folder = RunFolder.create(tmp_path / "runs", "b", "m", 0, {"benchmark": "b"})
    rows = [[0.5, None], [0.25, 0.75]]
    counts = [[{"right": 2, "case": 2}, None], [{"right": 1, "empty": 3}, {"right": 3, "wrong": 1}]]
    folder.write_scores(["one", "two"], dict.fromkeys(READINGS, rows), {"strict": [0.0, 0.25]}, errors=counts)
    folder.write_snapshot(0, lambda path: write_table(path / "routing.parquet", {"layer": ["a"]}))
    return folder


def test_show_gives_every_metric_in_every_reading(same, run):
    code, out, _ = same("show", "--run", run.path, "--json")
    found = json.loads(out)
    assert code == 0
    assert all(set(found[name]) == set(READINGS) for name in NAMES)
    assert found["bwt"]["strict"] == -0.25
    assert found["variants"]["strict"][1] == [0.25, 0.75]
    assert found["errors"][0] == [{"right": 2, "case": 2}, None]


def test_show_prints_the_matrix_with_gaps_for_tasks_not_seen(same, run):
    code, out, _ = same("show", "--run", run.path)
    assert code == 0
    assert "one             0.500           ·" in out
    assert "forgetting" in out
    assert "one         1 right, 3 empty" in out


def test_show_names_a_damaged_snapshot(same, run):
    path = run.snapshot(0).path / "routing.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    code, _, err = same("show", "--run", run.path)
    assert code == 2
    assert "task_00/routing.parquet is damaged" in err


def test_show_says_how_many_rows_were_left_out(same, tmp_path):
    missing = {"one": {"train": 3, "test": 1}, "two": {"train": 5}}
    run = RunFolder.create(tmp_path, "b", "m", 0, {"left_out": missing})
    run.write_scores(["one", "two"], {"strict": [[0.5, None]]})
    assert (
        "Left out for missing pictures: one 3 train and 1 test, two 5 train rows." in same("show", "--run", run.path)[1]
    )
    assert json.loads(same("show", "--run", run.path, "--json")[1])["left_out"] == missing


def test_show_says_what_must_be_known_of_a_reading(same, tmp_path):
    run = RunFolder.create(tmp_path, "b", "m", 0, {"tasks": [{"key": "one", "scorer": "caption"}]})
    run.write_scores(["one"], {name: [[0.5]] for name in READINGS})
    assert "  one: captions without METEOR" in same("show", "--run", run.path)[1]
    assert set(json.loads(same("show", "--run", run.path, "--json")[1])["flaws"]) == set(READINGS)


def test_doctor_ends_with_1_where_training_could_not_start(same, tmp_path):
    (tmp_path / "quiz").mkdir()
    manifest = tmp_path / "quiz.yaml"
    manifest.write_text("{title: Quiz, tasks: [{key: one, title: One, scorer: exact}]}")
    arguments = ("doctor", "--benchmark", manifest, "--data-root", tmp_path)
    code, out, _ = same(*arguments, "--json")
    assert code == 1
    assert [finding["problem"] for finding in json.loads(out)["findings"]] == ["file missing"] * 2
    (tmp_path / "quiz/one").mkdir()
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    (tmp_path / "quiz/one/train.json").write_text(json.dumps([{"conversations": turns}]))
    (tmp_path / "quiz/one/test.json").write_text(json.dumps([{"question_id": 1, "text": "q", "answer": "a"}]))
    code, out, _ = same(*arguments)
    assert code == 0
    assert "Training could start." in out


def test_show_of_no_run_says_so(same, tmp_path):
    code, _, err = same("show", "--run", tmp_path / "nowhere")
    assert code == 2
    assert "config.json is missing" in err


def test_settings_are_key_and_value():
    assert cli.parse_settings(["a=1", "b = x=y "]) == {"a": "1", "b": "x=y"}
    with pytest.raises(InputError, match="key=value; got 'rank'"):
        cli.parse_settings(["rank"])


def test_methods_lists_every_plug_in(same):
    code, out, _ = same("methods", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert {"zero_shot", "lora", "moelora", "same", "same_plus"} <= set(rows)
    assert rows["moelora"]["settings"]["num_experts"] > 1


def test_an_unknown_option_is_bad_input(same):
    assert same("show", "--nothing")[0] == 2
