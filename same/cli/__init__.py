"""The command line of the library: `same --help` lists the commands.

Exit codes: 0 done, 1 the work failed or was stopped, 2 bad input; 130 where Ctrl-C came before there was a run to stop.
"""

import asyncio
import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from same.cli._options import AllowMissing, AsJson, BenchmarkName, DataRoot, RunPath, Settings, parse_settings
from same.cli.plan import plan
from same.cli.reroute import reroute
from same.cli.route import route
from same.cli.sweep import sweep
from same.cli.tables import tables
from same.errors import InputError, RunFailed

app = typer.Typer(
    help="SAME: stabilised mixture-of-experts for multimodal continual instruction tuning.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(plan)
app.command()(sweep)
app.command()(tables)
app.command()(reroute)
app.command()(route)


def main() -> None:
    """Run the command line; errors the user can mend are one line, not a traceback."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except RunFailed as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(1)


@app.command()
def prepare(
    benchmark: BenchmarkName,
    sheet: Annotated[Path | None, typer.Option(help="Also draw examples with question and answer to this PNG.")] = None,
    data_root: DataRoot = None,
) -> None:
    """Build an embedded benchmark's files, or check that a downloaded one is there; prints their folder."""
    from same.data.manifest import load_benchmark
    from same.data.prepare import prepare as build

    found = load_benchmark(benchmark)
    folder = build(found, data_root)
    if sheet is not None:
        from same.data.sheet import contact_sheet

        contact_sheet(found, folder, sheet)
    print(folder)


@app.command()
def doctor(
    benchmark: BenchmarkName,
    data_root: DataRoot = None,
    allow_missing: AllowMissing = False,
    as_json: AsJson = False,
) -> None:
    """Examine a benchmark's files before training: rows, pictures, counts, disk; ends with 1 if it could not start."""
    from same.data.doctor import examine
    from same.data.manifest import load_benchmark

    report = examine(load_benchmark(benchmark), data_root, allow_missing)
    print(json.dumps(dataclasses.asdict(report), indent=1, ensure_ascii=False) if as_json else report.text())
    if not report.ready:
        raise typer.Exit(1)


@app.command()
def methods(as_json: AsJson = False) -> None:
    """List the methods with their papers; as JSON also settings and trainable parameters on the embedded backbone."""
    from same import registry
    from same.methods._base import Method

    budgets = {}
    if as_json:
        from same.engine.budget import tiny_budgets

        budgets = {
            name: {**dataclasses.asdict(found), "share": round(found.share, 4)}
            for name, found in tiny_budgets().items()
        }
    rows = []
    for name in registry.names("same.methods"):
        method = registry.load_class("same.methods", name, Method)
        settings = dataclasses.asdict(method.Config())
        about = {key: getattr(method, key) for key in ("title", "paper", "notes", "budget_reason", "rate")}
        about |= {"task_id_at_inference": method.task_id_at_inference, "budget": budgets.get(name)}
        rows.append({"name": name, **about, "settings": settings, "paper_settings": dict(method.Config.PAPER)})
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:{width}}  {row['title']}. {row['paper']}".rstrip())


@app.command()
def pretrain(
    out: Annotated[Path, typer.Option(help="Folder to write the checkpoint to.")] = Path("tiny_llava"),
    start: Annotated[Path | None, typer.Option("--from", help="Checkpoint of an earlier run to go on from.")] = None,
    settings: Settings = None,
) -> None:
    """Train the embedded backbone again from packaged data; prints the checkpoint's folder."""
    from same.engine.job import make_config, place_settings
    from same.engine.pretrain import Recipe
    from same.engine.pretrain import pretrain as run

    values = place_settings(parse_settings(settings or []), {"recipe": Recipe})
    run(out, make_config(Recipe, values["recipe"]), start)
    print(out)


