"""The runs that a chain trains, handed to `same sweep`: workers of a Dask scheduler train them beforehand."""

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from same.errors import InputError, RunFailed
from workbench.plan import Step

OF_A_RUN = ("benchmark", "method", "seed", "settings")
OF_A_GRID = ("backbone", "checkpoint", "processes", "strategy", "train_items", "test_items", "data_root", "tuned")
BAD_INPUT = 2


def train_on(scheduler: str, steps: Iterable[Step], runs: Path, folder: Path) -> None:
    """Let a scheduler's workers train what the steps would train, so that their notebooks find it done.

    Args:
        scheduler: its address.
        folder: the grids and their results files are written there.

    Raises:
        InputError: the address or a run is not as it must be.
        RunFailed: a run failed; the others are kept.
    """
    for number, grid in enumerate(grids(steps)):
        file = folder / f"grid-{number}.yaml"
        file.write_text(yaml.safe_dump(grid, sort_keys=False, allow_unicode=True), encoding="utf-8")
        options = ["--grid", file, "--runs", runs, "--results", folder / "results", "--scheduler", scheduler]
        command = [sys.executable, "-m", "same.cli", "sweep", *map(str, options)]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        said = done.stderr.strip()
        if done.returncode == BAD_INPUT:
            raise InputError(said.splitlines()[-1].removeprefix("error: ") if said else f"{file} was refused.")
        if done.returncode:
            raise RunFailed(f"training the runs of {file} on {scheduler} failed: {said}")


def grids(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """What the steps train, as few grids as can hold it: the runs of one agree in all but method, seed and settings."""
    found: dict[str, dict[str, Any]] = {}
    for step in steps:
        given = {**step.defaults, **step.parameters}
        if step.makes is None or not set(OF_A_RUN) <= given.keys():
            continue
        shared = {name: given[name] for name in OF_A_GRID if given.get(name) not in (None, "", 0)}
        grid = found.setdefault(json.dumps(shared, sort_keys=True), {**shared, "benchmarks": [], "runs": []})
        if given["benchmark"] not in grid["benchmarks"]:
            grid["benchmarks"].append(given["benchmark"])
        grid["runs"].append(_run(given, step.name))
    return list(found.values())


def _run(given: Mapping[str, Any], name: str) -> dict[str, Any]:
    about = {"method": given["method"], "tag": "".join(letter if letter.isalnum() else "_" for letter in name)}
    run = {**about, "benchmarks": [given["benchmark"]], "seeds": [given["seed"]]}
    return {**run, "settings": dict(given["settings"])} if given["settings"] else run
