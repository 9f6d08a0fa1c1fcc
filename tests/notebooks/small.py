"""The notebooks with small parameters, and the run they read."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill.iorw
import papermill.parameterize

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ITEMS = {"train_items": 16, "test_items": 2}
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PLOTLY_RENDERER": "plotly_mimetype", "HF_HUB_OFFLINE": "1"}
ENVIRONMENT["PYTHONWARNINGS"] = "ignore::FutureWarning"  # of libraries, about each other
UNCOMPARED = "nbval-ignore-output"


def parameters(runs: Path) -> dict[str, dict[str, Any]]:
    """What each notebook is given; one that is not named here keeps its defaults."""
    return {
        "10_train": {"method": "same", "runs": str(runs), **ITEMS},
        "20_router_drift": {"methods": ["moelora"], "runs": str(runs)},
    }


def names() -> list[str]:
    """The notebooks, in order."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def train(runs: Path) -> Path:
    """Train the run that `20_router_drift` reads, through the command line."""
    options = [word for name, value in ITEMS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    chosen = ["--benchmark", "mini-coin", "--method", "moelora", "--runs", str(runs)]
    command = [sys.executable, "-m", "same.cli", "train", *chosen, *options]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=True)
    return Path(done.stdout.split()[-1])


def small_copy(name: str, runs: Path, folder: Path) -> Path:
    """A copy whose parameters are small; its committed outputs stay for comparison."""
    book = papermill.iorw.load_notebook_node(str(NOTEBOOKS / f"{name}.ipynb"))
    given = parameters(runs).get(name, {})
    copy = papermill.parameterize.parameterize_notebook(book, given) if given else book
    path = folder / f"{name}.ipynb"
    nbformat.write(copy, path)
    return path