@app.command()
def train(  # noqa: PLR0913 - a command has as many options as its contract says
    benchmark: BenchmarkName,
    method: Annotated[str, typer.Option(help="One of `same methods`.")],
    seed: Annotated[int, typer.Option(help="Of adapters and of the order of rows.")] = 0,
    processes: Annotated[int, typer.Option(help="Processes that train together; the global batch stays the same.")] = 1,
    strategy: Annotated[str, typer.Option(help="How they share the model: ddp, fsdp or zero2.")] = "ddp",
    runs: Annotated[Path, typer.Option(help="Folder the run folder is made in.")] = Path("runs"),
    backbone: Annotated[str, typer.Option(help="Family of the backbone.")] = "tiny",
    checkpoint: Annotated[str | None, typer.Option(help="Folder or hub name of the backbone's weights.")] = None,
    train_items: Annotated[int | None, typer.Option(help="Training rows a task (default: all).")] = None,
    test_items: Annotated[int | None, typer.Option(help="Test rows a task (default: all).")] = None,
    tasks: Annotated[int | None, typer.Option(help="Only the first so many tasks (default: all).")] = None,
    validation_items: Annotated[
        int | None, typer.Option(help="Training rows a task that are kept from training and scored, not the test rows.")
    ] = None,
    data_root: DataRoot = None,
    allow_missing: AllowMissing = False,
    settings: Settings = None,
) -> None:
    """Train a method through a benchmark, task by task, evaluating after each; goes on where it was stopped.

    A run that is being trained already is shown instead. The last line printed is the run folder.
    """
    from same.engine.job import Request, resolve
    from same.engine.launch import launch, running_in

    values = parse_settings(settings or [])
    if checkpoint is not None:
        values["checkpoint"] = checkpoint
    request = Request(
        benchmark,
        method,
        seed,
        processes,
        str(runs.absolute()),
        backbone,
        train_items,
        test_items,
        values,
        strategy,
        None if data_root is None else str(data_root),
        allow_missing,
        tasks,
        validation_items,
    )
    place = resolve(request).folder
    if running := running_in(place):
        print(f"{place.path} is being trained already; showing that. Ctrl-C stops it.", file=sys.stderr)
        folder, stopped = _follow(running)
    elif processes == 1:
        folder, stopped = place.path, _train_here(request)
    else:
        folder, stopped = _follow(launch(request))
    print(folder, flush=True)
    if stopped:
        raise typer.Exit(1)


def _train_here(request: Any) -> bool:
    """Train in this process; whether it was stopped."""
    from same.engine.processes import Stopped
    from same.engine.trainer import train as run
    from same.engine.watch import Text

    try:
        run(request, Text())
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        return True
    return False


def _follow(run: Any) -> tuple[Path, bool]:
    """Show a run in other processes to its end: its folder, and whether it was stopped."""
    signal.signal(signal.SIGTERM, lambda *_: run.stop())
    folder = asyncio.run(run.watch("text"))
    return folder.path, run.outcome == "interrupted"


@app.command()
def evaluate(run: RunPath) -> None:
    """Answer what a run's snapshots have no predictions of, and collect its scores anew."""
    from same.engine.evaluate import evaluate_run
    from same.engine.watch import Text
    from same.runs import RunFolder

    folder = RunFolder(run)
    evaluate_run(folder, Text())
    _print_scores(_summary(folder))


@app.command()
def audit(run: RunPath, as_json: AsJson = False) -> None:
    """Print a run's drift audit: what each task changed on the inputs of the tasks before it."""
    from same.engine.audit_table import cost, pairs, read_audit, text
    from same.runs import RunFolder

    folder = RunFolder(run)
    rows = read_audit(folder)
    about, spent = _about(folder), cost(folder)
    if as_json:
        found = {"means": list(pairs(rows)), "rows": rows, "cost": spent}
        print(json.dumps({**about, **found}, indent=1, ensure_ascii=False))
    else:
        print(_title(about), text(rows), sep="\n")
        if spent["share"] is not None:
            print(f"The audit took {spent['seconds']:.1f} s, {spent['share']:.1%} of training and evaluation.")


@app.command()
def show(run: RunPath, as_json: AsJson = False) -> None:
    """Print a run's score matrix and metrics."""
    from same.runs import RunFolder

    folder = RunFolder(run)
    summary = _summary(folder)
    for index in range(folder.finished()):
        folder.snapshot(index).verify()
    if as_json:
        print(json.dumps(summary, indent=1, ensure_ascii=False))
    else:
        _print_scores(summary)


