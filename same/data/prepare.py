"""Builds the embedded benchmarks on this machine, once, and finds the downloaded ones."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path
from tqdm.auto import tqdm

from same.data.manifest import BUILDERS, Benchmark
from same.data.rows import IMAGE_TAG
from same.errors import DataError

LAYOUT = 1
"""Changes when the files below a built folder change shape."""

_CHUNK = 100
_WORTH_WORKERS = 1000  # fewer items are drawn sooner than a worker starts


def data_root() -> Path:
    """Where benchmarks lie: the environment's SAME_DATA, or the user's cache folder."""
    given = os.environ.get("SAME_DATA")
    return Path(given).expanduser() if given else user_cache_path("same-workbench") / "data"


def prepare(benchmark: Benchmark, root: Path | None = None, progress: bool = True) -> Path:
    """Have a benchmark's files on disk.

    A benchmark with a builder is drawn under `root` in a folder of its own, named by what determines its content: there
    it is complete or absent, and found again the next time. One without a builder must lie in `root/<name>` already.

    Args:
        root: the data root; default `data_root()`.
        progress: whether to show a progress bar while building.

    Returns:
        The benchmark's folder, for `training_rows` and `test_rows`.

    Raises:
        DataError: files of a benchmark without builder are missing.
    """
    root = data_root() if root is None else root
    folder = benchmark_folder(benchmark, root)
    if benchmark.builder is None:
        return _found(benchmark, folder)
    if folder.is_dir():
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        held = FileLock(root / f".{folder.name}.lock").acquire()
    except OSError as error:
        raise DataError(
            f"the data root must be a writable folder; got {root} ({error}). Give --data-root or set SAME_DATA."
        ) from error
    with held:
        if not folder.is_dir():
            _build_whole(benchmark, folder, progress)
    return folder


def benchmark_folder(benchmark: Benchmark, root: Path | None = None) -> Path:
    """Where a benchmark's files lie, or would lie, below the data root."""
    root = data_root() if root is None else root
    return root / (f"{benchmark.name}-{data_digest(benchmark)}" if benchmark.builder else benchmark.name)


def instruction_files(benchmark: Benchmark) -> list[str]:
    """Every file beside the pictures that the manifest names, relative to the benchmark's folder."""
    return [name for task in benchmark.tasks for name in (task.train, task.test, task.references) if name]


def _found(benchmark: Benchmark, folder: Path) -> Path:
    wanted = instruction_files(benchmark)
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} must hold the instruction files of {benchmark.title}; "
            f"{len(missing)} of {len(wanted)} are missing, first {missing[0]}. "
            f"Download them there, or give --data-root (or SAME_DATA): the folder that holds {benchmark.name}."
        )
    return folder


def data_digest(benchmark: Benchmark, root: Path | None = None) -> str:
    """What determines the content of a benchmark, in 8 hexadecimal digits; of a downloaded one its instruction files.

    Raises:
        DataError: files of a benchmark without builder are missing.
    """
    if benchmark.builder is None:
        folder = _found(benchmark, benchmark_folder(benchmark, root))
        digest = hashlib.sha256()
        for name in instruction_files(benchmark):
            with (folder / name).open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()[:8]
    builder = import_module(BUILDERS[benchmark.builder])
    files = [(t.key, t.train, t.test, t.images, t.train_items, t.test_items) for t in benchmark.tasks]
    lent = [(task.key, task.draws, task.stream) for task in benchmark.tasks if task.draws or task.stream]
    revised = [
        (t.key, builder.REVISED[t.draws or t.key]) for t in benchmark.tasks if (t.draws or t.key) in builder.REVISED
    ]
    content = json.dumps([LAYOUT, builder.VERSION, benchmark.seed, files, *lent, *revised])
    return hashlib.sha256(content.encode()).hexdigest()[:8]


