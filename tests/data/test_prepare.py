"""An embedded benchmark is built whole, once, and the same every time."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from same.data import dataset
from same.data.manifest import Benchmark, load_benchmark
from same.data.prepare import data_digest, data_root, prepare
from same.data.sheet import contact_sheet, credit_lines
from same.errors import DataError, InputError


@pytest.fixture
def mini() -> Benchmark:
    """mini-CoIN with few items."""
    whole = load_benchmark("mini-coin")
    tasks = tuple(dataclasses.replace(task, train_items=6, test_items=4) for task in whole.tasks)
    return dataclasses.replace(whole, tasks=tasks)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Benchmark, Path]:
    whole = load_benchmark("mini-coin")
    tasks = tuple(dataclasses.replace(task, train_items=6, test_items=4) for task in whole.tasks)
    benchmark = dataclasses.replace(whole, tasks=tasks)
    return benchmark, prepare(benchmark, tmp_path_factory.mktemp("data"), progress=False)


def test_every_task_reads_back_with_its_pictures(built: tuple[Benchmark, Path]) -> None:
    benchmark, folder = built
    for task in benchmark.tasks:
        training = dataset.training_rows(benchmark, task, folder)
        test = dataset.test_rows(benchmark, task, folder)
        assert (len(training), len(test)) == (6, 4), task.key
        assert all(task.prompt in text for text in test["text"]), task.key
        with Image.open(training[0]["image"]) as picture:
            assert (picture.size, picture.mode) == ((64, 64), "RGB")
        if task.scorer == "grounding":
            assert all(len(box) == 4 and 0 <= min(box) <= max(box) <= 1 for box in test["answer_bbox"])


def test_files_are_in_llava_format(built: tuple[Benchmark, Path]) -> None:
    _, folder = built
    (row, *_) = json.loads((folder / "gqa/train.json").read_text(encoding="utf-8"))
    assert set(row) == {"id", "image", "conversations"}
    assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"]
    assert row["conversations"][0]["value"].startswith("<image>\n")
    (row, *_) = json.loads((folder / "gqa/test.json").read_text(encoding="utf-8"))
    assert set(row) == {"question_id", "image", "text", "answer", "answers"}


def test_the_same_seed_gives_the_same_files(built: tuple[Benchmark, Path], tmp_path: Path) -> None:
    benchmark, folder = built
    again = prepare(benchmark, tmp_path, progress=False)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_a_finished_folder_is_found_again_and_others_stand_beside_it(mini: Benchmark, tmp_path: Path) -> None:
    mini = dataclasses.replace(mini, tasks=mini.tasks[3:4])
    folder = prepare(mini, tmp_path, progress=False)
    before = (folder / "gqa/train.json").stat().st_mtime_ns
    assert prepare(mini, tmp_path, progress=False) == folder
    assert (folder / "gqa/train.json").stat().st_mtime_ns == before
    assert prepare(dataclasses.replace(mini, seed=1), tmp_path, progress=False) != folder


def test_a_task_that_draws_anothers_items_stands_in_its_own_folder(mini: Benchmark, tmp_path: Path) -> None:
    (task,) = mini.tasks[3:4]
    folders = []
    for stream in (0, 1):
        lent = dataclasses.replace(task, key="lent", draws="gqa", stream=stream)
        folders.append(prepare(dataclasses.replace(mini, tasks=(lent,)), tmp_path, progress=False))
    own = prepare(dataclasses.replace(mini, tasks=(task,)), tmp_path, progress=False)
    pictures = [
        (folder / f"images/{key}/test/00000.png").read_bytes()
        for folder, key in zip([own, *folders], ["gqa", "lent", "lent"], strict=True)
    ]
    assert pictures[0] == pictures[1] != pictures[2]
    assert len({own, *folders}) == 3


def test_a_build_that_fails_leaves_nothing(mini: Benchmark, tmp_path: Path) -> None:
    broken = dataclasses.replace(mini.tasks[3], key="nothing_draws_this")
    with pytest.raises(InputError, match="nothing_draws_this"):
        prepare(dataclasses.replace(mini, tasks=(mini.tasks[3], broken)), tmp_path, progress=False)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_what_a_killed_build_left_is_built_over(mini: Benchmark, tmp_path: Path) -> None:
    mini = dataclasses.replace(mini, tasks=mini.tasks[3:4])
    folder = prepare(mini, tmp_path, progress=False)
    (folder / "gqa/test.json").unlink()
    folder.rename(tmp_path / f".{folder.name}.building")
    assert (prepare(mini, tmp_path, progress=False) / "gqa/test.json").is_file()


def test_the_data_root_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAME_DATA", str(tmp_path))
    assert data_root() == tmp_path
    monkeypatch.delenv("SAME_DATA")
    assert data_root().parts[-2:] == ("same-workbench", "data")


def test_a_downloaded_benchmark_is_found_or_its_files_named(benchmark: Benchmark, folder: Path) -> None:
    assert prepare(benchmark, folder.parent) == folder
    (folder / "birds/test.json").unlink()
    with pytest.raises(DataError, match=r"1 of 4 are missing, first birds/test\.json"):
        prepare(benchmark, folder.parent)


def test_a_missing_picture_of_a_built_benchmark_says_what_to_do(mini: Benchmark, tmp_path: Path) -> None:
    mini = dataclasses.replace(mini, tasks=mini.tasks[3:4])
    folder = prepare(mini, tmp_path, progress=False)
    (folder / "images/gqa/train/00003.png").unlink()
    with pytest.raises(DataError, match=r"first gqa/train/00003\.png\. .*same prepare --benchmark mini-coin"):
        dataset.training_rows(mini, mini.tasks[0], folder)


def test_the_contact_sheet_has_a_row_a_task(built: tuple[Benchmark, Path], tmp_path: Path) -> None:
    benchmark, folder = built
    contact_sheet(benchmark, folder, tmp_path / "new/sheet.png")
    with Image.open(tmp_path / "new/sheet.png") as sheet:
        assert sheet.height > 8 * 128
        assert len(sheet.getcolors(1 << 20) or []) > 1000
    with pytest.raises(InputError, match="must be a writable picture file"):
        contact_sheet(benchmark, folder, tmp_path / "sheet.txt")


def test_the_contact_sheet_names_whom_its_pictures_are_owed_to(built: tuple[Benchmark, Path], tmp_path: Path) -> None:
    benchmark, folder = built
    line = "All emojis designed by OpenMoji - the open-source emoji and icon project. License: CC BY-SA 4.0"
    lines = credit_lines(benchmark, 120)
    assert line in " ".join(lines)
    assert max(map(len, lines)) <= 120
    nobody = dataclasses.replace(benchmark, tasks=tuple(dataclasses.replace(t, sources=()) for t in benchmark.tasks))
    assert credit_lines(nobody, 120) == []
    heights = []
    for one in (benchmark, nobody):
        contact_sheet(one, folder, tmp_path / "sheet.png", examples=1)
        with Image.open(tmp_path / "sheet.png") as sheet:
            heights.append(sheet.height)
    assert heights[0] > heights[1], "the credits have lines of their own"


def test_a_contact_sheet_of_a_torn_picture_names_it(benchmark: Benchmark, folder: Path, tmp_path: Path) -> None:
    (folder / "images/one.png").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"one\.png: an image must be readable"):
        contact_sheet(benchmark, folder, tmp_path / "sheet.png")
    assert not (tmp_path / "sheet.png").exists()


def test_the_digest_of_a_downloaded_benchmark_is_that_of_its_instruction_files(
    benchmark: Benchmark, folder: Path
) -> None:
    root = folder.parent
    assert folder == root / benchmark.name
    before = data_digest(benchmark, root)
    assert data_digest(benchmark, root) == before
    file = folder / benchmark.tasks[0].test
    file.write_text(file.read_text() + " ")
    assert data_digest(benchmark, root) != before
    file.unlink()
    with pytest.raises(DataError, match="are missing"):
        data_digest(benchmark, root)


def test_a_revised_task_makes_its_benchmarks_new_and_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("mini-coin", "mini-ucit", "mini-trigap")
    revised = [data_digest(load_benchmark(name)) for name in names]
    monkeypatch.setattr("same.data.mini.REVISED", {})
    assert [data_digest(load_benchmark(name)) == now for name, now in zip(names, revised, strict=True)] == [
        True,
        False,
        False,
    ]
