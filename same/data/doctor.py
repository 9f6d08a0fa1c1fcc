"""The data doctor: examines a benchmark's files as training would read them, but reports every fault, not the first.

Each picture is decoded, not only opened: `verify` of Pillow looks at no byte of a JPEG's content, and archives that
broke off leave files cut short. A JPEG is decoded at an eighth of its size, for which every byte of it is still read.
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from same import registry
from same.data.dataset import Shelf, advice, read_picture
from same.data.manifest import Benchmark, Task
from same.data.prepare import benchmark_folder, instruction_files
from same.data.references import read_references
from same.data.rows import READERS, RawRow, read_objects
from same.errors import DataError

ERROR, WARNING = "error", "warning"
SHOWN = 3
"""Of each fault so many cases are named; all are counted."""

MENDING = ("Mend the file.", "Mend the test file.", "Download it again.")
"""What errors advise; the report does so once, at its end."""

_TIMED = 32  # pictures read to see how long one takes
_THREADS = 16
_GIGABYTE = 2**30


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    Args:
        level: `error` where training could not start, else `warning`.
        count: of how many rows, pictures or files it is true.
        first: some of them.
    """

    level: str
    task: str
    file: str
    problem: str
    count: int
    first: tuple[str, ...] = ()


@dataclass
class TaskCounts:
    """What was found of one task; `promised` is what the manifest says (None: nothing)."""

    key: str
    rows: dict[str, int]
    promised: dict[str, int | None]
    pictures: int = 0
    missing_pictures: int = 0
    undecodable_pictures: int = 0
    rows_without_their_picture: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """What the doctor found.

    Args:
        ready: whether training could start.
        gigabytes_free, gigabytes_needed: on the disk of the files; needed are the Arrow files of the rows.
        seconds: that the examination took.
        seconds_to_start: to read and check all rows once more, as the first start of training does before it keeps
            them as Arrow files.
        seconds_a_pass: to read every training row's picture once, in one process, whatever the model takes; None where
            none can be read.
        advice: what helps where files are missing or damaged.
    """

    benchmark: str
    folder: str
    ready: bool
    tasks: list[TaskCounts]
    findings: list[Finding]
    gigabytes_free: float
    gigabytes_needed: float
    seconds: float
    seconds_to_start: float
    seconds_a_pass: float | None
    advice: str

    def text(self) -> str:
        """The report for people."""
        width = max(len(task.key) for task in self.tasks)
        lines = [
            f"{self.benchmark} in {self.folder}",
            "",
            f"{'':{width}}" + "".join(f"{name:>20}" for name in _COLUMNS),
        ]
        lines += [f"{task.key:{width}}" + "".join(f"{cell:>20}" for cell in _cells(task)) for task in self.tasks]
        lines += ["", *(_line(finding) for finding in sorted(self.findings, key=lambda finding: finding.level))]
        lines.append(f"Disk: {self.gigabytes_free:.1f} GB free, {self.gigabytes_needed:.2f} GB needed for the rows.")
        lines.append(
            f"Time: this took {_spoken(self.seconds)}; the first start reads the rows again, "
            f"about {_spoken(self.seconds_to_start)}."
        )
        if self.seconds_a_pass is not None:
            lines.append(
                f"      Reading the pictures of one pass over all tasks takes about {_spoken(self.seconds_a_pass)} in "
                "one process (--set workers=N shares them); `same plan` estimates the training itself."
            )
        errors = sum(finding.level == ERROR for finding in self.findings)
        lines.append("Training could start." if self.ready else f"Training could not start: {errors} error(s) above.")
        lines += [] if self.ready else [self.advice]
        return "\n".join(lines)


_COLUMNS = ("train rows", "test rows", "pictures", "missing", "undecodable")


def _cells(task: TaskCounts) -> list[str]:
    rows = [
        f"{task.rows[split]:,}" + ("" if (promised := task.promised[split]) is None else f" of {promised:,}")
        for split in READERS
    ]
    return [*rows, f"{task.pictures:,}", f"{task.missing_pictures:,}", f"{task.undecodable_pictures:,}"]


