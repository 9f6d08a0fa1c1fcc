"""Choosing a setting for each method on validation rows, from the same values for all, and keeping the choice."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from same import registry
from same.engine.grid import Cell, Grid, Tune
from same.engine.job import environment
from same.engine.record import is_finished
from same.engine.results import REMEDY, RESULTS, SCHEMA, TUNING
from same.errors import InputError, RunFailed
from same.methods._base import Method
from same.metrics import summarise
from same.runs import differences
from same.sealed import read_json, write_json

_FIRST = "Run `same sweep` on the grid that tunes first."
Candidates = Mapping[str, Mapping[float, Cell]]
"""The runs that a method's choice goes by, by method and value."""


def candidates(grid: Grid) -> dict[str, dict[float, Cell]]:
    """The runs to choose by, for each method of the grid that trains; of its settings the plain run's."""
    found: dict[str, dict[float, Cell]] = {}
    tune = grid.tune
    if tune is None:
        return found
    for cell in sorted(grid.cells, key=lambda cell: cell.tag != ""):
        if cell.request.method not in found and cell.job.method.trains:
            found[cell.request.method] = {value: _candidate(cell, tune, value) for value in tune.values}
    return found


def _candidate(cell: Cell, tune: Tune, value: float) -> Cell:
    request = dataclasses.replace(
        cell.request,
        benchmark=tune.benchmark,
        seed=tune.seed,
        train_items=tune.train_items,
        test_items=None,
        tasks=tune.tasks,
        validation_items=tune.validation_items,
        settings={**cell.request.settings, tune.setting: value},
    )
    return Cell(request, f"{tune.setting}={value:g}")


def tuning_path(results: Path, benchmark: str) -> Path:
    """Where the choices on a benchmark are kept."""
    return results / Path(benchmark).stem / TUNING


def read_choices(path: Path) -> dict[str, Any]:
    """The methods' choices, as far as they were made."""
    return dict(read_json(path, REMEDY, SCHEMA)["methods"]) if path.is_file() else {}


def open_questions(found: Candidates, tune: Tune | None, path: Path) -> dict[str, Mapping[float, Cell]]:
    """The methods whose choice was not made by exactly these runs, and by what the grid goes by."""
    known = read_choices(path)
    if tune is None or (known and _different(tune, path)):
        return dict(found)
    return {
        method: cells
        for method, cells in found.items()
        if known.get(method, {}).get("fingerprints") != list(_fingerprints(cells))
    }


def check_choices(found: Candidates, tune: Tune, path: Path) -> None:
    """Look whether new choices can stand beside those of methods that are not chosen for now.

    Raises:
        InputError: those were made from other values or rows; names the file and what differs.
    """
    others = sorted(read_choices(path).keys() - found.keys())
    if not others:
        return
    different = _different(tune, path)
    if different:
        raise InputError(
            f"{path} must hold choices made in one way; that of {', '.join(others)} differs in {'; '.join(different)}. "
            "Give --results another folder, or choose for all methods again."
        )


def _different(tune: Tune, path: Path) -> list[str]:
    about, held = _about(tune), read_json(path, REMEDY, SCHEMA)
    return differences({name: held.get(name) for name in about}, about)


def _about(tune: Tune) -> dict[str, Any]:
    """How choices are made, without a path of this machine."""
    return {**dataclasses.asdict(tune), "benchmark": Path(tune.benchmark).stem, "values": list(tune.values)}


def _fingerprints(cells: Mapping[float, Cell]) -> Iterator[str]:
    for cell in cells.values():
        yield cell.job.folder.path.name.partition("-")[2]


def decide(found: Candidates, tune: Tune, path: Path) -> None:
    """Choose each method's value by its finished runs, and keep the choice beside those made before.

    A run that diverged has no score. A method with a run that ended otherwise is left open, to be asked for again; one
    whose runs all diverged has no choice.
    """
    choices = read_choices(path)
    for method, cells in found.items():
        choices.pop(method, None)  # made by other runs
        if not all(is_finished(cell) or _diverged(cell) for cell in cells.values()):
            continue
        scores = {value: _score(cell, tune) for value, cell in cells.items()}
        best = choose({value: score for value, score in scores.items() if score is not None})
        if best is not None:
            kept = {f"{value:g}": score for value, score in scores.items()}
            choices[method] = {"chosen": best, "scores": kept, "fingerprints": list(_fingerprints(cells))}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {**_about(tune), "methods": dict(sorted(choices.items()))}
    write_json(path, {**content, "environment": environment()}, SCHEMA)


def _diverged(cell: Cell) -> bool:
    """Whether a run ended because its loss did not stay finite, as it would again."""
    ends = [event for event in cell.job.folder.events() if event["kind"] in ("start", "failed")]
    return bool(ends) and ends[-1].get("error", "").startswith(f"{RunFailed.__name__}:")


def choose(scores: Mapping[float, float]) -> float | None:
    """The value of the highest score, of equals the smallest; None where there is no score."""
    return min(scores, key=lambda value: (-scores[value], value), default=None)


def _score(cell: Cell, tune: Tune) -> float | None:
    return summarise(cell.job.folder.scores())[tune.metric][tune.reading] if is_finished(cell) else None


def tuned(grid: Grid, results: Path) -> list[Cell]:
    """The grid's runs with the values chosen; what a run gives itself stays, and methods that do not train have none.

    Runs of a method without a choice are left out.

    Raises:
        InputError: nothing was chosen on that benchmark yet.
    """
    return list(_tuned(grid.cells, _read(results, grid.tuned))) if grid.tuned else list(grid.cells)


def chosen(method: str, benchmark: str, results: Path = RESULTS) -> dict[str, Any]:
    """What was chosen for a method on a benchmark, as settings; nothing for one that does not train.

    Raises:
        InputError: nothing was chosen for it.
    """
    content = _read(results, benchmark)
    if not registry.load_class("same.methods", method, Method).trains:
        return {}
    if method not in content["methods"]:
        known = ", ".join(content["methods"])
        raise InputError(f"A setting must be chosen for {method} on {benchmark}; there is one for {known}. {_FIRST}")
    return {content["setting"]: content["methods"][method]["chosen"]}


def _read(results: Path, benchmark: str) -> dict[str, Any]:
    """The choices among these results, or those that come with the project."""
    own = tuning_path(results, benchmark)
    return read_json(own if own.is_file() else tuning_path(RESULTS, benchmark), _FIRST, SCHEMA)


def _tuned(cells: Sequence[Cell], content: Mapping[str, Any]) -> Iterator[Cell]:
    for cell in cells:
        method = cell.request.method
        if content["setting"] in cell.request.settings or not cell.job.method.trains:
            yield cell
        elif method in content["methods"]:
            yield _with(cell, content, content["methods"][method])


def _with(cell: Cell, content: Mapping[str, Any], choice: Mapping[str, Any]) -> Cell:
    settings = {**cell.request.settings, content["setting"]: choice["chosen"]}
    names = ("setting", "benchmark", "tasks", "validation_items", "train_items", "metric", "reading")
    about = {name: content[name] for name in names} | {"chosen": choice["chosen"], "scores": choice["scores"]}
    return dataclasses.replace(cell, request=dataclasses.replace(cell.request, settings=settings), tuning=about)
