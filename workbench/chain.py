"""Run a chain of notebooks: what can run side by side does, what has not changed is skipped, a failure stops it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from same.errors import InputError, RunFailed
from same.registry import choose
from same.runs import runs_in
from workbench.fleet import train_on
from workbench.plan import Chain, Step, load_chain
from workbench.report import mark_old, write_report
from workbench.trained import made, trains

POLL_SECONDS = 0.5
SAY_EVERY = 30.0  # seconds between two lines about a running step where the output is not a terminal
STOP_SECONDS = 30.0  # a stopped notebook gets this long to end its training


@dataclass
class Running:
    """A notebook that is being executed."""

    step: Step
    process: "subprocess.Popen[str]"
    errors: Path
    fingerprint: str  # of what it was started with: what changes meanwhile it may not have read
    started: float = field(default_factory=time.monotonic)
    cell: str = "starting"
    said: float = 0.0

    def listen(self) -> None:
        """Take the cells it announces, until it ends."""
        for line in self.process.stdout or ():
            self.cell = line.strip()


def reproduce(
    name: str, runs: Path, dry_run: bool = False, begin: str | None = None, scheduler: str | None = None
) -> None:
    """Execute a chain and write its report.

    Args:
        name: of the chain, or the path of its file.
        runs: folder of runs; the report goes below it.
        dry_run: only say what would run.
        begin: name of a notebook: it and what the chain lists after it run again, what comes before stays as it is.
        scheduler: address of a Dask scheduler whose workers train what is not trained yet, before the notebooks run.

    Raises:
        InputError: the chain, a notebook or a parameter is not what it must be; nothing was started or written.
        RunFailed: a notebook failed; its copy is kept with the error.
    """
    chain = load_chain(name, runs)
    record = Record(runs / "reports" / chain.name, chain, begin)
    console = Console(stderr=False, highlight=False, soft_wrap=True)
    if dry_run:
        would: set[str] = set()
        for step in chain.steps:
            if not record.holds(step) or would.intersection(step.needs):
                would.add(step.name)
            state = "would run" if step.name in would else "unchanged, would be skipped"
            console.print(
                f"{step.name}: {step.notebook.name} {json.dumps(dict(step.parameters))}: {state}", markup=False
            )
        return
    with record.held(), stopped_by_sigterm():
        mark_old(record.folder, f"The chain was started again at {_now()} and has not come to its end.")
        if scheduler is not None:
            waiting = [step for step in chain.steps if not record.holds(step)]
            train_on(scheduler, waiting, runs, record.folder)
        try:
            Conductor(chain, record, runs, console).run()
        except RunFailed as failed:
            mark_old(record.folder, f"The chain was started again at {_now()} and failed: {failed}")
            raise
        report = write_report(chain, record.folder, runs, record.seconds())
    console.print(f"\nReport:    {report.resolve()}", markup=False)
    console.print(f"Dashboard: workbench serve --runs {runs}", markup=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


class Record:
    """What of a chain has been done: chain.json in the report's folder, replaced in one step."""

    def __init__(self, folder: Path, chain: Chain, begin: str | None = None):
        self.folder, self.chain, self.begin = folder, chain, begin
        self.runs = folder.parent.parent
        self.file = folder / "chain.json"
        self.fingerprints = chain.fingerprints()
        self.kept: set[str] = set()
        self.done: dict[str, dict[str, Any]] = {}
        self.read()

    def read(self) -> None:
        """Take up what the file says now; one that is missing or damaged says nothing.

        Raises:
            InputError: the chain cannot begin where it should.
        """
        try:
            self.done = dict(json.loads(self.file.read_text(encoding="utf-8"))["done"])
        except (OSError, ValueError, KeyError, TypeError):
            self.done = {}
        if self.begin is not None:
            self._begin_at(self.begin)

    def _begin_at(self, notebook: str) -> None:
        """Let the steps of a notebook and all listed after them run again, and take those before as they are.

        Raises:
            InputError: no step has that notebook, or one before it was never done.
        """
        names = [step.notebook.stem for step in self.chain.steps]
        first = names.index(
            choose("notebook of the chain", notebook.removesuffix(".ipynb"), list(dict.fromkeys(names)))
        )
        before, after = self.chain.steps[:first], self.chain.steps[first:]
        never = [step.name for step in before if step.name not in self.done or not self.copy(step).is_file()]
        if never:
            raise InputError(
                f"--from {notebook} must find what comes before it done; {never[0]} never was in {self.runs} "
                f"({len(never)} such). Leave --from out: what is done and unchanged is not done again."
            )
        self.kept = {step.name for step in before}
        self.done = {name: entry for name, entry in self.done.items() if name not in {step.name for step in after}}

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, no other process runs this chain on this folder of runs; what one has done until now is taken up.

        Raises:
            InputError: one does, or the folder cannot be written to.
        """
        lock = FileLock(self.folder / ".chain.lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=1)
        except Timeout:
            raise InputError(
                f"{self.folder} must be free; another process runs this chain there. Wait for it, or give other --runs."
            ) from None
        except OSError as error:
            raise InputError(f"--runs must be a folder that can be written to; {error}. Give another.") from None
        try:
            self.read()
            yield
        finally:
            lock.release()

    def copy(self, step: Step) -> Path:
        """Where a step's executed notebook goes."""
        return self.folder / step.copy

    def holds(self, step: Step) -> bool:
        """Whether a step was done just as it would be now, after what it needs, and what it made is still there."""
        entry = self.done.get(step.name)
        if entry is None or not self.copy(step).is_file():
            return False
        if not made(step, self.runs):
            return False
        if step.name in self.kept:
            return True
        late = [need for need in step.needs if self.done.get(need, {}).get("time", "") > entry["time"]]
        return not late and entry["fingerprint"] == self.fingerprint(step)

    def fingerprint(self, step: Step) -> str:
        """Of what the chain says of a step, and of the files that it reads as they are now."""
        digest = hashlib.sha256(self.fingerprints[step.name].encode())
        for file in sorted(file for pattern in step.reads for file in self.runs.glob(pattern)):
            digest.update(file.relative_to(self.runs).as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()[:16]

    def forget(self, step: Step) -> None:
        """A step is about to run again."""
        self.done.pop(step.name, None)
        self._write()

    def note(self, step: Step, fingerprint: str, seconds: float) -> None:
        """A step is done that was started with that fingerprint."""
        entry = {"fingerprint": fingerprint, "seconds": round(seconds, 1)}
        self.done[step.name] = {**entry, "time": datetime.now(UTC).isoformat(timespec="milliseconds")}
        self._write()

    def seconds(self) -> dict[str, float]:
        """How long each step took when it last ran."""
        return {name: float(entry["seconds"]) for name, entry in self.done.items()}

    def _write(self) -> None:
        beside = self.file.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps({"done": self.done}, indent=1), encoding="utf-8")
        beside.replace(self.file)