def _build_whole(benchmark: Benchmark, folder: Path, progress: bool) -> None:
    """Build beside, then rename: `folder` is complete or absent."""
    beside = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        _build(benchmark, beside, progress)
        os.sync()  # one call for many thousand small files: nothing of them may be missing once the name is there
        beside.rename(folder)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


@dataclass(frozen=True)
class _Piece:
    """Some consecutive items of one file: what one worker draws at a time."""

    builder: str
    task: str
    draws: str
    stream: int
    split: str
    start: int
    stop: int
    seed: int
    images: Path


def _build(benchmark: Benchmark, folder: Path, progress: bool) -> None:
    pieces = list(_pieces(benchmark, folder))
    with tqdm(
        total=sum(piece.stop - piece.start for piece in pieces),
        desc=f"Drawing {benchmark.title}",
        unit=" items",
        disable=not progress,
    ) as bar:
        drawn = dict(_drawn(pieces, bar))
    for task in benchmark.tasks:
        for split, name in (("train", task.train), ("test", task.test)):
            rows = [row for piece in pieces if (piece.task, piece.split) == (task.key, split) for row in drawn[piece]]
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(rows, ensure_ascii=False, indent=1), encoding="utf-8")


def _pieces(benchmark: Benchmark, folder: Path) -> Iterator[_Piece]:
    builder = BUILDERS[benchmark.builder or ""]
    for task in benchmark.tasks:
        images = folder / task.images
        for split, items in (("train", task.train_items or 0), ("test", task.test_items or 0)):
            (images / task.key / split).mkdir(parents=True, exist_ok=True)
            for start in range(0, items, _CHUNK):
                stop, drawn_by = min(start + _CHUNK, items), task.draws or task.key
                yield _Piece(builder, task.key, drawn_by, task.stream, split, start, stop, benchmark.seed, images)


def _drawn(pieces: list[_Piece], bar: "tqdm[Any]") -> Iterator[tuple[_Piece, list[dict[str, Any]]]]:
    """The rows of every piece, on all cores; on this one alone where no worker can be started."""
    waiting = list(pieces)
    workers = min(os.cpu_count() or 1, 8)
    if workers > 1 and sum(piece.stop - piece.start for piece in pieces) > _WORTH_WORKERS:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            futures: dict[Future[list[dict[str, Any]]], _Piece] = {pool.submit(_draw, piece): piece for piece in pieces}
            try:
                for future in as_completed(futures):
                    piece = futures[future]
                    yield piece, future.result()
                    bar.update(piece.stop - piece.start)
                    waiting.remove(piece)
            except BrokenProcessPool:
                bar.write("The worker processes could not be used; drawing in this one.")
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    for piece in waiting:
        yield piece, _draw(piece)
        bar.update(piece.stop - piece.start)


def _draw(piece: _Piece) -> list[dict[str, Any]]:
    """Draw a piece's items: pictures to disk, rows given back."""
    builder = import_module(piece.builder)
    rows = []
    for index in range(piece.start, piece.stop):
        sample = builder.sample(piece.draws, piece.split, index, piece.seed, piece.stream)
        image = f"{piece.task}/{piece.split}/{index:05d}.png"
        sample.image.save(piece.images / image, compress_level=1)
        row = _training_row if piece.split == "train" else _test_row
        rows.append(row(f"{piece.task}-{piece.split}-{index:05d}", image, sample))
    return rows


def _training_row(name: str, image: str, sample: Any) -> dict[str, Any]:
    question = {"from": "human", "value": f"{IMAGE_TAG}\n{sample.question}"}
    return {"id": name, "image": image, "conversations": [question, {"from": "gpt", "value": sample.answer}]}


def _test_row(name: str, image: str, sample: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"question_id": name, "image": image, "text": sample.question, "answer": sample.answer}
    if sample.answers:
        row["answers"] = list(sample.answers)
    if sample.box is not None:
        row |= {"answer_bbox": str(list(sample.box)), "size": list(sample.image.size)}
    return row
