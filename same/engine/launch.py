"""Training as a process of its own: started detached, watched through its run folder, stopped, found again later."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from filelock import FileLock, Timeout

from same.engine.job import Job, Request
from same.engine.session import check
from same.engine.watch import POLL_SECONDS, display_for, follow
from same.engine.worker import to_argument
from same.errors import InputError, RunFailed
from same.runs import RunFolder

CONFIGS = Path(__file__).parent / "configs"
BEGINNINGS = ("launch", "start")  # the process is begun; it is up and holds the folder
ENDINGS = ("done", "interrupted", "failed")
LOG = "train.log"
LINGER_SECONDS = 40  # torch's launcher gives the other ranks 30 s before it writes which one failed first
CLOCK_SECONDS = 60  # a clock that is set moves the time at which a process seems to have begun
# A parent's own distributed or notebook settings must not reach the training processes.
STRIPPED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MPLBACKEND", "JPY_PARENT_PID")
STRIPPED_PREFIXES = ("MASTER_", "TORCHELASTIC_", "ACCELERATE_")
# Starts the command in a session of its own and ends, so that the command is nobody's child: a notebook kernel that
# ends its children (at a restart) does not reach it.
DETACH = (
    "from subprocess import DEVNULL, Popen; import sys; log = open(sys.argv[1], 'ab'); "
    "print(Popen(sys.argv[2:], stdin=DEVNULL, stdout=log, stderr=log, start_new_session=True).pid)"
)


def start(  # noqa: PLR0913 - as many arguments as a request has
    benchmark: str = "mini-coin",
    method: str = "same",
    seed: int = 0,
    processes: int = 1,
    runs: str | Path = "runs",
    train_items: int | None = None,
    test_items: int | None = None,
    backbone: str = "tiny",
    settings: Mapping[str, Any] | None = None,
    strategy: str = "ddp",
    data_root: str | Path | None = None,
    allow_missing: bool = False,
    tasks: int | None = None,
    validation_items: int | None = None,
) -> "Run":
    """Start training in processes of their own and return at once; arguments as in Request.

    A run that is being trained already is taken up instead.

    Raises:
        InputError: something asked for does not exist or does not fit; nothing was started or written.
    """
    items: dict[str, Any] = {"train_items": train_items, "test_items": test_items, "allow_missing": allow_missing}
    where = {"runs": str(Path(runs).absolute()), "backbone": backbone, "strategy": strategy}
    items |= {"data_root": data_root and str(data_root), "tasks": tasks, "validation_items": validation_items}
    return launch(Request(benchmark, method, seed, processes, **where, **items, settings=dict(settings or {})))  # type: ignore[arg-type]


def launch(request: Request) -> "Run":
    """Start what a request asks for, or take it up where it is being trained already.

    Raises:
        InputError: something asked for does not exist or does not fit, or the folder is held by other work.
    """
    job = check(request)
    if running := running_in(job.folder):
        return running
    if is_held(job.folder):
        raise InputError(
            f"{job.folder.path} must be free; another process works in it, `same evaluate` for example. Wait for it."
        )
    return _begin(job)


def _begin(job: Job) -> "Run":
    folder = job.create_folder()
    _, seen = folder.read_events()
    arguments = [sys.executable, "-c", DETACH, str(folder.path / LOG), *command(job)]
    variables = child_environment(job.request.processes)
    found = subprocess.run(arguments, env=variables, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RunFailed(f"The training process could not be started:\n{found.stderr.strip()}")
    pid = int(found.stdout)
    try:
        begun = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        begun = 0.0  # gone already; its log says why
    folder.append_event("launch", running=[[pid, begun]])
    return Run(folder, seen)


def command(job: Job) -> list[str]:
    """The command line of a job's processes: plain, torch's launcher on CPUs, accelerate's on GPUs."""
    request = job.request
    worker = ["-m", "same.engine.worker", to_argument(request)]
    if request.processes == 1:
        return [sys.executable, *worker]
    count = str(request.processes)
    if use_gpus(request.processes):
        launcher = ["accelerate.commands.launch", "--config_file", str(CONFIGS / "gpus_8.yaml")]
        return [sys.executable, "-m", *launcher, "--num_processes", count, *worker]
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", count, *worker]


def use_gpus(processes: int) -> bool:
    """Whether every process can have a GPU of its own."""
    return torch.cuda.is_available() and torch.cuda.device_count() >= processes