class Conductor:
    """Starts steps when what they need is done, as many side by side as the chain allows."""

    def __init__(self, chain: Chain, record: Record, runs: Path, console: Console):
        self.chain, self.record, self.runs, self.console = chain, record, runs, console
        self.steps = {step.name: step for step in chain.steps}
        self.running: list[Running] = []
        self.failed: list[str] = []
        self.finished = 0

    def run(self) -> None:
        """Run until everything is done, or something failed and what was running beside it has ended."""
        order = TopologicalSorter({step.name: step.needs for step in self.chain.steps})
        order.prepare()
        waiting: list[str] = []
        try:
            with self.console.status("") as status:
                while order.is_active() and not (self.failed and not self.running):
                    waiting += order.get_ready()
                    self._start(waiting, order)
                    for ended in [run for run in self.running if run.process.poll() is not None]:
                        self._end(ended, order)
                    self._show(status)
                    if self.running:
                        _wait(self.running[0].process)
        finally:
            self._stop_all()
        if self.failed:
            raise RunFailed("\n".join(self.failed))

    def _start(self, waiting: list[str], order: "TopologicalSorter[str]") -> None:
        while waiting and len(self.running) < self.chain.jobs and not self.failed:
            step = self.steps[waiting.pop(0)]
            if self.record.holds(step):
                self.finished += 1
                order.done(step.name)
                self._say(f"{step.name}: unchanged, skipped")
                continue
            self.record.forget(step)
            self.running.append(self._launch(step, self.record.fingerprint(step)))
            if not self.console.is_terminal:
                self._say(f"{step.name}: started")

    def _launch(self, step: Step, fingerprint: str) -> Running:
        output = self.record.copy(step)
        request = {"notebook": str(step.notebook), "output": str(output), "parameters": dict(step.parameters)}
        threads = max(1, (os.cpu_count() or 1) // self.chain.jobs)
        variables = {"PLOTLY_RENDERER": "plotly_mimetype", "PYTHONUNBUFFERED": "1"}
        variables["PYTHONWARNINGS"] = "ignore::FutureWarning"  # of libraries, about each other
        variables |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}
        errors = output.with_suffix(".log")
        with errors.open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "workbench.execute", json.dumps(request)],
                env=os.environ | variables,
                stdin=subprocess.PIPE,  # nothing is said; it ends when this process does, however it does
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C reaches it once, from here
            )
        running = Running(step, process, errors, fingerprint)
        threading.Thread(target=running.listen, daemon=True).start()
        return running

    def _end(self, ended: Running, order: "TopologicalSorter[str]") -> None:
        self.running.remove(ended)
        seconds = time.monotonic() - ended.started
        if ended.process.returncode:
            said = ended.errors.read_text(encoding="utf-8").strip().splitlines()[-12:]
            reason = "\n".join(said) or f"its process ended with {ended.process.returncode} (below 0: by that signal)"
            self.failed.append(
                f"{ended.step.name} failed: {reason}\nIts copy with the error: {self.record.copy(ended.step)}\n"
                "Mend the cause and give the same command again: what is done is not done again."
            )
            return
        ended.errors.unlink(missing_ok=True)
        self.record.note(ended.step, ended.fingerprint, seconds)
        self.finished += 1
        order.done(ended.step.name)
        self._say(f"{ended.step.name}: done in {_clock(seconds)}")

    def _say(self, text: str) -> None:
        self.console.print(f"[{self.finished}/{len(self.steps)}] {text}", markup=False)

    def _show(self, status: Any) -> None:
        lines = []
        for run in self.running:
            lines.append(
                f"{run.step.name}: {run.cell}, {_clock(time.monotonic() - run.started)}{self._training(run.step)}"
            )
            if not self.console.is_terminal and time.monotonic() - max(run.said, run.started) > SAY_EVERY:
                run.said = time.monotonic()
                self._say(lines[-1])
        status.update("\n".join(lines))

    def _training(self, step: Step) -> str:
        """The newest word of the run that a step trains, if it trains one."""
        folders = [run for run in runs_in(self.runs) if trains(step, run)]
        times = {run.events_path.stat().st_mtime: run for run in folders if run.events_path.exists()}
        if not times or time.time() - max(times) > 2 * SAY_EVERY:
            return ""
        events = times[max(times)].events()
        last = next((event for event in reversed(events) if event["kind"] == "step"), None)
        if last is None or events[-1]["kind"] in ("done", "failed", "interrupted"):
            return ""
        return (
            f", task {last['task'] + 1} step {last['step']}/{last['steps']}, loss {last['loss']:.3f}, "
            f"{_clock(last['eta_seconds'])} left"
        )

    def _stop_all(self) -> None:
        for run in self.running:
            run.process.send_signal(signal.SIGINT)
        for run in self.running:
            try:
                run.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                run.process.kill()
        self.running.clear()


def _wait(process: "subprocess.Popen[str]") -> None:
    try:
        process.wait(POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """Inside, SIGTERM does what Ctrl-C does, so that no notebook outlives the chain."""

    def stop(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