def _spoken(seconds: float) -> str:
    """Seconds as people say them."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _line(finding: Finding) -> str:
    named = f": {'; '.join(finding.first)}" if finding.first else ""
    more = " …" if finding.count > len(finding.first) > 0 else ""
    count = f"{finding.count:,} " if "(s)" in finding.problem else ""
    return f"{finding.level:8}{finding.task}  {finding.file}: {count}{finding.problem}{named}{more}"


def examine(
    benchmark: Benchmark, root: Path | None = None, allow_missing: bool = False, progress: bool = True
) -> Report:
    """Examine all files of a benchmark; nothing is written.

    Args:
        root: the data root; default `data_root()`.
        allow_missing: rows whose picture is missing may be left out.
        progress: whether to show progress bars.
    """
    began = time.perf_counter()
    folder = benchmark_folder(benchmark, root)
    visit = _Visit(benchmark, folder, allow_missing)
    with tqdm(
        total=len(benchmark.tasks) * len(READERS), desc="Reading rows", unit=" files", disable=not progress
    ) as bar:
        for task in benchmark.tasks:
            for split in READERS:
                visit.read(task, split)
                bar.update()
    read = time.perf_counter() - began
    with tqdm(total=len(visit.pictures), desc="Decoding pictures", unit=" pictures", disable=not progress) as bar:
        visit.decode(bar)
    free, needed = visit.disk()
    a_pass = visit.seconds_a_pass()
    return Report(
        benchmark=benchmark.name,
        folder=str(folder),
        ready=not any(finding.level == ERROR for finding in visit.findings),
        tasks=list(visit.tasks.values()),
        findings=visit.findings,
        gigabytes_free=free,
        gigabytes_needed=needed,
        seconds=time.perf_counter() - began,
        seconds_to_start=read,
        seconds_a_pass=a_pass,
        advice=advice(benchmark),
    )


class _Visit:
    """One examination: what was counted and found so far."""

    def __init__(self, benchmark: Benchmark, folder: Path, allow_missing: bool) -> None:
        self.benchmark, self.folder, self.allow_missing = benchmark, folder, allow_missing
        self.findings: list[Finding] = []
        self.tasks = {
            task.key: TaskCounts(
                task.key, dict.fromkeys(READERS, 0), {"train": task.train_items, "test": task.test_items}
            )
            for task in benchmark.tasks
        }
        self.pictures: dict[str, tuple[str, str]] = {}  # path → key of the task and name of the file that first has it
        self._missing: dict[str, set[str]] = {task.key: set() for task in benchmark.tasks}
        self._training_pictures = 0
        self._shelf = Shelf()

    def _find(self, level: str, task: Task, file: str, problem: str, cases: Sequence[str]) -> None:
        if cases:
            self.findings.append(Finding(level, task.key, file, problem, len(cases), tuple(cases[:SHOWN])))

    def read(self, task: Task, split: str) -> None:
        """Read a file to its end, row by row."""
        file = getattr(task, split)
        references = task.references if split == "test" else ""
        there = [self._is_there(task, key, name) for key, name in ((split, file), ("references", references)) if name]
        if not there[0]:
            return
        rows = list(self._good_rows(task, split, file))
        counts = self.tasks[task.key]
        counts.rows[split] = len(rows)
        promised = counts.promised[split]
        if promised is not None and promised != len(rows):
            doubt = " (unverified)" if f"{split}_items" in task.unverified else ""
            difference = f"the manifest says {promised:,} rows{doubt}, {len(rows):,} are good"
            self._find(WARNING, task, file, "count differs", [difference])
        self._look_for_repeats(task, split, file, rows)
        self._look_for_pictures(task, split, file, rows)
        if split == "train":
            self._look_at_answers(task, file, (answered for row in rows for answered in _answered(row)), WARNING)
        else:
            self._look_at_answers(task, file, list(self._with_references(task, file, rows)) if all(there) else rows)

    def _is_there(self, task: Task, key: str, file: str) -> bool:
        found = (self.folder / file).is_file()
        unsure = " (its name in the manifest is unverified)" if key in task.unverified else ""
        self._find(ERROR, task, file, "file missing", [] if found else [f"not in {self.folder}{unsure}"])
        return found

    def _good_rows(self, task: Task, split: str, file: str) -> Iterator[dict[str, Any]]:
        name_key, _, read = READERS[split]
        bad: list[str] = []
        try:
            for index, content in enumerate(read_objects(self.folder / file, "")):
                try:
                    yield read(RawRow(self.folder / file, index, content, name_key))
                except DataError as error:
                    bad.append(self._said(error, file))
        except DataError as error:
            self._find(ERROR, task, file, "file unreadable", [self._said(error, file)])
        self._find(ERROR, task, file, "bad row(s)", bad)

    def _said(self, error: DataError, file: str) -> str:
        """A complaint without the file's name, which stands beside it, and without advice."""
        text = str(error).removeprefix(f"{self.folder / file}: ").strip()
        for told in MENDING:
            text = text.removesuffix(told)
        return text.rstrip(" .")

    def _look_for_repeats(self, task: Task, split: str, file: str, rows: Iterable[Mapping[str, Any]]) -> None:
        seen: set[str] = set()
        repeated: list[str] = []
        for row in rows:
            name = row[READERS[split][0]]
            if name in seen:
                repeated.append(name)
            seen.add(name)
        level = ERROR if split == "test" else WARNING  # predictions are keyed by it
        self._find(level, task, file, f"repeated {READERS[split][0]}(s)", repeated)

    def _look_for_pictures(self, task: Task, split: str, file: str, rows: Sequence[Mapping[str, Any]]) -> None:
        counts, images = self.tasks[task.key], self.folder / task.images
        missing: dict[str, None] = {}
        without = 0
        for row in rows:
            if row["image"] is None:
                continue
            path = str(images / row["image"])
            if not self._shelf.has(path):
                missing[row["image"]] = None
                without += 1
                continue
            counts.pictures += path not in self.pictures
            self.pictures.setdefault(path, (task.key, file))
            self._training_pictures += split == "train"
        new = missing.keys() - self._missing[task.key]
        self._missing[task.key] |= new
        counts.missing_pictures += len(new)
        if without:
            counts.rows_without_their_picture[split] = without
        level = WARNING if self.allow_missing and without < len(rows) else ERROR
        self._find(level, task, file, f"picture(s) missing in {images}", list(missing))

    def _with_references(self, task: Task, file: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """The test rows with the answers that stand in a file of their own."""
        if not task.references:
            yield from rows
            return
        try:
            answers = read_references(self.folder / task.references)
        except DataError as error:
            self._find(ERROR, task, task.references, "file unreadable", [self._said(error, task.references)])
            yield from rows
            return
        lost = [row["question_id"] for row in rows if row["question_id"] not in answers]
        self._find(ERROR, task, file, f"question(s) that {task.references} does not have", lost)
        yield from ({**row, "answers": answers.get(row["question_id"], row["answers"])} for row in rows)

    def _look_at_answers(self, task: Task, file: str, rows: Iterable[Mapping[str, Any]], level: str = ERROR) -> None:
        """Whether the scorer knows the form of every answer: its own answer must be right."""
        rule = registry.load("same.scorers", task.scorer)
        refused: list[str] = []
        worthless: list[str] = []
        for row in rows:
            try:
                if hasattr(rule, "check"):
                    rule.check(row)
                elif hasattr(rule, "score") and not rule.score(row["answer"], row):
                    worthless.append(f"row {row['question_id']}: {row['answer']!r} does not score as its own answer")
            except DataError as error:
                refused.append(self._said(error, file))
        problem = f"answer(s) in a form that the scorer {task.scorer} does not know"
        self._find(level, task, file, problem, refused)
        self._find(WARNING, task, file, problem, worthless)

    def decode(self, bar: "tqdm[Any]") -> None:
        """Decode every picture that is there."""
        bad: dict[tuple[str, str], list[str]] = {}
        with ThreadPool(min(_THREADS, os.cpu_count() or 1)) as pool:
            for path, fault in pool.imap_unordered(_decoded, self.pictures, chunksize=64):
                bar.update()
                if fault:
                    bad.setdefault(self.pictures[path], []).append(f"{path} ({fault})")
        for (key, file), cases in bad.items():
            self.tasks[key].undecodable_pictures += len(cases)
            self._find(ERROR, self.benchmark.task(key), file, "picture(s) undecodable", sorted(cases))

    def disk(self) -> tuple[float, float]:
        """Gigabytes free and needed."""
        there = next(place for place in (self.folder, *self.folder.absolute().parents) if place.exists())
        files = [self.folder / name for name in instruction_files(self.benchmark)]
        needed = sum(file.stat().st_size for file in files if file.is_file())
        free = shutil.disk_usage(there).free
        if free < needed:
            self._find(ERROR, self.benchmark.tasks[0], str(there), "disk too full", [f"{needed:,} bytes needed"])
        return round(free / _GIGABYTE, 3), round(needed / _GIGABYTE, 3)

    def seconds_a_pass(self) -> float | None:
        """How long it takes to read the picture of every training row, judged by some of them."""
        some = list(self.pictures)[:: max(1, len(self.pictures) // _TIMED)][:_TIMED]
        began, read = time.perf_counter(), 0
        for path in some:
            try:
                read_picture(path)
            except DataError:
                continue
            read += 1
        return (time.perf_counter() - began) / read * self._training_pictures if read else None


def _answered(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every answer of a training row as a test row that asks for it."""
    turns = row["conversations"]
    for question, answer in zip(turns[::2], turns[1::2], strict=True):
        said = answer["value"]
        yield {"question_id": row["id"], "text": question["value"], "answer": said, "answers": [said]}


def _decoded(path: str) -> tuple[str, str]:
    """The path, and what keeps the picture from being decoded ("" where nothing does)."""
    try:
        with Image.open(path) as picture:
            picture.draft("RGB", (1, 1))  # of a JPEG only every eighth pixel is computed; all of the file is read
            picture.load()
    except UnidentifiedImageError:
        return path, _beginning(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return path, str(error).replace(path, "").strip() or type(error).__name__
    return path, ""


def _beginning(path: str) -> str:
    """What a file holds that is no picture: a server's message, more often than not."""
    with Path(path).open("rb") as stream:
        start = stream.read(20)
    return f"no picture, it begins with {start!r}" if start else "an empty file"
