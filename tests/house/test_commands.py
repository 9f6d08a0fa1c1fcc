"""The names other work relies on: commands, options and exit codes."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from same.runs import RunFolder, write_table

OPTIONS = {
    "same prepare": ["--benchmark", "--sheet", "--data-root"],
    "same doctor": ["--benchmark", "--data-root", "--allow-missing", "--json"],
    "same methods": ["--json"],
    "same pretrain": [],
    "same train": [
        *("--benchmark", "--method", "--seed", "--processes", "--runs", "--train-items", "--test-items", "--set"),
        *("--data-root", "--allow-missing", "--tasks", "--validation-items"),
    ],
    "same sweep": ["--grid", "--scheduler", "--workers", "--runs", "--results", "--dry-run"],
    "same tables": ["--results", "--reading", "--format", "--json", "--write"],
    "same evaluate": ["--run"],
    "same audit": ["--run", "--json"],
    "same reroute": [
        *("--run", "--task", "--router", "--experts", "--retrain-steps", "--learning-rate", "--items", "--seed"),
        *("--layer", "--weights", "--json"),
    ],
    "same route": ["--run", "--after", "--task", "--question", "--json"],
    "same show": ["--run", "--json"],
    "same score": ["--benchmark", "--task", "--predictions", "--data-root", "--json"],
    "same export": ["--run", "--after", "--task", "--out"],
    "same bench": ["--json", "--set"],
    "workbench reproduce": ["--chain", "--runs", "--dry-run"],
    "workbench serve": [
        *("--runs", "--port", "--address", "--auth", "--oauth", "--scheduler", "--prefix", "--allow-websocket-origin"),
        *("--jobs-per-user", "--job-minutes", "--job-gigabytes"),
    ],
    "workbench user add": ["--role", "--auth", "--without-password"],
    "workbench bench": ["--json", "--minutes", "--sessions"],
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
        ("same sweep --grid nowhere.yaml", ["nowhere.yaml"]),
        ("same tables --results nowhere", ["nowhere", "results files"]),
        ("same tables --results . --reading strickt", ["strickt", "strict"]),
        ("same show --run nowhere", ["nowhere"]),
        ("same bench lair", ["lair", "layer"]),
        ("same score --benchmark mini-coin --task gqaa --predictions x.jsonl", ["gqaa", "gqa"]),
        ("same score --benchmark mini-coin --task gqa --predictions x.jsonl", ["x.jsonl"]),
        ("same export --run nowhere --after 0 --task gqa --out x.jsonl", ["nowhere"]),
        ("same evaluate --run nowhere", ["nowhere"]),
        ("same audit --run nowhere", ["nowhere"]),
        ("same reroute --run nowhere --task gqa --router 0 --experts 0", ["nowhere"]),
        ("same reroute --run . --task gqa --router 0 --experts 0 --weights a,b", ["--weights", "a,b"]),
        ("same route --run nowhere --after 0 --task gqa --question 1", ["nowhere"]),
        ("workbench reproduce --chain quik", ["quik", "quick"]),
        ("workbench serve --runs . --prefix /a?b", ["--prefix", "/a?b"]),
        ("workbench serve --runs . --scheduler lab:1", ["--scheduler", "lab:1"]),
        ("workbench serve --runs . --auth none.json", ["none.json", "workbench user add"]),
        ("workbench serve --runs . --oauth github", ["--oauth", "--auth"]),
        ("workbench serve --runs . --allow-websocket-origin *", ["--allow-websocket-origin", "'*'"]),
        ("workbench serve --runs . --address no.such.host.example", ["no.such.host.example", "--address"]),
        ("workbench serve --runs . --job-minutes 0", ["minutes", "positive"]),
        ("workbench user add x --role root --auth u.json", ["root", "viewer, runner"]),
        ("workbench bench --minutes 0", ["--minutes"]),
    ],
)
def test_bad_input_names_the_thing_and_the_choices_and_leaves_nothing(
    command: str, named: list[str], run: Run, tmp_path: Path
) -> None:
    code, _, err = run(command)
    assert code == 2
    assert [word for word in named if word not in err] == []
    assert list(tmp_path.iterdir()) == []


AUDIT_ROWS = {
    "probe_task": ["one", "one", "one"],
    "probe_index": [0, 0, 0],
    "layer": ["mlp", "mlp", "mlp"],
    "part": ["router", "expert", "expert"],
    "expert": [None, 0, 1],
    "drift": [0.25, 0.5, None],
    "drift_parallel": [0.125, 0.5, None],
    **{name: [0.0625, None, None] for name in ("js_divergence", "overlap", "flips", "entropy_now", "balance_now")},
    **{name: [0.0625, None, None] for name in ("angle_mean", "representation_drift")},
}


@pytest.fixture
def audited(tmp_path: Path) -> RunFolder:
    """A run of two tasks whose second snapshot holds an audit of the first."""
    settings = {"method": {"name": "moelora"}, "train": {"audit": True}}
    folder = RunFolder.create(tmp_path / "runs", "b", "moelora", 0, settings)
    folder.write_snapshot(0, lambda path: write_table(path / "routing.parquet", {"layer": ["mlp"]}), task="one")
    folder.write_snapshot(1, lambda path: write_table(path / "audit.parquet", AUDIT_ROWS), task="two")
    folder.append_event("audit", task=1, seconds=2.5)
    folder.append_event("task_end", task=1, train_seconds=40.0, evaluate_seconds=12.5)
    return folder


def test_an_audit_is_printed_as_rows_and_means(audited: RunFolder, run: Run) -> None:
    code, out, _ = run("same audit", "--run", str(audited.path), "--json")
    assert not code
    found = json.loads(out)
    assert found["method"] == "moelora"
    assert [(row["after"], row["after_task"], row["probe_task"]) for row in found["rows"]] == [(1, "two", "one")] * 3
    assert [row["drift"] for row in found["rows"]] == [0.25, 0.5, None]
    assert len(found["means"]) == 1
    assert found["means"][0]["router_drift"] == 0.25
    assert found["means"][0]["expert_drift"] == 0.5
    assert found["cost"] == {"seconds": 2.5, "share": 0.05}


def test_an_audit_is_printed_as_a_table_a_finished_task(audited: RunFolder, run: Run) -> None:
    code, out, _ = run("same audit", "--run", str(audited.path))
    assert not code
    assert "after Task 2 (two)" in out
    assert "took 2.5 s, 5.0% of" in out
    assert [line.split()[:3] for line in out.splitlines() if line.startswith("one")] == [["one", "0.2500", "0.1250"]]


@pytest.mark.parametrize(
    ("method", "names", "said"),
    [
        ("lora", ["routing.parquet"], ["method lora", "audit=True", "routes experts"]),
        ("moelora", ["probe.safetensors"], ["two finished tasks", "got 1"]),
    ],
)
def test_a_run_without_an_audit_says_so(
    method: str, names: list[str], said: list[str], run: Run, tmp_path: Path
) -> None:
    settings = {"method": {"name": method}, "train": {"audit": True}}
    folder = RunFolder.create(tmp_path / "runs", "b", method, 0, settings)
    folder.write_snapshot(0, lambda path: [(path / name).touch() for name in names] and None, task="one")
    code, out, err = run("same audit", "--run", str(folder.path))
    assert code == 2
    assert not out
    assert [word for word in [str(folder.path), *said] if word not in err] == []
