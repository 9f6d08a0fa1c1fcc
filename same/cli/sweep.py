"""`same sweep`: a grid of runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from same.engine.grid import Cell, Grid
    from same.engine.sweep import State


def sweep(
    grid: Annotated[Path, typer.Option(help="A YAML file; data_manifests/grids has examples.")],
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler (default: workers on this machine).")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Runs at once on this machine (default: one a core).")
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder the run folders are made in.")] = Path("runs"),
    results: Annotated[
        Path | None, typer.Option(help="Folder of the results files (default: beside the manifests).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and run nothing.")] = False,
) -> None:
    """Run a grid: skip what is finished, go on with what was interrupted; the same command again after Ctrl-C.

    Ends with 1 where a run failed (the others are run all the same) or the sweep was stopped.
    """
    from same.engine.grid import load_grid
    from same.engine.results import RESULTS
    from same.engine.sweep import sweep as run

    found, kept = load_grid(grid, runs), results or RESULTS
    if dry_run:
        _tell(found, kept)
        return
    display = _Display(found)
    with display.bar:
        state = run(found, kept, scheduler, workers, display)
    for name, reason in state.failed.items():
        print(f"failed: {name}: {reason}")
    print(f"{len(state.done)} of {state.total} runs are finished, {len(state.failed)} failed. Results: {kept}")
    if state.stopping:
        print("Stopped; the same command goes on.")
    if state.failed or state.stopping:
        raise typer.Exit(1)


def _tell(grid: Grid, results: Path) -> None:
    from same.engine import tuning
    from same.engine.record import is_finished
    from same.engine.sweep import without_choice

    asked = tuning.open_questions(tuning.candidates(grid), grid.tune, tuning.tuning_path(results, grid.tuned))
    first = [cell for found in asked.values() for cell in found.values()]
    cells = list(grid.cells) if asked else tuning.tuned(grid, results)
    for cell in [*first, *cells]:
        state = "finished" if is_finished(cell) else "interrupted" if cell.job.folder.path.is_dir() else "to do"
        print(f"{state:12}{cell.name:40} {json.dumps(_given(cell), ensure_ascii=False)}")
    for cell in without_choice(grid, cells):
        print(f"no choice   {cell.name:40} {grid.tuned} has none for {cell.request.method}; it would not be run")
    waits = f"; {len(first)} of them choose {grid.tune.setting} for the others" if grid.tune and first else ""
    print(f"{len(first) + len(cells)} runs{waits}.")


def _given(cell: Cell) -> dict[str, Any]:
    return {key: value for key, value in cell.request.settings.items() if key != "checkpoint"}


class _Display:
    """A bar over all runs and a line for each that is on a worker; plain lines where there is no terminal."""

    def __init__(self, grid: Grid) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[line]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._all = self.bar.add_task(grid.title, total=None, line="")
        self._runs: dict[str, _Line] = {}
        self._told: set[str] = set()

    def __call__(self, state: State) -> None:
        """Show how far the sweep is."""
        from same.engine.watch import duration

        ended = {
            name: f"done in {duration(seconds)}" if seconds else "done before" for name, seconds in state.done.items()
        }
        ended |= {name: f"failed: {reason.splitlines()[-1]}" for name, reason in state.failed.items()}
        for name in [name for name in ended if name not in self._told]:
            self._told.add(name)
            self.bar.console.print(
                f"{len(self._told)}/{state.total} {name}: {ended[name]}", highlight=False, markup=False
            )
        line = "stopping after this step" if state.stopping else ""
        self.bar.update(self._all, total=state.total, completed=len(ended), line=line)
        for cell in state.flying:
            if cell.name not in self._runs:
                self._runs[cell.name] = _Line(cell, self.bar)
        for name in set(self._runs) - {cell.name for cell in state.flying}:
            self.bar.remove_task(self._runs.pop(name).task)
        for shown in self._runs.values():
            shown.update()


class _Line:
    """The line of one run."""

    def __init__(self, cell: Cell, bar: Any) -> None:
        from same.engine.watch import Progress

        self.folder, self.bar, self.progress = cell.job.folder, bar, Progress()
        self.task, self._seen = bar.add_task(f"  {cell.name}", total=len(cell.job.benchmark.tasks), line=""), 0

    def update(self) -> None:
        """Read what the run has recorded since."""
        events, self._seen = self.folder.read_events(self._seen)
        for event in events:
            self.progress.update(event)
        done = self.progress.task + int(self.progress.fraction == 1.0)
        self.bar.update(self.task, completed=done, line=self.progress.line)
