"""A hundred thousand rows cost a file on disk, not memory, and every process sees its own of them once."""

import json
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from datasets import Dataset
from torch.utils.data import DataLoader

from same.data import dataset
from same.data.manifest import Benchmark, load_benchmark
from same.engine.trainer import plan_epoch, split

ROWS = 100_000
MANIFEST = "{title: Many, tasks: [{key: many, title: Many, scorer: exact}]}"


def anonymous_megabytes() -> float:
    """Memory of this process that no file stands behind: mapped Arrow files do not count."""
    found = psutil.Process().memory_info()
    return float(found.rss - found.shared) / 2**20


@pytest.fixture
def many(tmp_path: Path, manifest: Callable[[str, str], Path]) -> tuple[Benchmark, Path]:
    """A benchmark of many rows on three pictures that are none: whoever decodes one fails."""
    root = tmp_path / "many"
    (root / "images").mkdir(parents=True)
    (root / "many").mkdir()
    for index in range(3):
        (root / "images" / f"{index}.png").write_text("not a picture")
    question = {"from": "human", "value": "<image>\nWhat is this? Answer the question using a single word or phrase."}
    with (root / "many/train.json").open("w") as stream:
        for index in range(ROWS):
            turns = [question, {"from": "gpt", "value": f"answer {index}"}]
            row = {"id": index, "image": f"{index % 3}.png", "conversations": turns}
            stream.write(("," if index else "[") + json.dumps(row))
        stream.write("]")
    return load_benchmark(manifest(MANIFEST, "many.yaml")), root


@pytest.mark.slow
def test_a_hundred_thousand_rows_need_little_memory_and_no_picture(many: tuple[Benchmark, Path]) -> None:
    benchmark, root = many
    size = (root / "many/train.json").stat().st_size / 2**20
    before = anonymous_megabytes()
    rows = dataset.training_rows(benchmark, benchmark.tasks[0], root)
    read = anonymous_megabytes()
    batches = [list(range(start, start + 100)) for start in range(0, ROWS, 100)]
    seen = 0
    for batch in DataLoader(rows, batch_sampler=batches, collate_fn=list):
        seen += len(batch)
    after = anonymous_megabytes()
    assert (len(rows), seen, rows[ROWS - 1]["id"]) == (ROWS, ROWS, str(ROWS - 1))
    assert rows.cache_files, "rows must be mapped from a file"
    assert read - before < 40 + 2 * size, "reading keeps no more than the file's text"
    assert after - read < 40, "going through all rows keeps none of them"


def test_rows_are_read_once_and_found_again(benchmark: Benchmark, folder: Path) -> None:
    task = benchmark.task("birds")
    first = dataset.training_rows(benchmark, task, folder)
    (kept,) = (folder.parent / dataset.KEPT_IN).glob("small-birds-train-*.arrow")
    written = kept.stat().st_mtime_ns
    again = dataset.training_rows(benchmark, task, folder)
    assert again.to_list() == first.to_list()
    assert kept.stat().st_mtime_ns == written
    path = folder / task.train
    path.write_text(path.read_text().replace("bird a", "bird z"))
    assert dataset.training_rows(benchmark, task, folder)[0]["conversations"][1]["value"] == "bird z"


def test_where_the_data_cannot_be_written_to_rows_are_kept_in_the_users_cache(
    benchmark: Benchmark, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / dataset.KEPT_IN).write_text("a file, not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert len(dataset.training_rows(benchmark, benchmark.task("birds"), folder)) == 3
    assert list((tmp_path / "cache/same-workbench/rows").glob("small-birds-train-*.arrow"))


def test_no_half_written_file_is_left_by_a_bad_row(benchmark: Benchmark, folder: Path) -> None:
    path = folder / "birds/train.json"
    path.write_text(json.dumps([*json.loads(path.read_text()), {"id": "d"}]))
    with pytest.raises(dataset.DataError):
        dataset.training_rows(benchmark, benchmark.task("birds"), folder)
    assert not list((folder.parent / dataset.KEPT_IN).iterdir())


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ranks", [1, 3])
def test_each_row_is_seen_once_over_all_ranks_and_worker_processes(ranks: int, workers: int) -> None:
    rows = Dataset.from_dict({"id": list(range(101))})
    seen: list[int] = []
    for rank in range(ranks):
        plan = [part for batch in plan_epoch(len(rows), 12, 5) for part in split(batch, rank, ranks, 2)]
        assert plan == [part for batch in plan_epoch(len(rows), 12, 5) for part in split(batch, rank, ranks, 2)]
        loader = DataLoader(rows, batch_sampler=plan, collate_fn=list, num_workers=workers)
        found = [[row["id"] for row in batch] for batch in loader]
        assert found == plan, "worker processes keep the plan's order, so that a run resumed sees what it would have"
        seen += [name for batch in found for name in batch]
    assert sorted(seen) == list(range(101))
