"""What a continual-learning method is: a Config beside a class whose moments the trainer calls.

The order of calls, for a run of T tasks::

    method = SomeMethod(SomeMethod.Config(...))
    model = method.attach(model, backbone)            # adapters in place, base frozen
    method.load_state_dict(tensors)                   # only when a run resumes (after the adapter's weights are loaded)
    for each task:
        method.begin_task(task)
        for batch in method.batches(loader):
            with method.forward_context(batch):       # forward only: leave it before backward
                loss = model(**batch).loss
            method.loss(loss, batch).backward()
            optimizer.step()                          # before_step / after_step from the optimiser's own hooks
        method.end_task(task)
        tables, state = method.snapshot_tables(), method.state_dict()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, get_args, get_origin, get_type_hints

from datasets import Dataset
from torch import Tensor, nn
from torch.optim import Optimizer

from same.errors import InputError

Batch = Mapping[str, Tensor]
ROWS = "rows"
"""Key of a training batch beside what the model takes: the numbers of its rows in the task's training set [batch]."""
Reduce = Callable[[Tensor], None]


class Layout(Protocol):
    """What a method must know of a backbone; `same.backbones` gives it with every loaded model."""

    @property
    def targets(self) -> str:
        """Regular expression (full match, as PEFT reads it) of the linear layers to adapt."""

    def input_key(self, module_name: str) -> str:
        """Name of the input a target layer reads: layers with equal keys see the same tensor."""

    @property
    def unpadded(self) -> str | None:
        """Regular expression of those that do not read the batch's rows and columns: all they read is real."""


Reference = tuple[int, int]
"""A training row: 0-based task, and number of the row in the task's training set."""


class Examples(Protocol):
    """Training rows of the tasks so far, for methods that look at some of them again; given by the engine."""

    def count(self, task: int) -> int:
        """How many training rows a task has."""

    def batch(self, references: Sequence[Reference]) -> Batch:
        """Rows as a training batch on the model's device."""

    def answers(self, references: Sequence[Reference]) -> tuple[Tensor, Tensor]:
        """What the model now says at each answer token of some rows: logits [tokens, vocabulary] and targets [tokens].

        With graph; rows follow one another.
        """


def reduce_nothing(tensor: Tensor) -> None:
    """The all-reduce of one process: every sum is already complete."""


@dataclass(frozen=True)
class TaskContext:
    """One task of a run, as the method sees it.

    Args:
        index: 0-based position in the benchmark's order.
        key: the task's name in the benchmark.
        total_tasks: number of tasks in the run.
        steps: optimiser steps this task will take.
        reduce: sums a tensor over all processes, in place; every process must call it in the same order.
        rank: this process's number among those, from 0.
        world: how many they are.
        parts: batches of this process in one optimiser step.
        examples: training rows of this and earlier tasks.
    """

    index: int
    key: str
    total_tasks: int
    steps: int
    reduce: Reduce = reduce_nothing
    rank: int = 0
    world: int = 1
    parts: int = 1
    examples: Examples | None = None

    @property
    def rows(self) -> Examples:
        """The examples, which must be there."""
        if self.examples is None:
            raise RuntimeError("this method looks at training rows again; TaskContext.examples must be given.")
        return self.examples


@dataclass(frozen=True)
class Step:
    """One optimiser step: `index` counts from 0 within the task, `total` is the task's number of steps."""

    optimizer: Optimizer
    index: int
    total: int


@dataclass
class SnapshotTables:
    """What a method adds to a snapshot; empty for methods that keep no statistics.

    spectra: tensors of spectrum.safetensors, "<input_key>.eigenvalues|eigenvectors|tokens|trace".
    activation: rows of activation.parquet (layer, expert, utilization, importance, score, frozen, step).
    """

    spectra: dict[str, Tensor] = field(default_factory=dict)
    activation: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Needs:
    """Bytes that a method keeps beside its adapters: on each process while it trains, and in each task's snapshot.

    Args:
        device: from the first task on.
        snapshot: in every task's.
        device_per_task: by which the first grows with each task.
        snapshot_per_task: by which each task's snapshot is larger than the one before.
    """

    device: int = 0
    snapshot: int = 0
    device_per_task: int = 0
    snapshot_per_task: int = 0


class RoutingProbe(Protocol):
    """Measures how a model routes the tokens it is shown."""

    def watching(self, batch: Batch) -> AbstractContextManager[None]:
        """Count the valid tokens of forward passes of the batch's shape (so a generation's prompt, not its answer)."""

    def rows(self, reduce: Reduce = reduce_nothing) -> list[dict[str, Any]]:
        """Rows (layer, input_key, expert, weight, argmax_share, tokens), summed over processes by `reduce`."""


