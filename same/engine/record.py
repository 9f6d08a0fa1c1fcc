"""Writes the results file of a finished run: settings, scores, budget and cost; no weights, no paths."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from same.engine.audit_table import means, read_audit
from same.engine.grid import Cell
from same.engine.job import FOLDERS
from same.engine.results import SCHEMA, protocol_of, read_result
from same.errors import InputError, SnapshotError
from same.metrics import summarise
from same.runs import RunFolder, differences, fingerprint
from same.sealed import write_json


def result_path(results: Path, cell: Cell) -> Path:
    """The file of a run's results."""
    return results / cell.job.benchmark.name / f"{cell.label}-{cell.request.seed}.json"


def is_finished(cell: Cell) -> bool:
    """Whether a run was trained and evaluated to its end."""
    run = cell.job.folder
    ends = [event["kind"] for event in run.events() if event["kind"] in ("start", "done", "interrupted", "failed")]
    if not ends or ends[-1] != "done":
        return False
    try:
        rows = run.scores()["variants"]
    except SnapshotError:
        return False
    return all(len(row) == len(cell.job.benchmark.tasks) for row in rows.values())


def check_results(results: Path, cells: Iterable[Cell]) -> None:
    """Look whether the files that runs would write are free, or of runs like them.

    Raises:
        InputError: a file holds a result of other tasks, rows or another backbone; names it and what differs.
    """
    for cell in cells:
        path, settings = result_path(results, cell), cell.job.settings
        held = _held(path)
        if held is None:
            continue
        found = differences(_comparable(held["settings"]), _comparable(settings))
        if found:
            raise InputError(
                f"{path} must hold a result under the protocol of this grid; it differs in {'; '.join(found)}. "
                "Give --results another folder, or delete the file."
            )


def _comparable(settings: Mapping[str, Any]) -> dict[str, Any]:
    tasks = settings["tasks"]
    keys = " ".join(task["key"] for task in tasks)
    return {"tasks": f"{keys} ({fingerprint({'tasks': tasks})})", **protocol_of(settings)}


def write_result(results: Path, cell: Cell) -> Path:
    """Write what a finished run found, unless that is what the file holds already."""
    path, content = result_path(results, cell), result(cell)
    if _held(path) != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, content, SCHEMA)
    return path


def _held(path: Path) -> dict[str, Any] | None:
    try:
        return read_result(path) if path.is_file() else None
    except SnapshotError:
        return None


def result(cell: Cell) -> dict[str, Any]:
    """What a finished run found, as plain values."""
    job, run = cell.job, cell.job.folder
    config, scores, events = run.config(), run.scores(), run.events()
    names = ("benchmark", "method", "seed", "fingerprint", "created", "settings")
    environment = {key: value for key, value in config["environment"].items() if key != "request"}
    kept = {key: scores[key] for key in ("tasks", "variants", "zero_shot", "forward", "errors")}
    given = {key: value for key, value in job.request.settings.items() if key not in FOLDERS}
    about = {key: getattr(job.method, key) for key in ("title", "paper", "notes", "budget_reason")}
    return {
        **{name: config[name] for name in names},
        "tag": cell.tag,
        **about,
        "given": given,
        "scores": _rounded(kept),
        "metrics": _rounded(summarise(scores)),
        "budget": _budget(events, config["settings"]),
        "cost": _cost(events),
        "environment": environment,
        "audit": _audit(run),
        "tuning": cell.tuning,
    }


def _rounded(value: Any) -> Any:
    """Numbers as short as they can be compared with: six digits after the point."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _budget(events: list[dict[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Trainable parameters, also those of the expert methods by default, rows drawn and steps over all tasks."""
    counted = next(event for event in reversed(events) if event["kind"] == "budget")
    trained = {"trainable_parameters": counted["trainable"], "experts_parameters": counted["experts"]}
    starts = {event["task"]: event for event in events if event["kind"] == "task_start"}
    steps = sum(event["steps"] for event in starts.values())
    samples = sum(event["rows"] for event in starts.values() if event["steps"]) * settings["train"]["epochs"]
    batch = settings["train"]["batch_size"]
    return {**trained, "samples": samples, "steps": steps, "global_batch": batch}


def _cost(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Time on the clock and peak memory; a run that was stopped and went on has several starts.

    Of a task that was trained before a stop and evaluated after it, the time of training is not recorded.
    """
    seconds = dict.fromkeys(("train_seconds", "evaluate_seconds"), 0.0)
    for event in events:
        if event["kind"] == "task_end":
            for name in seconds:
                seconds[name] += event[name]
    memory = [event["memory_mb"] for event in events if event["kind"] == "step"]
    starts = sum(event["kind"] == "start" for event in events)
    cost: dict[str, Any] = {name: round(value, 1) for name, value in seconds.items()}
    return {**cost, "peak_memory_mb": round(max(memory)) if memory else None, "starts": starts}


def _audit(run: RunFolder) -> list[dict[str, Any]] | None:
    """The drift audit in short: its means over earlier tasks, layers and experts at each task's end."""
    if not any(run.snapshot(stage).has("audit.parquet") for stage in range(run.finished())):
        return None
    rows = read_audit(run)
    found: list[dict[str, Any]] = []
    for stage in sorted({row["after"] for row in rows}):
        found.append({"after": stage, **_rounded(means([row for row in rows if row["after"] == stage]))})
    return found
