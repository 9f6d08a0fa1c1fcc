"""The run folder: complete or absent, and every damage named."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from same import runs
from same.errors import InputError, SnapshotError
from same.runs import RunFolder, fingerprint, runs_in, write_table
from same.sealed import SealedFolder

SETTINGS = {"benchmark": "b", "train": {"learning_rate": 1e-3, "epochs": 1}}


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path, "b", "m", 0, SETTINGS)


def fill(folder):
    (folder / "adapter").mkdir()
    (folder / "adapter" / "weights.bin").write_bytes(bytes(range(256)))
    write_table(folder / "routing.parquet", {"layer": ["a", "b"], "weight": [0.25, 0.75]})


def test_the_folder_is_named_by_seed_and_fingerprint(run, tmp_path):
    assert run.path == tmp_path / "b" / "m" / f"0-{fingerprint(SETTINGS)}"
    assert runs_in(tmp_path)[0].path == run.path
    assert run.config()["settings"] == SETTINGS


def test_the_fingerprint_does_not_depend_on_the_order_of_settings():
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})


def test_other_settings_under_the_same_name_are_refused_and_named(run, tmp_path):
    other = {"benchmark": "b", "train": {"learning_rate": 1e-2, "epochs": 1}}
    run.path.rename(RunFolder.at(tmp_path, "b", "m", 0, other).path)
    with pytest.raises(InputError, match=r"train\.learning_rate: 0\.001 → 0\.01"):
        RunFolder.create(tmp_path, "b", "m", 0, other)


def test_events_come_back_in_order_and_by_kind(run):
    run.append_event("start", tasks=2)
    run.append_event("step", step=1, loss=2.5)
    assert [event["kind"] for event in run.events()] == ["start", "step"]
    assert run.events("step")[0]["loss"] == 2.5


def test_a_line_cut_short_by_a_crash_is_not_read_and_goes_at_the_next_append(run):
    run.append_event("start")
    with run.events_path.open("a") as stream:
        stream.write('{"kind": "st')
    assert [event["kind"] for event in run.events()] == ["start"]
    run.append_event("done")
    assert [event["kind"] for event in run.events()] == ["start", "done"]


def test_a_line_that_another_process_adds_meanwhile_stays(run, monkeypatch):
    run.append_event("start")

    def measure(size, path):
        with path.open("a") as stream:
            stream.write('{"kind": "failed"}\n')
        return size

    monkeypatch.setattr(runs, "_whole_lines", measure)
    run.append_event("done")
    assert [event["kind"] for event in run.events()] == ["start", "failed", "done"]


def test_what_a_killed_process_left_is_swept_and_nothing_else(run):
    run.write_snapshot(0, fill)
    run.append_event("start")
    for left in (run.path / "snapshots" / ".task_01-x" / "adapter", run.path / "state" / ".task_01-old-x"):
        left.mkdir(parents=True)
        (left / "weights.bin").write_bytes(b"half")
    (run.path / ".scores.json.7").write_text("{")
    (run.path / ".mine").write_text("")
    run.sweep()
    names = [".mine", "config.json", "events.jsonl", "snapshots", "state"]
    assert sorted(path.name for path in run.path.iterdir()) == names
    assert [path.name for path in (run.path / "snapshots").iterdir()] == ["task_00"]
    assert list((run.path / "state").iterdir()) == []
    run.snapshot(0).verify()


def test_a_runs_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"runs must be a folder that can be written to; got .*file"):
        RunFolder.create(tmp_path / "file", "b", "m", 0, SETTINGS)
    with pytest.raises(SnapshotError, match=r"file/config\.json is missing"):
        RunFolder(tmp_path / "file").config()


def test_a_damaged_line_is_named(run):
    run.append_event("start")
    run.events_path.write_text("nonsense\n" + run.events_path.read_text())
    with pytest.raises(SnapshotError, match="line 1 is damaged"):
        run.events()


def test_a_snapshot_comes_back_as_it_was_written(run):
    assert run.finished() == 0
    run.write_snapshot(0, fill)
    assert run.finished() == 1
    run.snapshot(0).verify()
    assert list(run.snapshot(0).table("routing")["weight"]) == [0.25, 0.75]


def test_a_snapshot_whose_writing_fails_is_absent(run):
    def fail(folder):
        fill(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        run.write_snapshot(0, fail)
    assert run.finished() == 0
    assert list((run.path / "snapshots").iterdir()) == []


def test_what_another_process_wrote_meanwhile_gives_way_whole(run):
    def slowly(folder):
        run.write_snapshot(0, lambda beside: (beside / "other").write_text("theirs"), task="a")
        (folder / "one").write_text("ours")

    run.write_snapshot(0, slowly, task="a")
    assert set(run.snapshot(0).manifest()["files"]) == {"one"}
    assert [path.name for path in run.snapshot(0).path.parent.iterdir()] == [run.snapshot(0).path.name]


def test_many_who_write_one_folder_at_once_all_succeed_and_one_of_them_stays(tmp_path):
    folder = SealedFolder(tmp_path / "kept", "Delete that folder.")

    def write(number):
        folder.write(lambda beside: (beside / "who").write_text(str(number)))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(64)))
    folder.verify()
    assert folder.file("who").read_text() in {str(number) for number in range(64)}
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_snapshot_is_replaced_whole(run):
    run.write_snapshot(0, fill)
    run.write_snapshot(0, lambda folder: (folder / "only.txt").write_text("new"))
    assert sorted(file.name for file in run.snapshot(0).path.iterdir()) == ["manifest.json", "only.txt"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip, truncate, lambda path: path.unlink()], ids=["flip", "truncate", "missing"])
@pytest.mark.parametrize("name", ["adapter/weights.bin", "routing.parquet", "manifest.json"])
def test_any_damage_to_a_snapshot_is_named(run, damage, name):
    run.write_snapshot(0, fill)
    damage(run.snapshot(0).path / name)
    with pytest.raises(SnapshotError) as caught:
        run.snapshot(0).verify()
    assert name in str(caught.value)
    assert "Delete that folder" in str(caught.value)


@pytest.mark.parametrize("damage", [flip, truncate, lambda path: path.unlink()], ids=["flip", "truncate", "missing"])
@pytest.mark.parametrize("name", ["config.json", "scores.json"])
def test_any_damage_to_scores_or_config_is_named(run, damage, name):
    run.write_scores(["a"], {"strict": [[0.5]]})
    damage(run.path / name)
    with pytest.raises(SnapshotError, match=name):
        run.config() if name == "config.json" else run.scores()


def test_scores_of_another_schema_are_refused(run):
    run.write_scores(["a"], {"strict": [[0.5]]})
    content = json.loads((run.path / "scores.json").read_text())
    (run.path / "scores.json").write_text(json.dumps({**content, "schema": 99}))
    with pytest.raises(SnapshotError, match="must have schema 2; got 99"):
        run.scores()


def test_scores_hold_every_variant(run):
    run.write_scores(["a", "b"], {"strict": [[0.5, None]], "semantic": [[0.6, None]]}, {"strict": [0.1, 0.2]})
    scores = run.scores()
    assert scores["variants"]["semantic"] == [[0.6, None]]
    assert scores["zero_shot"] == {"strict": [0.1, 0.2], "semantic": None}


def test_importing_runs_registry_and_metrics_does_not_import_torch():
    code = "import same.runs, same.registry, same.metrics, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
