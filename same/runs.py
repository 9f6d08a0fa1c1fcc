"""The run folder: the one bridge between the library that writes it and the workbench that reads it.

    runs/<benchmark>/<method>/<seed>-<fingerprint>/
      config.json  events.jsonl  scores.json  predictions/<stage>/  snapshots/task_00/ …  state/  reroute/<id>.json
      tokens/<id>/

Folders of results are complete or absent: written beside, flushed to disk, renamed. Every file of them, config.json and
scores.json are compared with the sha256 that was recorded when they were written before anything is read from them;
events.jsonl only ever grows and has none.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from same import __version__
from same.errors import InputError, SnapshotError
from same.sealed import SealedFolder, canonical, read_json, write_json

if TYPE_CHECKING:
    import pandas

SCORES_SCHEMA = 2
"""Of scores.json and the predictions: 2 has four readings and the classes of errors."""

ZERO_SHOT = "zero_shot"


def stage_name(index: int) -> str:
    """Folder name of a stage: task indices are 0-based in files."""
    return f"task_{index:02d}"


def fingerprint(settings: Mapping[str, Any]) -> str:
    """First 12 hex digits of the sha256 of the settings that determine a result."""
    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:12]


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Say which settings differ, one text each, nested names joined by dots."""
    found = []
    for key in sorted({*old, *new}):
        name, before, after = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{name}.")
        elif canonical(before) != canonical(after):  # a tuple is read back as a list
            found.append(f"{name}: {before!r} → {after!r}")
    return found


