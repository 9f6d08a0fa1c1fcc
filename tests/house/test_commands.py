"""The names other work relies on: commands, options and exit codes."""

import importlib
import sys
from collections.abc import Callable
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
    "same bench": ["--json", "--set"],
    "workbench reproduce": ["--chain", "--runs", "--dry-run"],
    "workbench serve": ["--runs", "--port"],
}
Run = Callable[..., tuple[object, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command line in an empty folder; gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)

    def go(command: str, *arguments: str) -> tuple[object, str, str]:
        program, *subcommand = command.split()
        monkeypatch.setattr(sys, "argv", [program, *subcommand, *arguments])
        with pytest.raises(SystemExit) as ended:
            importlib.import_module(f"{program}.cli").main()
        return ended.value.code, *capsys.readouterr()

    return go


@pytest.mark.parametrize("command", OPTIONS)
def test_command_and_its_options_exist(command: str, run: Run) -> None:
    code, out, _ = run(command, "--help")
    assert not code
    assert [option for option in OPTIONS[command] if option not in out] == []


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("same train --benchmark mini-coin --method samee", ["samee", "same"]),
        ("same train --benchmark mini-con --method same", ["mini-con", "mini-coin"]),
        ("same train --benchmark mini-coin --method same --set ranke=4", ["ranke", "rank"]),
        ("same train --benchmark mini-coin --method same --set rank=four", ["rank", "four"]),
        ("same prepare --benchmark nothing", ["nothing", "mini-coin"]),
        ("same show --run nowhere", ["nowhere"]),
        ("same bench lair", ["lair", "layer"]),
        ("same evaluate --run nowhere", ["nowhere"]),
        ("workbench reproduce --chain quik", ["quik", "quick"]),
    ],
)
def test_bad_input_names_the_thing_and_the_choices_and_leaves_nothing(
    command: str, named: list[str], run: Run, tmp_path: Path
) -> None:
    code, _, err = run(command)
    assert code == 2
    assert [word for word in named if word not in err] == []
    assert list(tmp_path.iterdir()) == []
