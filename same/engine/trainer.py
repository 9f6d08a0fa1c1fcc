"""The continual trainer: task after task, train → keep → evaluate → snapshot, and nothing finished is done again."""

import math
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import psutil
import torch
from accelerate.utils import send_to_device, set_seed
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import get_cosine_schedule_with_warmup

from same.data.collate import IGNORED, Row, TrainCollator
from same.engine.audit import audit_task
from same.engine.evaluate import collect_scores, evaluate_stage, evaluate_zero_shot, seen_at
from same.engine.examples import SessionExamples
from same.engine.job import SEEDS, Request
from same.engine.optimizers import make_optimizer
from same.engine.pace import Pace
from same.engine.planned import record_plan
from same.engine.processes import Stopped
from same.engine.session import Report, Session
from same.engine.snapshot import finish_snapshot, restore, write_trained
from same.engine.updates import Updates, updates_for
from same.errors import RunFailed
from same.methods._base import ROWS, Batch, Step, TaskContext
from same.runs import RunFolder
from same.tuner.observe import moe_layers

SEED_STRIDE = 10_007  # keeps the random streams of (seed, task) pairs apart


def train(request: Request, report: Report | None = None) -> RunFolder:
    """Train a method through a benchmark, or go on where an earlier call of the same request ended.

    Args:
        report: called with every event, on the main process.

    Raises:
        InputError: something asked for does not exist or does not fit, and nothing was written; or another process
            trains in the folder, and its record is untouched.
        Stopped: the user asked to stop; finished tasks are kept.
    """
    session = Session.open(request, report)
    with session.processes.stoppable():
        session.start()
        try:
            _train(session)
            session.record("done")
        except Stopped:
            session.record("interrupted", finished=session.folder.finished())
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            session.folder.append_event("failed", rank=session.processes.rank, error=text)
            raise
        finally:
            session.release()
    session.processes.wait()
    return session.folder


def _train(session: Session) -> None:
    keys, folder = session.job.benchmark.keys, session.folder
    finished = folder.finished()
    for index in range(finished):
        folder.snapshot(index).verify()
    evaluate_zero_shot(session)
    record_plan(session)
    session.attach()
    session.record("budget", **asdict(session.budget))
    if 0 < finished < len(keys):
        restore(session, folder.snapshot(finished - 1))
    pace = Pace(session, finished)
    for index in range(finished, len(keys)):
        trainer = TaskTrainer(session, index, pace)
        session.record("task_start", task=index, key=keys[index], steps=trainer.steps, rows=len(trainer.rows))
        began = time.perf_counter()
        known = folder.trained(index).exists
        if known:
            restore(session, folder.trained(index))
        elif trainer.steps:
            trainer.run()
        with session.whole():
            if not known:
                write_trained(session, index)
            trained = time.perf_counter()
            routing = evaluate_stage(session, index)
            audit = audit_task(session, index)
        pace.evaluated(sum(len(session.rows.test[i]) for i in seen_at(session, index)), time.perf_counter() - trained)
        finish_snapshot(session, index, {"routing": routing, "audit": audit.rows}, audit.probe)
        if session.processes.is_main:
            collect_scores(folder, keys, index + 1)
        seconds = {"train_seconds": trained - began, "evaluate_seconds": time.perf_counter() - trained}
        session.record("task_end", task=index, key=keys[index], **seconds)
    if session.processes.is_main:
        collect_scores(folder, keys, len(keys))
        shutil.rmtree(folder.path / "state", ignore_errors=True)


