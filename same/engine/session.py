"""Everything one run works with, opened in an order that writes nothing before all input is known to be good."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate.utils import set_seed
from datasets import Dataset
from filelock import FileLock, Timeout
from torch import nn

from same import registry
from same.backbones import load_backbone
from same.backbones._base import Loaded
from same.data.collate import PromptCollator, TrainCollator
from same.data.dataset import test_rows, training_rows, validation_rows
from same.data.manifest import Task
from same.data.prepare import prepare
from same.engine.allocator import keep_freed_memory
from same.engine.budget import Budget, attach
from same.engine.job import Job, Request, request_of, resolve
from same.engine.passes import compile_adapters, recompute_activations
from same.engine.processes import Processes
from same.engine.sharding import gathered, shard
from same.engine.zero import require_deepspeed
from same.errors import DataError, InputError
from same.methods._base import Method
from same.runs import RunFolder, differences

Report = Callable[[dict[str, Any]], None]
LOCK_SECONDS = 1.0  # another process may look for an instant whether the folder is held


def check(request: Request, progress: bool = True) -> Job:
    """Find every fault of a request that can be found without loading weights; may build the benchmark's files.

    Raises:
        InputError: an unknown name, a setting, a checkpoint, a row or an image that is not as it must be.
    """
    job = resolve(request)
    if request.strategy == "zero2":
        require_deepspeed()
    job.backbone.load_processor(job.backbone_config)
    load_rows(job, prepare(job.source, job.data_root, progress))
    return job


@dataclass(frozen=True)
class Rows:
    """Training and test rows of every task, in the benchmark's order."""

    train: list[Dataset]
    test: list[Dataset]


def load_rows(job: Job, root: Path) -> Rows:
    """Read and check the rows of all tasks.

    Raises:
        InputError: a row or an image is not as it must be; a task has too few rows for its processes; or a row without
            image would leave out a vision tower that is adapted and cut.
    """
    request, tasks = job.request, job.benchmark.tasks
    apart = request.validation_items or 0
    train = [training_rows(job.benchmark, task, root, request.train_items, job.partial, apart) for task in tasks]
    if apart:
        test = [validation_rows(job.benchmark, task, root, apart, job.partial) for task in tasks]
    else:
        test = [test_rows(job.benchmark, task, root, request.test_items, job.partial) for task in tasks]
    share = request.processes * job.train.gradient_accumulation
    for task, rows in zip(tasks, train, strict=True):
        if len(rows) < share:
            raise InputError(
                f"{task.key} must have at least processes × gradient_accumulation = {share} training rows; "
                f"got {len(rows)}. Use fewer of either, or more rows."
            )
    if request.strategy == "fsdp" and job.backbone.layout(job.backbone_config).unpadded:
        _check_pictured(tasks, train)
    for task, rows in zip(tasks, test, strict=True):
        _check_answers(task, rows, root)
    return Rows(train, test)


def _check_pictured(tasks: Sequence[Task], train: Sequence[Dataset]) -> None:
    """Refuse rows without pictures: a process that leaves a cut tower out of a step would make the others wait."""
    for task, rows in zip(tasks, train, strict=True):
        without = sum(image is None for image in rows["image"])
        if without:
            raise InputError(
                f"strategy fsdp with targets in the vision tower must have a picture in every training row; {without} "
                f"of {len(rows)} rows of {task.key} have none. Use --strategy ddp, or targets of the language model."
            )


def _check_answers(task: Task, rows: Dataset, root: Path) -> None:
    """Let the task's scorer look at the right answers now, not after hours of training."""
    rule = registry.load("same.scorers", task.scorer)
    for row in rows if hasattr(rule, "check") else ():
        try:
            rule.check(row)
        except DataError as error:
            raise DataError(f"{root / task.test}: {error}") from None


