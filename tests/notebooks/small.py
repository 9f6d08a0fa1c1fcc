"""The notebooks with small parameters, and the runs they read."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill.iorw
import papermill.parameterize

from tests.workbench.variants import write_variants

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ITEMS = {"train_items": 16, "test_items": 2}
SETTINGS = {"batch_size": 4, "freeze_every": 2, "freeze_warmup": 0.3, "log_every": 1}  # scores experts in mid-task
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PLOTLY_RENDERER": "plotly_mimetype", "HF_HUB_OFFLINE": "1"}
ENVIRONMENT["PYTHONWARNINGS"] = "ignore::FutureWarning"  # of libraries, about each other
REROUTED = {"items": 2, "retrain_steps": 1, "random_seeds": [0], "pairs": False}
MEASURED = {"bench_steps": 6, "bench_rows": 4, "bench_length": 32}
UNCOMPARED = "nbval-ignore-output"


def parameters(runs: Path) -> dict[str, dict[str, Any]]:
    """What each notebook is given; one that is not named here keeps its defaults."""
    return {
        "10_train": {"method": "same", "seed": 1, "runs": str(runs), **ITEMS},
        "20_router_drift": {"methods": ["same"], "runs": str(runs)},
        "30_rerouting": {"methods": ["same"], "runs": str(runs), **REROUTED},
        "40_spectra": {"runs": str(runs)},
        "50_activation": {"runs": str(runs), **MEASURED},
        "60_tables": {"methods": ["same"], "runs": str(runs)},
        "70_ablation": {"runs": str(variants_beside(runs))},
        "80_format_drift": {"methods": ["same"], "runs": str(runs)},
        "90_robustness": {"methods": ["moelora", "same"], "runs": str(variants_beside(runs))},
        "95_beyond": {"method": "same", "runs": str(runs), "items": 8, "window": 4, "questions": 2},
        "99_explore": {"runs": str(runs)},
    }


def names() -> list[str]:
    """The notebooks, in order."""
    return sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))


def variants_beside(runs: Path) -> Path:
    """Where the runs that differ in a setting are, which 70 and 90 read."""
    return runs.parent / "variants"


def prepare(runs: Path) -> Path:
    """Make the runs that notebooks read: one trained through the command line, and variants with made-up scores."""
    write_variants(variants_beside(runs))
    return train(runs)


def train(runs: Path) -> Path:
    """Train one run through the command line."""
    options = [word for name, value in ITEMS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    options += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    chosen = ["--benchmark", "mini-coin", "--method", "same", "--runs", str(runs)]
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