@app.command()
def score(
    benchmark: BenchmarkName,
    task: Annotated[str, typer.Option(help="Key of one of its tasks.")],
    predictions: Annotated[Path, typer.Option(help="JSON lines with question_id and text, or a Parquet table.")],
    data_root: DataRoot = None,
    allow_missing: AllowMissing = False,
    meteor: Annotated[
        bool, typer.Option("--meteor", help="Count METEOR of captions too: needs Java and the extra meteor.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Score a file of answers, whoever gave them, in every reading; one a test row is wanted, in any order."""
    from same.engine.exchange import score_file

    found = score_file(benchmark, task, predictions, data_root, allow_missing, meteor)
    print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else _scored(found))


def _scored(found: dict[str, Any]) -> str:
    """Score, meaning and flaw of each reading, and the errors counted."""
    from same.metrics import READINGS

    lines = [f"{found['task']} of {found['benchmark']}: {found['items']} answers by the rule {found['scorer']}"]
    lines += [f"Left out for missing pictures: {found['left_out']} rows."] if found["left_out"] else []
    for name, value in found["scores"].items():
        lines.append(f"{name:10}{value:8.4f}   {READINGS[name]}")
        lines += [f"{'':21}{found['flaws'][name]}"] if name in found["flaws"] else []
    if measures := found["measures"]:
        lines += [f"  {name:18}{value:8.4f}" for name, value in measures.items()]
        lines += [] if "METEOR" in measures else ["  METEOR            left out; --meteor counts it, by Java"]
    return "\n".join([*lines, "answers: " + _counted(found["errors"])])


def _counted(errors: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in errors.items())


@app.command()
def export(
    run: RunPath,
    task: Annotated[str, typer.Option(help="Key of the task answered.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    after: Annotated[str, typer.Option(help="Index of the task trained last, from 0, or zero_shot.")],
) -> None:
    """Write a run's answers to a task as JSON lines that peers' scoring code reads."""
    from same.engine.exchange import export_predictions
    from same.runs import ZERO_SHOT, RunFolder

    if not after.isdecimal() and after != ZERO_SHOT:
        raise InputError(f"--after must be a task's index from 0, or {ZERO_SHOT}; got {after!r}.")
    count = export_predictions(RunFolder(run), after if after == ZERO_SHOT else int(after), task, out)
    print(f"{out}: {count} answers")


@app.command()
def bench(
    name: Annotated[str, typer.Argument(help="What to measure; a wrong name lists the choices.")],
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Measure speed and memory on this machine, as ratios of runs interleaved in one process."""
    from same import registry
    from same.engine.bench._machine import machine
    from same.engine.job import environment, make_config, place_settings

    measured = registry.load("same.engine.bench", name)
    values = place_settings(parse_settings(settings or []), {name: measured.Config})
    about = {**environment(), **machine()}
    found = {"bench": name, "machine": about, **measured.run(make_config(measured.Config, values[name]))}
    print(json.dumps(found, indent=1) if as_json else _outline(found))


def _outline(found: dict[str, Any]) -> str:
    """Values by name, nested ones on a line each."""
    return "\n".join(
        f"{key}\n" + "\n".join(f"  {row}" for row in value) if isinstance(value, list) else f"{key}: {value}"
        for key, value in found.items()
    )


def _summary(folder: Any) -> dict[str, Any]:
    from same.metrics import summarise

    about, scores = _about(folder), folder.scores()
    kept = {key: scores[key] for key in ("tasks", "variants", "zero_shot", "forward", "errors")}
    return {**about, **kept, **summarise(scores), "flaws": _flaws(folder)}


def _flaws(folder: Any) -> dict[str, dict[str, str]]:
    """By reading, what must be known of a task's numbers."""
    from same import registry

    found: dict[str, dict[str, str]] = {}
    for task in folder.config()["settings"].get("tasks", []):
        rule = registry.load("same.scorers", task["scorer"])
        for name, flaw in getattr(rule, "FLAWS", {}).items():
            found.setdefault(name, {})[task["key"]] = flaw
    return found


def _about(folder: Any) -> dict[str, Any]:
    config = folder.config()
    about = {key: config[key] for key in ("benchmark", "method", "seed", "fingerprint")} | {"run": str(folder.path)}
    return {**about, "left_out": config["settings"].get("left_out", {})}


def _title(about: dict[str, Any]) -> str:
    from same.metrics import left_out

    title = f"{about['method']} on {about['benchmark']}, seed {about['seed']}  ({about['run']})"
    return "\n".join(line for line in (title, left_out(about)) if line)


def _print_scores(summary: dict[str, Any]) -> None:
    from same.metrics import FORMULAS, NAMES

    print(_title(summary))
    width = max(len(key) for key in [*summary["tasks"], "zero-shot"])
    for variant, rows in summary["variants"].items():
        print(f"\n{variant} score on each task (columns) after training each task (rows)")
        print(" " * width + "".join(f"{key:>12}" for key in summary["tasks"]))
        print(f"{'zero-shot':{width}}{_cells(summary['zero_shot'][variant] or [None] * len(rows))}")
        for key, row in zip(summary["tasks"], rows, strict=False):
            print(f"{key:{width}}{_cells(row)}")
        for key, flaw in summary["flaws"].get(variant, {}).items():
            print(f"  {key}: {flaw}")
    if summary["errors"]:
        print(f"\nanswers after {summary['tasks'][len(summary['errors']) - 1]}")
        for key, counts in zip(summary["tasks"], summary["errors"][-1], strict=True):
            print(f"{key:{width}}   {_counted(counts) if counts else '·'}")
    variants = list(summary["variants"])
    print(f"\n{'metric':12}" + "".join(f"{variant:>12}" for variant in variants))
    for name in NAMES:
        print(f"{name:12}{_cells([summary[name][variant] for variant in variants])}   {FORMULAS[name]}")


def _cells(values: list[float | None]) -> str:
    return "".join(f"{'·' if value is None else format(value, '.3f'):>12}" for value in values)
