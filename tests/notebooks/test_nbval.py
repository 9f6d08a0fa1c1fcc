"""Every notebook runs on a small run, and its small text outputs are those committed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.notebooks.small import ENVIRONMENT, names, prepare, small_copy

CELL_TIMEOUT = "600"  # seconds; a loaded machine needs minutes to start a training


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebooks") / "runs"
    prepare(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_notebook_runs_and_prints_what_it_did(name: str, runs: Path, tmp_path: Path) -> None:
    copy = small_copy(name, runs, tmp_path)
    compare = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(Path(__file__).parent / "sanitise.cfg")]
    quiet = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--nbval-cell-timeout", CELL_TIMEOUT]
    command = [
        sys.executable,
        "-m",
        "pytest",
        *compare,
        *quiet,
        "-c",
        os.devnull,
        "--rootdir",
        str(tmp_path),
        str(copy),
    ]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
