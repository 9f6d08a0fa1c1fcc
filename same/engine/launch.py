"""Training as a process of its own: started detached, watched through its run folder, stopped, found again later."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch

from same.engine.job import Job, Request
from same.engine.session import check
from same.engine.watch import display_for, follow
from same.engine.worker import to_argument
from same.errors import InputError, RunFailed
from same.runs import RunFolder

CONFIGS = Path(__file__).parent / "configs"
ENDINGS = ("done", "interrupted", "failed")
LOG = "train.log"
LINGER_SECONDS = 40  # torch's launcher gives the other ranks 30 s before it writes which one failed first
# A parent's own distributed or notebook settings must not reach the training processes.
STRIPPED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MPLBACKEND", "JPY_PARENT_PID")
STRIPPED_PREFIXES = ("MASTER_", "TORCHELASTIC_", "ACCELERATE_")
# Starts the command in a session of its own and ends, so that the command is nobody's child: a notebook kernel that
# ends its children (at a restart) does not reach it.
DETACH = (
    "from subprocess import DEVNULL, Popen; import sys; log = open(sys.argv[1], 'ab'); "
    "print(Popen(sys.argv[2:], stdin=DEVNULL, stdout=log, stderr=log, start_new_session=True).pid)"
)


def start(
    benchmark: str = "mini-coin",
    method: str = "same",
    seed: int = 0,
    processes: int = 1,
    runs: str | Path = "runs",
    train_items: int | None = None,
    test_items: int | None = None,
    backbone: str = "tiny",
    settings: Mapping[str, Any] | None = None,
) -> "Run":
    """Start training in processes of their own and return at once; arguments as in Request.

    Raises:
        InputError: something asked for does not exist or does not fit; nothing was started or written.
    """
    items = {"train_items": train_items, "test_items": test_items}
    where = {"runs": str(Path(runs).absolute()), "backbone": backbone}
    return launch(Request(benchmark, method, seed, processes, **where, **items, settings=dict(settings or {})))  # type: ignore[arg-type]


def launch(request: Request) -> "Run":
    """Start what a request asks for."""
    job = check(request)
    if is_training(job.folder):
        raise InputError(f"{job.folder.path} is being trained already. Use attach({str(job.folder.path)!r}).")
    folder = job.create_folder()
    _, seen = folder.read_events()
    arguments = [sys.executable, "-c", DETACH, str(folder.path / LOG), *command(job)]
    variables = child_environment(request.processes)
    found = subprocess.run(arguments, env=variables, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RunFailed(f"The training process could not be started:\n{found.stderr.strip()}")
    return Run(folder, seen, [psutil.Process(int(found.stdout))])


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
    events, seen = folder.read_events()
    starts = [index for index, event in enumerate(events) if event["kind"] == "start"]
    if not starts:
        raise InputError(f"{folder.path} must hold a run that was started; its events.jsonl has no start.")
    return Run(folder, seen, [], events[starts[-1] :])


def is_training(folder: RunFolder) -> bool:
    """Whether a process holds this run folder."""
    lock = folder.path / "state" / "lock"
    if not lock.exists():
        return False
    with lock.open() as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


class Run:
    """A training run in processes of its own.

    Args:
        folder: its run folder.
        seen: where its unread events begin in events.jsonl (bytes).
        processes: processes known to belong to it, besides those its start event names.
        events: those already read.
    """

    def __init__(
        self, folder: RunFolder, seen: int, processes: list[psutil.Process], events: list[dict[str, Any]] | None = None
    ) -> None:
        self.folder = folder
        self._seen = seen
        self._processes = processes
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
            return None if self._alive() else "interrupted" if self._asked_to_stop else "failed"
        if "failed" in ends:
            ago = datetime.now(UTC) - datetime.fromisoformat(ends["failed"])
            return None if self._alive() and ago.total_seconds() < LINGER_SECONDS else "failed"
        return None if is_training(self.folder) else list(ends)[-1]

    def _alive(self) -> list[psutil.Process]:
        named = [pair for event in self.events() if event["kind"] == "start" for pair in event["running"]]
        found = []
        for pid, created in [*named, *((process.pid, process.create_time()) for process in self._processes)]:
            try:
                process = psutil.Process(pid)
                if process.create_time() == created and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found

    def stop(self) -> None:
        """Ask it to stop after the step it is in; finished tasks are kept. Returns at once."""
        self._asked_to_stop = True
        starts = [event for event in self.events() if event["kind"] == "start"]
        processes = self._alive()
        # Any one rank that is asked makes all agree. Before they are up there is nothing to agree on.
        targets = processes[:1] if starts else processes
        for process in targets:
            try:
                process.send_signal(signal.SIGTERM)
            except psutil.NoSuchProcess:
                continue

    def wait(self, poll_seconds: float = 0.2) -> str:
        """Block until it ends and return the outcome."""
        while (outcome := self.outcome) is None:
            time.sleep(poll_seconds)
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
