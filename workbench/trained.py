"""Which run a step of a chain trains: steps of one matrix train runs side by side that differ in what was asked."""

from pathlib import Path

from same.errors import SnapshotError
from same.runs import RunFolder
from workbench.plan import Step

PLACE = ("benchmark", "method", "seed")
ASKED = ("backbone", "processes", "train_items", "test_items")
NEVER_ASKED = ("tasks", "validation_items")
"""What a run may have been made with, but by no step."""


def trains(step: Step, run: RunFolder) -> bool:
    """Whether a run is the one that a step trains, as far as its request says."""
    given = {**step.defaults, **step.parameters}
    names = [str(given.get(name, "?*")) for name in PLACE]
    if "method" not in given or not run.path.match("{}/{}/{}-*".format(*names)):
        return False
    try:
        request = run.config()["environment"].get("request", {})
    except SnapshotError:  # it is being made
        return False
    pairs = [(request[name], given[name]) for name in ASKED if name in request and name in given]
    if any((found or 0) != (wanted or 0) for found, wanted in pairs) or any(map(request.get, NEVER_ASKED)):
        return False
    settings = given.get("settings") or {}
    added = {"checkpoint", *(["learning_rate"] if given.get("tuned") else [])} - settings.keys()
    return {name: value for name, value in request.get("settings", {}).items() if name not in added} == settings


def run_of(step: Step, runs: Path) -> RunFolder | None:
    """The run that a step has trained; none if it trains none, or what it makes of it is gone."""
    if not _is_training(step):
        return None
    files = runs.glob(step.makes or "")
    folders = [RunFolder(runs.joinpath(*file.relative_to(runs).parts[: len(PLACE)])) for file in files]
    return max((run for run in folders if trains(step, run)), key=lambda run: run.path, default=None)


def made(step: Step, runs: Path) -> bool:
    """Whether what a step makes is there: of a step that trains a run, in its own and not in a sibling's."""
    if _is_training(step):
        return run_of(step, runs) is not None
    return step.makes is None or any(runs.glob(step.makes))


def _is_training(step: Step) -> bool:
    return step.makes is not None and set(PLACE) <= {**step.defaults, **step.parameters}.keys()
