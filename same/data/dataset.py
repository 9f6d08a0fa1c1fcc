"""The rows of a task, checked and given as `datasets.Dataset` on Arrow files; pictures stay paths until the batch.

The same code reads a built benchmark and a downloaded one. A file is read once: its rows are kept as Arrow, named by
the content of the file, and mapped into memory afterwards, so that their number does not matter.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from PIL import Image
from platformdirs import user_cache_path

from same.data.manifest import Benchmark, Task
from same.data.references import References, read_references
from same.data.rows import READERS, TEST, RawRow, read_objects
from same.errors import DataError

FORM = 1
"""Changes when the Arrow files change shape."""
KEPT_IN = ".rows"
_AT_ONCE = 10_000  # rows whose pictures are looked for together


def training_rows(
    benchmark: Benchmark,
    task: Task,
    root: Path,
    limit: int | None = None,
    allow_missing: bool = False,
    held_out: int = 0,
) -> Dataset:
    """The training rows of a task: id, image (absolute path or None), conversations.

    Args:
        root: the benchmark's folder, as `prepare` gives it.
        limit: at most this many rows, evenly spread over the file; None for all.
        allow_missing: leave out rows whose picture is not there; see `left_out`.
        held_out: leave out so many rows at the file's end, which `validation_rows` gives.

    Raises:
        DataError: the file, a row or an image is not as it must be; the message names file, row and key.
    """
    return _rows(benchmark, task, root, "train", limit, allow_missing, last=held_out)[0]


def validation_rows(benchmark: Benchmark, task: Task, root: Path, items: int, allow_missing: bool = False) -> Dataset:
    """The last training rows of a task as rows to be answered, in the form of `test_rows`.

    Of a row with several turns the first is asked. Its one answer is the only reference.

    Raises:
        DataError: as `training_rows`; or no row would be left to train on.
    """
    rows = _rows(benchmark, task, root, "train", None, allow_missing, last=items)[1]
    return Dataset.from_list([_asked(index, row) for index, row in enumerate(rows)], features=TEST)


def _asked(index: int, row: dict[str, Any]) -> dict[str, Any]:
    question, answer = (turn["value"] for turn in row["conversations"][:2])
    about = {"question_id": f"validation-{index}", "image": row["image"], "text": question, "answer": answer}
    return {**about, "answers": [answer], "answer_bbox": None, "size": None}


def test_rows(
    benchmark: Benchmark,
    task: Task,
    root: Path,
    limit: int | None = None,  # noqa: PT028
    allow_missing: bool = False,  # noqa: PT028
    images: bool = True,  # noqa: PT028
) -> Dataset:
    """The test rows of a task: question_id, image, text, answer, answers, answer_bbox, size; as `training_rows`.

    Args:
        images: whether the images must be there; scoring answers needs none.
    """
    return _rows(benchmark, task, root, "test", limit, allow_missing, images)[0]


test_rows.__test__ = False  # type: ignore[attr-defined]  # rows of a test set, not a test


def left_out(benchmark: Benchmark, root: Path) -> dict[str, dict[str, list[int]]]:
    """Which rows of each task have a picture that is not there, by split; tasks and splits without are left away.

    Raises:
        DataError: a file or a row is not as it must be.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for task in benchmark.tasks:
        for split in READERS:
            shelf, images = Shelf(), _images(_arrow(benchmark, task, root, split))
            if missing := [index for index, image in enumerate(images) if image is not None and not shelf.has(image)]:
                found.setdefault(task.key, {})[split] = missing
    return found


def read_picture(path: str | Path) -> Image.Image:
    """A row's picture in RGB.

    Raises:
        DataError: the file cannot be read as a picture.
    """
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: an image must be readable; got {error}. Replace the file.") from error


class Shelf:
    """Which files there are, each folder listed once: quicker than asking for every file, above all over a network."""

    def __init__(self) -> None:
        self._folders: dict[str, set[str]] = {}

    def has(self, path: str) -> bool:
        """Whether the file is there."""
        folder, _, name = path.rpartition("/")
        if folder not in self._folders:
            self._folders[folder] = set(_files(folder))
        return name in self._folders[folder]


def _files(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.name for entry in entries if entry.is_file())
    except OSError:
        return