def child_environment(processes: int) -> dict[str, str]:
    """This process's environment without what belongs to it alone."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in STRIPPED and not name.startswith(STRIPPED_PREFIXES)
    }
    kept |= {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    if processes > 1 and not use_gpus(processes):
        kept["ACCELERATE_USE_CPU"] = "true"
        kept.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    return kept


def attach(path: str | Path) -> "Run":
    """Take up a run again, running or ended, from its folder.

    Raises:
        InputError: no run was started there.
    """
    folder = RunFolder(path)
    folder.config()
    run = _newest(folder)
    if run is None:
        raise InputError(
            f"{folder.path} must hold a run that was started; its events.jsonl has no start. Start it with "
            "`same train` or start()."
        )
    return run


def running_in(folder: RunFolder) -> "Run | None":
    """The run that is being trained in a folder, or about to be; None where nobody works there."""
    run = _newest(folder)
    return run if run is not None and run.busy else None


def _newest(folder: RunFolder) -> "Run | None":
    events, seen = folder.read_events()
    begun = [index for index, event in enumerate(events) if event["kind"] in BEGINNINGS]
    if not begun:
        return None
    launched = len(begun) > 1 and events[begun[-2]]["kind"] == "launch"
    return Run(folder, seen, events[begun[-2 if launched else -1] :])


def is_held(folder: RunFolder) -> bool:
    """Whether a process holds this run folder."""
    if not folder.lock.exists():
        return False
    try:
        with FileLock(folder.lock, timeout=0):
            return False
    except FileNotFoundError:  # the run ended just now and its state went
        return False
    except Timeout:
        return True


class Run:
    """A training run in processes of its own.

    Args:
        folder: its run folder.
        seen: where its unread events begin in events.jsonl (bytes).
        events: those already read.
    """

    def __init__(self, folder: RunFolder, seen: int, events: list[dict[str, Any]] | None = None) -> None:
        self.folder = folder
        self._seen = seen
        self._events = events or []
        self._asked_to_stop = False

    @property
    def path(self) -> Path:
        """The run folder's path."""
        return self.folder.path

    def events(self) -> list[dict[str, Any]]:
        """What this start of the run has recorded so far."""
        new, self._seen = self.folder.read_events(self._seen)
        self._events += new
        return self._events

    @property
    def outcome(self) -> str | None:
        """None while it runs; else done, interrupted or failed (also when the processes ended without a word)."""
        ends = {event["kind"]: event["time"] for event in self.events() if event["kind"] in ENDINGS}
        if not ends:
            return None if self.busy else "interrupted" if self._asked_to_stop else "failed"
        if "failed" in ends:
            ago = datetime.now(UTC) - datetime.fromisoformat(ends["failed"])
            return None if self._alive(started=False) and ago.total_seconds() < LINGER_SECONDS else "failed"
        return None if is_held(self.folder) else list(ends)[-1]

    @property
    def busy(self) -> bool:
        """Whether it has recorded no end, and its folder is held or will be by the process that was begun."""
        if any(event["kind"] in ENDINGS for event in self.events()):
            return False
        return is_held(self.folder) or bool(self._alive(started=False))

    def _alive(self, started: bool = True) -> list[psutil.Process]:
        """Those of its processes that live, the first rank first; or only the one that was begun."""
        kinds = BEGINNINGS if started else BEGINNINGS[:1]
        events = [event for event in reversed(self.events()) if event["kind"] in kinds]
        found = []
        for pid, begun in dict.fromkeys((pid, begun) for event in events for pid, begun in event["running"]):
            try:
                process = psutil.Process(pid)
                same = abs(process.create_time() - begun) < CLOCK_SECONDS
                if same and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def stop(self) -> None:
        """Ask it to stop after the step it is in; finished tasks are kept. Returns at once."""
        self._asked_to_stop = True
        # Any one rank that is asked makes all agree. Before they are up, what was begun ends at once.
        for process in self._alive()[:1]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)

    def wait(self) -> str:
        """Block until it ends and return the outcome."""
        while (outcome := self.outcome) is None:
            alive = self._alive()
            if alive:
                psutil.wait_procs(alive, timeout=POLL_SECONDS)  # returns as soon as they are gone
            else:
                time.sleep(POLL_SECONDS)
        return outcome

    async def watch(self, style: str | None = None) -> RunFolder:
        """Show progress until it ends; interrupting the cell, or its Stop button, stops the run gracefully.

        Args:
            style: "widget", "text" or "none"; by default widgets in a notebook and text elsewhere.

        Returns:
            The run folder; of a stopped run, with the tasks that were finished.

        Raises:
            RunFailed: it failed; the message holds the failing process's own error.
        """
        await follow(self, display_for(self, style))
        return self.result()

    def result(self) -> RunFolder:
        """The run folder of a run that ended, or the reason why it failed.

        Raises:
            RunFailed: it failed.
        """
        if self.outcome == "failed":
            raise RunFailed(self.failure())
        return self.folder

    def failure(self) -> str:
        """What is known of a failure: the first error recorded and the end of the processes' log."""
        errors = [f"rank {event['rank']}: {event['error']}" for event in self.events() if event["kind"] == "failed"]
        log = self.path / LOG
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        head = errors[0] if errors else "the processes ended without recording an error"
        tail = "\n".join(lines[-60:])
        return f"Training failed: {head}\nLast lines of {log}:\n{tail}"
