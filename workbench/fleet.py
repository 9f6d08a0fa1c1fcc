"""The runs that the steps of a chain train, handed to `same sweep`: workers of a Dask scheduler train them beforehand."""

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from same.errors import InputError, RunFailed
from workbench.plan import Step

NEEDED = {"benchmark", "method", "seed", "train_items"}
"""A notebook that declares all of these and makes something trains one run."""
BAD_INPUT = 2


def train_on(scheduler: str, steps: Iterable[Step], runs: Path, folder: Path) -> None:
    """Let a scheduler's workers train what the steps would train, so that their notebooks find it done.

    Args:
        scheduler: its address.
        folder: the grid is written there.

    Raises:
        InputError: the address or a run is not as it must be.
        RunFailed: a run failed; the others are kept.
    """
    asked = [run for step in steps if (run := requested(step)) is not None]
    if not asked:
        return
    grid = folder / "grid.yaml"
    grid.write_text(yaml.safe_dump({"runs": asked}, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "same.cli", "sweep", "--grid", str(grid), "--runs", str(runs)]
    done = subprocess.run([*command, "--scheduler", scheduler], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        kind = InputError if done.returncode == BAD_INPUT else RunFailed
        raise kind(f"training {len(asked)} runs on {scheduler} failed: {done.stderr.strip()}")


def requested(step: Step) -> dict[str, Any] | None:
    """The run a step trains, in the words of a grid; None where it trains none."""
    given = {**step.defaults, **step.parameters}
    if not NEEDED <= given.keys() or step.makes is None:
        return None
    return {name: value for name, value in given.items() if name != "runs" and (value not in ("", {}) or name == "seed")}