def _rows(
    benchmark: Benchmark,
    task: Task,
    root: Path,
    split: str,
    limit: int | None,
    allow_missing: bool,
    images: bool = True,
    last: int = 0,
) -> tuple[Dataset, Dataset]:
    """Rows of a split within the limit, and apart from them so many at the file's end."""
    file = root / getattr(task, split)
    if limit is not None and limit < 1:
        raise DataError(f"{file}: the number of rows asked for must be at least 1; got {limit}. Ask for more.")
    rows = _arrow(benchmark, task, root, split)
    shelf = Shelf()
    if allow_missing:
        there = [index for index, image in enumerate(_images(rows)) if image is None or shelf.has(image)]
        if not there:
            raise DataError(
                f"{file}: some row must have its image in {root / task.images}; all {len(rows)} are missing. "
                f"{advice(benchmark)}"
            )
        rows = rows if len(there) == len(rows) else rows.select(there)
    count = len(rows) - last
    if count < 1:
        raise DataError(f"{file}: rows must be left to train on; got {len(rows)}, {last} held out. Hold out fewer.")
    rows, apart = (rows.select(range(count)), rows.select(range(count, len(rows)))) if last else (rows, rows.select([]))
    if limit is not None and limit < count:
        rows = rows.select([index * count // limit for index in range(limit)])
    for chosen in (rows, apart) if images else ():
        _check_images(file, root / task.images, chosen, shelf, benchmark)
    return rows, apart


def _images(rows: Dataset) -> Iterator[str | None]:
    for batch in rows.with_format("arrow").iter(_AT_ONCE):
        yield from batch.column("image").to_pylist()


def _check_images(file: Path, images: Path, rows: Dataset, shelf: Shelf, benchmark: Benchmark) -> None:
    missing = dict.fromkeys(image for image in _images(rows) if image is not None and not shelf.has(image))
    if missing:
        first = next(row for row in rows if row["image"] in missing)
        wanted = len({image for image in _images(rows) if image is not None})
        names = ", ".join(os.path.relpath(image, images.absolute()) for image in list(missing)[:3])
        raise DataError(
            f"{file}: row {next(iter(first.values()))}: image must be a file in {images}; "
            f"{len(missing)} of {wanted} images are missing, first {names}. {advice(benchmark)} "
            "--allow-missing leaves such rows out."
        )


def advice(benchmark: Benchmark) -> str:
    """What helps where files of a benchmark are missing or damaged."""
    if benchmark.builder:
        return f"Remove the folder and run `same prepare --benchmark {benchmark.name}`."
    place = f" ({url})" if benchmark.sources and (url := benchmark.sources[0].url) else ""
    return f"Complete the download of {benchmark.title}{place}."


def _arrow(benchmark: Benchmark, task: Task, root: Path, split: str) -> Dataset:
    """All rows of a file, as Arrow on disk mapped into memory; read and checked where they are not there yet."""
    file, images = root / getattr(task, split), (root / task.images).absolute()
    references = root / task.references if task.references and split == "test" else None
    name_key, features, _ = READERS[split]
    kept = (
        _place(root) / f"{benchmark.name}-{task.key}-{split}-{_digest(benchmark, file, references, str(images))}.arrow"
    )
    if not kept.is_file():
        beside = tempfile.NamedTemporaryFile(prefix=f".{kept.name}-", dir=kept.parent, delete=False)  # noqa: SIM115
        try:
            with ArrowWriter(features=features, path=beside.name) as writer:
                for row in _checked(benchmark, file, split, name_key, references):
                    writer.write(row | {"image": row["image"] and str(images / row["image"])})
                writer.finalize()
            os.fsync(beside.fileno())
            Path(beside.name).replace(kept)
        finally:
            beside.close()
            Path(beside.name).unlink(missing_ok=True)
    return Dataset.from_file(str(kept))


def _checked(
    benchmark: Benchmark, file: Path, split: str, name_key: str, references: Path | None
) -> Iterator[dict[str, Any]]:
    read, seen = READERS[split][2], dict[str, int]()
    answers: References | None = read_references(references) if references else None
    for index, content in enumerate(read_objects(file, advice(benchmark))):
        row = RawRow(file, index, content, name_key)
        if split == "test":  # predictions are keyed by the name; public training files repeat theirs
            if row.name in seen:
                raise row.error(name_key, f"differ from every other (row {seen[row.name]} has it)", row.name)
            seen[row.name] = index
        found = read(row)
        if answers is not None:
            if row.name not in answers:
                raise row.error(name_key, f"be one of {references}", row.name)
            found["answers"] = answers[row.name]
        yield found


def _place(root: Path) -> Path:
    """Where the Arrow files lie: beside the benchmark's folder, or in the user's cache if that cannot be written to."""
    for place in (root.absolute().parent / KEPT_IN, user_cache_path("same-workbench") / "rows"):
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(place, os.W_OK):
            return place
    raise DataError(f"the folder of the data or the user's cache must be writable; {root} is not. Set XDG_CACHE_HOME.")


def _digest(benchmark: Benchmark, file: Path, references: Path | None, *about: str) -> str:
    digest = hashlib.sha256("\n".join((str(FORM), *about)).encode())
    for path in _given(file, references):
        try:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        except FileNotFoundError:
            raise DataError(f"{path}: the instruction file must exist; found nothing. {advice(benchmark)}") from None
        except OSError as error:
            raise DataError(
                f"{path}: an instruction file must be readable; got {error}. {advice(benchmark)}"
            ) from error
    return digest.hexdigest()[:16]


def _given(file: Path, references: Path | None) -> Iterable[Path]:
    return (file,) if references is None else (file, references)
