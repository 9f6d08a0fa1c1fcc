"""Runs a grid: each cell a training run on a Dask worker, what is finished skipped, what was interrupted gone on with.

The runs folder must be one that all workers see; the results folder is this process's alone.
"""

import dataclasses
import os
import signal
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from distributed import Client, Event, Future, LocalCluster, wait

from same.engine import tuning
from same.engine.grid import Cell, Grid
from same.engine.record import check_results, is_finished, write_result
from same.engine.remote import arguments_of, run_cell
from same.engine.snapshot import prune
from same.errors import InputError

LOOK_SECONDS = 1.0
CONNECT_SECONDS = 20
Show = Callable[["State"], object]


@dataclass
class State:
    """How far a sweep is.

    Args:
        total: runs of the phase it is in.
        flying: the runs that are on workers.
        done: names of the runs finished, skipped ones too, with their seconds.
        failed: why each run failed, by name.
        stopping: whether it was asked to stop.
    """

    total: int = 0
    flying: list[Cell] = field(default_factory=list)
    done: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    stopping: bool = False


def sweep(
    grid: Grid, results: Path, scheduler: str | None = None, workers: int | None = None, show: Show = id
) -> State:
    """Run all cells of a grid that are not finished, tuning first where the grid asks for it.

    Args:
        results: folder of the results files.
        scheduler: address of a Dask scheduler; None starts workers on this machine.
        workers: how many then (None: one a core).
        show: called about once a second, and when a run has ended.

    Raises:
        InputError: a run cannot be what it is asked to be, or there is no scheduler; nothing was started.
    """
    questions, path = tuning.candidates(grid), tuning.tuning_path(results, grid.tuned)
    cells = tuning.tuned(grid, results) if grid.tune is None else list(grid.cells)
    for cell in [*cells, *(cell for found in questions.values() for cell in found.values())]:
        _ = cell.job
    check_results(results, grid.cells)
    if grid.tune is not None:
        tuning.check_choices(questions, grid.tune, path)
    state = State()
    with _connected(scheduler, workers) as (client, threads), _interruptible():
        phase = _Phase(client, threads, grid.keep, state, show)
        if grid.tune is not None:
            asked = tuning.open_questions(questions, grid.tune, path)
            phase.run([cell for found in asked.values() for cell in found.values()], None)
            if state.stopping:
                return state
            if asked:
                tuning.decide(asked, grid.tune, path)
            cells = tuning.tuned(grid, results)
        for cell in without_choice(grid, cells):
            state.failed[cell.name] = "not started: no setting was chosen for this method"
        phase.run(cells, results)
    return state


def without_choice(grid: Grid, cells: Sequence[Cell]) -> list[Cell]:
    """The grid's runs that are not among those with the values chosen."""
    known = {cell.name for cell in cells}
    return [cell for cell in grid.cells if cell.name not in known]


@dataclass
class _Phase:
    """Runs cells on workers, in order, as many at once as there are threads."""

    client: Client
    threads: int
    keep: str
    state: State
    show: Show
    _stop: str = field(default_factory=lambda: f"stop-{uuid.uuid4().hex}")
    _flying: dict["Future[Any]", tuple[Cell, float]] = field(default_factory=dict)

    def run(self, cells: Sequence[Cell], results: Path | None) -> None:
        """Run those that are not finished; results of each are written where there is a folder for them."""
        self.state.total += len(cells)
        waiting: deque[Cell] = deque()
        for cell in cells:
            if is_finished(cell):
                self._keep(cell, results)
                self.state.done[cell.name] = 0.0
            else:
                waiting.append(cell)
        stop = Event(self._stop, client=self.client)
        while waiting or self._flying:
            try:
                self._start(waiting)
                self._collect(results)
            except KeyboardInterrupt:
                if self.state.stopping:
                    raise
                self.state.stopping = True
                waiting.clear()
                stop.set()

    def _start(self, waiting: deque[Cell]) -> None:
        free = max(1, sum(self.client.nthreads().values())) - len(self._flying)
        for _ in range(min(free, len(waiting))):
            cell = waiting.popleft()
            place = cell.job.folder.path
            arguments = arguments_of(dataclasses.asdict(cell.job.request))
            key = f"{cell.name}-{place.name}-{uuid.uuid4().hex[:6]}"
            future = self.client.submit(run_cell, arguments, str(place), self.threads, self._stop, key=key, pure=False)
            self._flying[future] = cell, time.monotonic()
        self.state.flying = [cell for cell, _ in self._flying.values()]
        self.show(self.state)

    def _collect(self, results: Path | None) -> None:
        with suppress(TimeoutError):
            wait(list(self._flying), timeout=LOOK_SECONDS, return_when="FIRST_COMPLETED")
        for future in [future for future in self._flying if future.done()]:
            cell, began = self._flying.pop(future)
            reason = self._reason(future, cell)
            if reason is None:
                self._keep(cell, results)
                self.state.done[cell.name] = time.monotonic() - began
            elif not self.state.stopping:
                self.state.failed[cell.name] = reason
        self.state.flying = [cell for cell, _ in self._flying.values()]
        self.show(self.state)

    def _reason(self, future: "Future[Any]", cell: Cell) -> str | None:
        """Why a run that ended is not finished; None where it is."""
        if future.status != "finished":
            return f"{future.status}: {future.exception() if future.status == 'error' else 'its worker is lost'}"
        code, printed = future.result()
        if code == 0 and is_finished(cell):
            return None
        return f"exit code {code}\n{printed}"

    def _keep(self, cell: Cell, results: Path | None) -> None:
        if results is not None:
            write_result(results, cell)
        if self.keep == "results":
            prune(cell.job.folder)


@contextmanager
def _connected(scheduler: str | None, workers: int | None) -> Iterator[tuple[Client, int]]:
    """A client, and how many threads a run may use."""
    if scheduler is not None:
        try:
            client = Client(scheduler, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise InputError(
                f"--scheduler must be the address of a running Dask scheduler, as tcp://host:8786; got {scheduler} "
                f"({error}). Start one with `dask scheduler`, or leave it out."
            ) from error
        with client:
            yield client, 1
        return
    cores = os.cpu_count() or 1
    count = workers or cores
    with (
        _uninterrupted(),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=None,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client, max(1, cores // count)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes begun inside take no notice of Ctrl-C."""
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise KeyboardInterrupt."""

    def interrupt(_number: int, _frame: FrameType | None) -> Any:
        raise KeyboardInterrupt

    old = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