class TaskTrainer:
    """Trains the session's model on one task."""

    def __init__(self, session: Session, index: int, pace: Pace) -> None:
        self.session, self.index, self.pace = session, index, pace
        self.config = session.job.train
        chosen = session.method.curriculum(len(session.rows.train))[index]
        self.rows: Dataset | list[Row] = []
        if chosen:
            rows = concatenate_datasets([session.rows.train[task] for task in chosen])
            self.rows = session.method.rewrite(rows, session.job.request.seed * SEED_STRIDE + index)
        self.epochs = [list(self._plan(epoch)) for epoch in range(self.config.epochs)] if chosen else []
        self.steps = sum(len(epoch) for epoch in self.epochs) if session.method.trains and chosen else 0
        self._loss = torch.zeros((), device=session.processes.device)

    def _plan(self, epoch: int) -> Iterator[list[list[int]]]:
        processes = self.session.processes
        seed = self.session.job.request.seed * SEED_STRIDE + self.index * 101 + epoch
        for batch in plan_epoch(len(self.rows), self.config.batch_size, seed):
            yield split(batch, processes.rank, processes.count, self.config.gradient_accumulation)

    def run(self) -> None:
        """Train from a fresh optimiser to the end of the task."""
        session, method = self.session, self.session.method
        key = session.job.benchmark.tasks[self.index].key
        total = len(session.job.benchmark.tasks)
        processes = session.processes
        place = (processes.reduce, processes.rank, processes.count, self.config.gradient_accumulation)
        task = TaskContext(self.index, key, total, self.steps, *place, SessionExamples(session))
        set_seed((session.job.request.seed * SEED_STRIDE + self.index) % SEEDS)
        method.begin_task(task)
        parameters = [parameter for parameter in session.model.parameters() if parameter.requires_grad]
        rate = self.config.learning_rate * method.rate
        routers = [layer.router for layer in moe_layers(session.model).values()]
        optimizer = make_optimizer(parameters, replace(self.config, learning_rate=rate), routers)
        warmup = math.ceil(self.config.warmup_ratio * self.steps)
        schedule = get_cosine_schedule_with_warmup(optimizer, warmup, self.steps)
        index = 0
        updates = updates_for(
            processes,
            session.model,
            optimizer,
            lambda: method.before_step(Step(optimizer, index, self.steps)),
            lambda: method.after_step(Step(optimizer, index, self.steps)),
            session.job.part_rows,
            self.config.precision,
        )
        updates.model.train()
        try:
            batches = iter(method.batches(self._loader()))
            for index in range(self.steps):
                session.processes.raise_if_stopping()
                self._step(updates, list(islice(batches, self.config.gradient_accumulation)))
                schedule.step()
                self._report(index + 1, schedule.get_last_lr()[0])
        finally:
            updates.close()
        method.end_task(task)
        self._report_method()

    def _loader(self) -> DataLoader[Any]:
        batches = [rows for epoch in self.epochs for step in epoch for rows in step]
        numbered: Any = Numbered(self.rows, self.session.collate_train)  # its items are not what its batches are
        return DataLoader(
            numbered,
            batch_sampler=batches,
            collate_fn=numbered.collate,
            num_workers=self.config.workers,
            pin_memory=self.session.processes.device.type == "cuda",  # only then does a copy not wait
        )

    def _step(self, updates: Updates, batches: list[Batch]) -> None:
        """One optimiser step whose loss is the mean over all answer tokens of the global batch."""
        session, method = self.session, self.session.method
        processes = session.processes
        batches = [send_to_device(dict(batch), processes.device, non_blocking=True) for batch in batches]
        counts = [answer_tokens(batch) for batch in batches]
        everyone = torch.stack(counts).sum()
        processes.reduce(everyone)
        for part, (batch, count) in enumerate(zip(batches, counts, strict=True), 1):
            weight = count * processes.count / everyone
            with updates.part(last=part == len(batches)):
                with method.forward_context(batch), session.autocast:
                    found: Tensor = updates.model(**{key: batch[key] for key in batch if key != ROWS}).loss
                    loss = method.loss(found, batch) * weight
                updates.backward(loss)
            self._loss += found.detach() * weight
        updates.step(self.config.clip)

    def _report(self, done: int, learning_rate: float) -> None:
        self.pace.stepped()
        if done % self.config.log_every and done != self.steps:
            return
        taken = (done - 1) % self.config.log_every + 1
        processes = self.session.processes
        processes.reduce(self._loss)
        loss = self._loss.item() / processes.count / taken
        self._loss.zero_()
        if not math.isfinite(loss):
            raise RunFailed(f"The loss must stay finite; got {loss} at step {done}. Lower learning_rate.")
        rows = len(self.rows) * self.config.epochs / self.steps
        numbers = {"loss": loss, "learning_rate": learning_rate, "memory_mb": memory_mb(processes.device)}
        numbers |= self.pace.numbers(rows) | self.session.method.step_metrics()
        self.session.record("step", task=self.index, step=done, steps=self.steps, **numbers)
        self._report_method()

    def _report_method(self) -> None:
        for kind, data in self.session.method.drain_events():
            self.session.record(kind, task=self.index, **data)


@dataclass(frozen=True)
class Numbered(torch.utils.data.Dataset[tuple[int, Row]]):
    """Rows with their numbers, which `collate` puts beside the batch's inputs."""

    rows: Dataset
    inputs: TrainCollator

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, numbers: list[int]) -> list[tuple[int, Row]]:
        return list(zip(numbers, self.rows.__getitems__(numbers), strict=True))

    def collate(self, rows: Sequence[tuple[int, Row]]) -> Batch:
        """The collator's batch, and ROWS."""
        return {**self.inputs([row for _, row in rows]), ROWS: torch.tensor([number for number, _ in rows])}


def plan_epoch(count: int, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Share all rows of an epoch, shuffled, evenly over floor(count / batch_size) global batches; none is left out.

    Batches have batch_size rows, or a few more where batch_size does not divide count.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    yield from spread(order, max(1, count // batch_size))


def split(batch: list[int], rank: int, processes: int, parts: int) -> list[list[int]]:
    """The parts of a global batch that one process sees, one after the other."""
    return list(spread(list(spread(batch, processes))[rank], parts))


def spread(rows: list[int], parts: int) -> Iterator[list[int]]:
    """Cut a list into so many consecutive pieces whose lengths differ by at most one."""
    for part in range(parts):
        yield rows[part * len(rows) // parts : (part + 1) * len(rows) // parts]


def answer_tokens(batch: Batch) -> Tensor:
    """Number of tokens that carry loss: the first token of a row is never predicted."""
    return (batch["labels"][:, 1:] != IGNORED).sum().float()


def memory_mb(device: torch.device) -> float:
    """Peak memory of the GPU, or this process's resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    resident: Any = psutil.Process().memory_info().rss
    return float(resident / 2**20)