@dataclass
class Session:
    """A job with its processes, data and models."""

    job: Job
    processes: Processes
    rows: Rows
    loaded: Loaded
    method: Method
    report: Report | None = None
    model: nn.Module = field(init=False)
    budget: Budget = field(init=False)
    folder: RunFolder = field(init=False)
    collate_train: TrainCollator = field(init=False)
    collate_prompts: PromptCollator = field(init=False)
    _lock: FileLock | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.model = self.loaded.model.to(self.processes.device)
        self.folder = self.job.folder
        self.collate_train = TrainCollator(self.loaded.processor)
        self.collate_prompts = PromptCollator(self.loaded.processor)

    @classmethod
    def open(cls, request: Request, report: Report | None = None, count: int | None = None) -> "Session":
        """Check everything and load the backbone; the disk is not written but for prepared benchmarks.

        Args:
            request: what to run.
            report: called with every event, on the main process.
            count: how many processes there must be; as many as the request has by default.
        """
        job = resolve(request)
        processes = Processes(request.processes if count is None else count, job.request.strategy)
        if processes.device.type == "cpu":
            keep_freed_memory()
        if request.strategy == "zero2" and processes.count > 1:
            require_deepspeed()
        with processes.main_first():
            rows = load_rows(job, prepare(job.source, job.data_root, processes.is_main))
        settings = {name: getattr(job.backbone_config, name) for name in type(job.backbone_config).__dataclass_fields__}
        loaded = load_backbone(request.backbone, settings)
        return cls(job, processes, rows, loaded, job.method(job.method_config), report)

    @classmethod
    def reopen(cls, run: RunFolder, report: Report | None = None) -> "Session":
        """Open the session of a run again, on one process, wherever its folder was moved to.

        Raises:
            InputError: the run cannot be repeated as it was, for example because the backbone's files changed.
        """
        session = cls.open(request_of(run), report, count=1)
        session.folder = run
        changed = differences(run.config()["settings"], session.job.settings)
        if changed:
            raise InputError(
                f"{run.path} must be used with its own settings; found {'; '.join(changed)}. Bring back what changed."
            )
        return session

    def attach(self) -> None:
        """Put the method's adapters into the backbone, the same on every process, and cut it where that is asked."""
        set_seed(self.job.request.seed)
        model, self.budget = attach(self.method, self.loaded.model, self.loaded.layout)
        self.model = model.to(self.processes.device)
        if self.job.train.gradient_checkpointing:
            recompute_activations(self.model)
        if self.job.train.compile:
            compile_adapters(self.model)
        if self.processes.shards and self.method.trains:
            shard(self.model, self.processes.device)

    def whole(self) -> AbstractContextManager[None]:
        """Entered where weights are read outside of training: all of them are here, on every process."""
        return gathered(self.model)

    @property
    def autocast(self) -> torch.autocast:
        """The compute precision asked for."""
        return torch.autocast(self.processes.device.type, torch.bfloat16, enabled=self.job.train.precision == "bf16")

    def start(self) -> None:
        """Make the run folder, hold it against a second trainer, and clear what a killed one left half-written.

        Raises:
            InputError: another process trains in it.
        """
        if self.processes.is_main:
            self.job.create_folder()
            self.hold()
            self.folder.sweep()
        self.processes.wait()
        own = [psutil.Process()]
        if self.processes.count > 1:
            own.append(psutil.Process(os.getppid()))  # the launcher; alone, the parent may be out of sight
        about = {"tasks": list(self.job.benchmark.keys), "processes": self.processes.count}
        running = [[process.pid, process.create_time()] for process in own]
        self.record("start", **about, device=str(self.processes.device), running=running)

    def hold(self) -> None:
        """Keep other trainers out of the run folder until this process ends.

        Raises:
            InputError: one is in it.
        """
        self.folder.lock.parent.mkdir(exist_ok=True)
        lock = FileLock(self.folder.lock)
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise InputError(
                f"{self.folder.path} is being trained by another process. Wait for it, stop it, or use another "
                "--runs folder."
            ) from None
        self._lock = lock

    def release(self) -> None:
        """Let others into the run folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def record(self, kind: str, **data: Any) -> None:
        """Add an event to the run and report it; only the main process does."""
        if self.processes.is_main:
            self.folder.append_event(kind, **data)
            if self.report is not None:
                self.report({"kind": kind, **data})