def write_table(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write equal-length columns as a Parquet file."""
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({name: list(values) for name, values in columns.items()}), path)


class RunFolder:
    """Paths, reading and writing of one run."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @classmethod
    def at(cls, runs: str | Path, benchmark: str, method: str, seed: int, settings: Mapping[str, Any]) -> "RunFolder":
        """Name the folder of a run without touching the disk."""
        return cls(Path(runs) / benchmark / method / f"{seed}-{fingerprint(settings)}")

    @classmethod
    def create(
        cls,
        runs: str | Path,
        benchmark: str,
        method: str,
        seed: int,
        settings: Mapping[str, Any],
        environment: Mapping[str, Any] | None = None,
    ) -> "RunFolder":
        """Make the folder of a run, or take up the one that is there.

        Args:
            settings: everything that determines the result; its hash is part of the folder's name.
            environment: what is worth knowing besides (packages, hardware).

        Raises:
            InputError: a folder of that name holds other settings, and which differ; or it cannot be made.
        """
        run = cls.at(runs, benchmark, method, seed, settings)
        if (run.path / "config.json").exists():
            changed = differences(run.config()["settings"], settings)
            if changed:
                raise InputError(
                    f"{run.path} was started with other settings ({'; '.join(changed)}). Use another --runs folder."
                )
            return run
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"runs must be a folder that can be written to; got {runs} ({error}). Give another."
            ) from None
        about = {"benchmark": benchmark, "method": method, "seed": seed, "fingerprint": fingerprint(settings)}
        about["created"] = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(run.path / "config.json", {**about, "settings": settings, "environment": environment or {}})
        return run

    def config(self) -> dict[str, Any]:
        """Read config.json: benchmark, method, seed, fingerprint, settings, environment."""
        remedy = "Give a folder that `same train` printed, or delete this one and train again."
        content = read_json(self.path / "config.json", remedy)
        if fingerprint(content["settings"]) != content["fingerprint"]:
            raise SnapshotError(f"{self.path / 'config.json'} does not match its fingerprint. {remedy}")
        return content

    # -- events -------------------------------------------------------------------------------------------------------

    @property
    def events_path(self) -> Path:
        """The append-only record of the run."""
        return self.path / "events.jsonl"

    def append_event(self, kind: str, **data: Any) -> None:
        """Add one line to events.jsonl; a line that a crash cut short is dropped first."""
        line = canonical({"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "kind": kind, **data})
        with self.events_path.open("ab+") as stream:
            size = stream.seek(0, os.SEEK_END)
            whole = _whole_lines(size, self.events_path)
            if whole < size:  # else nothing is cut: another process may have added a line since
                stream.truncate(whole)
            stream.write(line.encode() + b"\n")

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Read the finished lines of events.jsonl, all or those of one kind, in order."""
        return [event for event in self.read_events()[0] if kind is None or event["kind"] == kind]

    def read_events(self, start: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Read the finished lines from byte ``start`` on, and say where the next reading must start."""
        if not self.events_path.exists():
            return [], start
        with self.events_path.open("rb") as stream:
            stream.seek(start)
            *lines, unfinished = stream.read().split(b"\n")
            end = stream.tell() - len(unfinished)
        events = []
        for number, line in enumerate(lines, 1):
            try:
                event = json.loads(line)
                event["kind"]
            except (ValueError, KeyError, TypeError):
                place = f"line {number} after byte {start}" if start else f"line {number}"
                raise SnapshotError(
                    f"{self.events_path}, {place} is damaged. Delete that line; nothing else depends on it."
                ) from None
            events.append(event)
        return events, end

    # -- scores and predictions ---------------------------------------------------------------------------------------

    def write_scores(
        self,
        tasks: Sequence[str],
        variants: Mapping[str, Sequence[Sequence[float | None]]],
        zero_shot: Mapping[str, Sequence[float | None] | None] | None = None,
        forward: Mapping[str, Sequence[float | None] | None] | None = None,
        errors: Sequence[Sequence[Mapping[str, int] | None]] = (),
    ) -> None:
        """Replace scores.json.

        Args:
            tasks: keys of all tasks of the benchmark, in order.
            variants: per reading the rows R[t] of the finished stages, null above the diagonal.
            zero_shot: per reading the score of each task with the untouched base model.
            forward: per reading R[i−1][i], the score of each task just before it was trained.
            errors: rows as those of R: how many answers are of each class of `same.metrics.ERRORS`.
        """
        nothing: dict[str, Any] = dict.fromkeys(variants)
        content: dict[str, Any] = {"tasks": list(tasks), "variants": variants, "errors": [list(row) for row in errors]}
        content |= {"zero_shot": {**nothing, **(zero_shot or {})}, "forward": {**nothing, **(forward or {})}}
        write_json(self.path / "scores.json", content, SCORES_SCHEMA)

    def scores(self) -> dict[str, Any]:
        """Read scores.json: tasks, variants, zero_shot, forward, errors."""
        remedy = "Train until the first task is finished; one that is damaged or old `same evaluate` writes anew."
        return read_json(self.path / "scores.json", remedy, SCORES_SCHEMA)

    def predictions(self, stage: int | str) -> SealedFolder:
        """The answers after a stage (task index, or ``"zero_shot"``): one table a task, keyed by question_id."""
        name = stage if isinstance(stage, str) else stage_name(stage)
        remedy = "Delete that folder and run `same evaluate` again."
        return SealedFolder(self.path / "predictions" / name, remedy, SCORES_SCHEMA)

    def read_predictions(self, stage: int | str, task: str) -> "pandas.DataFrame":
        """Read question_id, prompt, text, answer, the scores and the error class of one task after a stage."""
        return self.predictions(stage).table(task)

    # -- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot(self, index: int) -> SealedFolder:
        """The model and its statistics after task ``index``."""
        remedy = "Delete that folder and those of later tasks, and run the same command again to train them anew."
        return SealedFolder(self.path / "snapshots" / stage_name(index), remedy)

    def trained(self, index: int) -> SealedFolder:
        """A trained task that is not evaluated yet; becomes a snapshot and goes."""
        remedy = "Delete that folder and run the same command again to train the task anew."
        return SealedFolder(self.path / "state" / stage_name(index), remedy)

    @property
    def lock(self) -> Path:
        """The file that whoever trains in the folder holds."""
        return self.path / "state" / "lock"

    def sweep(self) -> None:
        """Remove what a killed process left half-written beside folders and files; only who holds the lock may."""
        for left in self.path.glob(".*.json.*"):
            left.unlink(missing_ok=True)
        for name in ("predictions", "snapshots", "state"):
            for left in (self.path / name).glob(".*-*"):
                shutil.rmtree(left, ignore_errors=True)

    def write_snapshot(self, index: int, fill: Callable[[Path], None], **about: Any) -> None:
        """Write the snapshot of task ``index``, complete or absent."""
        self.snapshot(index).write(fill, task_index=index, **about)

    def finished(self) -> int:
        """Number of tasks, from the first on, that have a snapshot."""
        count = 0
        while self.snapshot(count).exists:
            count += 1
        return count

    # -- re-routing ---------------------------------------------------------------------------------------------------

    def rerouting(self, key: str) -> Path:
        """The result of a re-routing, by the fingerprint of what was asked; absent until it is finished."""
        return self.path / "reroute" / f"{key}.json"

    def rerouted_answers(self, key: str) -> SealedFolder:
        """The answers of a re-routing: the table ``answers``, with the columns of a task's predictions."""
        remedy = "Delete that folder and the file of the same name, and run the same `same reroute` again."
        return SealedFolder(self.path / "reroute" / key, remedy)

    def write_rerouting(self, key: str, result: Mapping[str, Any], answers: Mapping[str, Sequence[Any]]) -> None:
        """Keep a re-routing: its answers first, so that a result without them never stands."""
        self.rerouted_answers(key).write(lambda path: write_table(path / "answers.parquet", answers), rerouting=key)
        write_json(self.rerouting(key), result)

    def read_rerouting(self, key: str) -> dict[str, Any]:
        """Read a result of `same reroute`."""
        return read_json(self.rerouting(key), "Delete that file and run the same `same reroute` again.")

    def reroutings(self) -> list[str]:
        """Fingerprints of the finished re-routings, the oldest first."""
        found = (self.path / "reroute").glob("[!.]*.json")
        return [path.stem for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))]

    # -- routing of tokens --------------------------------------------------------------------------------------------

    def routed_tokens(self, after: int, task: str, question_id: str) -> SealedFolder:
        """The table ``tokens``, ω of a test question's tokens after a stage; absent until somebody has asked for it.

        The folder is named by the hash of all that determines it, what stands in the snapshot among it.
        """
        given = {"version": __version__, "after": after, "task": task, "question_id": question_id}
        key = fingerprint({**given, "snapshot": self.snapshot(after).manifest()["files"]})
        return SealedFolder(self.path / "tokens" / key, "Delete that folder and run the same `same route` again.")


def _whole_lines(size: int, path: Path) -> int:
    if size == 0:
        return 0
    with path.open("rb") as stream:
        stream.seek(size - 1)
        if stream.read(1) == b"\n":
            return size
        stream.seek(0)
        return stream.read().rfind(b"\n") + 1


def runs_in(folder: str | Path) -> list[RunFolder]:
    """List the runs below a ``--runs`` folder, sorted by path; damaged ones too."""
    return [RunFolder(config.parent) for config in sorted(Path(folder).glob("*/*/*/config.json"))]
