"""The names other work relies on: commands, options and exit codes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPTIONS = {
    "same prepare": ["--benchmark", "--sheet"],
    "same methods": ["--json"],
    "same pretrain": [],
    "same train": [
        *("--benchmark", "--method", "--seed", "--processes", "--runs", "--train-items", "--test-items", "--set"),
    ],
    "same evaluate": ["--run"],
    "same show": ["--run", "--json"],
    "workbench reproduce": ["--chain", "--runs", "--dry-run"],
    "workbench serve": ["--runs", "--port"],
}


def run(command: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    program, *subcommand = command.split()
    words = [sys.executable, "-c", f"from {program}.cli import main; main()", *subcommand, *arguments]
    plain = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=plain, cwd=cwd, timeout=120)


@pytest.mark.parametrize("command", OPTIONS)
def test_command_and_its_options_exist(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0, done.stderr
    assert [option for option in OPTIONS[command] if option not in done.stdout] == []


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        ("same train", ["--benchmark", "mini-coin", "--method", "samee"], ["samee", "same"]),
        ("same train", ["--benchmark", "mini-con", "--method", "same"], ["mini-con", "mini-coin"]),
        ("same train", ["--benchmark", "mini-coin", "--method", "same", "--set", "ranke=4"], ["ranke", "rank"]),
        ("same prepare", ["--benchmark", "nothing"], ["nothing", "mini-coin"]),
        ("same show", ["--run", "nowhere"], ["nowhere"]),
        ("workbench reproduce", ["--chain", "quik"], ["quik", "quick"]),
    ],
)
def test_bad_input_names_the_thing_and_the_choices_and_leaves_nothing(
    command: str, arguments: list[str], named: list[str], tmp_path: Path
) -> None:
    done = run(command, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert [word for word in named if word not in done.stderr] == []
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