class Presets(type):
    """Of a Config: a preset that is named, and the budget "paper", supply the settings not given; these always win.

    So what a run records, and its fingerprint, are the values in force. `PRESETS` has only what differs from the
    fields' own defaults, and so has `PAPER`: the sizes and strengths that were published for the method.
    """

    PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({})
    PAPER: Mapping[str, Any] = MappingProxyType({})

    def __call__(cls, *args: Any, **settings: Any) -> Any:
        paper = cls.PAPER if settings.get("budget") == "paper" else {}
        return super().__call__(*args, **{**paper, **cls.PRESETS.get(settings.get("preset", ""), {}), **settings})


@dataclass(frozen=True)
class MethodConfig(metaclass=Presets):
    """Settings of a method; a field annotated with `Literal` accepts its choices only.

    Args:
        budget: "matched" trains as many parameters as the expert methods do, but for what `budget_reason` says;
            "paper" takes the sizes and strengths published for the method, where there are any. Layers, samples, steps
            and global batch are the run's under both.
    """

    budget: Literal["matched", "paper"] = "matched"

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            value, choices = getattr(self, name), get_args(hint)
            if get_origin(hint) is Literal and value not in choices:
                raise InputError(f"{name} must be one of {', '.join(map(str, choices))}; got {value!r}.")

    def described(self) -> dict[str, Any]:
        """The settings as plain values; of a folder its content, as it may lie anywhere."""
        return asdict(self)

    def gradient_only(self) -> dict[str, Any]:
        """Settings to change, with their values, for a method that edits gradients and no finished update."""
        return {}


class Method:
    """A method; every moment has a default that does nothing, so a subclass writes only what it changes."""

    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    notes: ClassVar[str] = ""
    trains: ClassVar[bool] = True  # False: the engine evaluates only
    shardable: ClassVar[bool] = False  # True: its moments work on parameters that are cut by rows over processes
    task_id_at_inference: ClassVar[bool] = False  # True: it is told whose questions it answers (an upper reference)
    parity: ClassVar[str] = ""  # the method that it equals bit for bit on a run's first task
    weighs_rows: ClassVar[bool] = False  # True: weighs what is added for each row of a batch, which a layer must read
    rate: ClassVar[float] = 1.0  # times the run's learning rate, where a method's parameters are of another kind
    budget_reason: ClassVar[str] = ""  # why its trainable parameters differ from the experts' by more than 2 %
    Config: ClassVar[type[MethodConfig]] = MethodConfig

    def __init__(self, config: MethodConfig | None = None) -> None:
        self.config: Any = self.Config() if config is None else config
        self.model: nn.Module | None = None

    def attach(self, model: nn.Module, backbone: Layout) -> nn.Module:
        """Freeze the base, put the adapters in, and return the model to train; the caller keeps only that one."""
        model.requires_grad_(False)
        self.model = model
        return model

    def curriculum(self, tasks: int) -> list[list[int]]:
        """The tasks whose rows each stage of a run trains on; a stage without any only evaluates."""
        return [[index] for index in range(tasks)]

    def rewrite(self, rows: Dataset, seed: int) -> Dataset:
        """The rows that a stage is trained on, changed before they are batches."""
        return rows

    def begin_task(self, task: TaskContext) -> None:
        """Before the first step of a task; the optimiser's moments are new."""

    def batches(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        """Filter or mix the task's batches (replay)."""
        return batches

    def forward_context(self, batch: Batch) -> AbstractContextManager[None]:
        """Entered around each training forward pass and left before backward."""
        return nullcontext()

    def loss(self, loss: Tensor, batch: Batch) -> Tensor:
        """Add penalties to the model's loss."""
        return loss

    def before_step(self, step: Step) -> None:
        """Edit the accumulated, clipped gradients; called by the optimiser's step pre-hook."""

    def after_step(self, step: Step) -> None:
        """Edit the finished update; called by the optimiser's step post-hook."""

    def end_task(self, task: TaskContext) -> None:
        """Consolidate: called on every process after the last step, before snapshot and evaluation."""

    def reveal_task(self, index: int) -> None:
        """Told before a task's questions are answered, to methods with `task_id_at_inference` alone."""

    def merged(self) -> frozenset[str]:
        """Names of the parameters that the end of the last task merged something into."""
        return frozenset()

    def route(self, batch: Batch) -> None:
        """Choose adapters for a batch at inference; called before generation."""

    def routing_probe(self) -> RoutingProbe | None:
        """A new, empty probe of the attached model's routers, or None where nothing routes."""
        return None

    def step_metrics(self) -> dict[str, Any]:
        """JSON values worth a place in the step event (known on the host already, so it costs no sync)."""
        return {}

    def drain_events(self) -> list[tuple[str, dict[str, Any]]]:
        """Events (kind, data) since the last call, for events.jsonl."""
        return []

    def snapshot_tables(self) -> SnapshotTables:
        """Statistics of the task that just ended."""
        return SnapshotTables()

    def needs(self) -> Needs:
        """What the attached method will keep, for planning; the model may be on the meta device."""
        return Needs()

    def state_dict(self) -> dict[str, Tensor]:
        """Everything beside the adapter's weights that the next task depends on (flat, safetensors-ready)."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state_dict` gave; the model must be attached."""
