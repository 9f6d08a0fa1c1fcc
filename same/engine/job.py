"""What is asked for, checked and completed: a request in plain values becomes a job of configs and a run folder."""

import dataclasses
import importlib.metadata
import os
import platform
import subprocess
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

import same
from same import registry
from same.backbones._base import Backbone, checkpoint_digest
from same.data.dataset import left_out
from same.data.manifest import Benchmark, load_benchmark
from same.data.prepare import benchmark_folder, data_digest
from same.errors import InputError
from same.methods._base import Method, MethodConfig
from same.runs import RunFolder, fingerprint

STRATEGIES = ("ddp", "fsdp", "zero2")
TASK_SETTINGS = ("key", "train", "test", "images", "scorer", "max_new_tokens")
FOLDERS = ("checkpoint", "encoder")  # settings that may name one
SEEDS = 2**32  # as many as numpy takes
OptimizerName = Literal["adamw", "sgd", "adamw_8bit"]
OPTIMIZERS: tuple[OptimizerName, ...] = typing.get_args(OptimizerName)
PACKAGES = ("torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class Request:
    """One run, in plain values: what the command line and a notebook give, and what a started process receives.

    Args:
        benchmark: name of a manifest, or path of a .yaml file.
        seed: of adapters and of the order of rows.
        processes: how many processes train together; the global batch does not depend on it.
        runs: folder the run folder is made in.
        train_items: use only so many training rows of each task (None: all).
        test_items: use only so many test rows of each task (None: all).
        settings: values by name, for any field of TrainConfig, the method's Config or the backbone's Config.
        strategy: "ddp" keeps the model whole on every process; "fsdp" cuts its adapted blocks; "zero2" cuts gradients
            and optimiser state, through DeepSpeed.
        data_root: folder the benchmark's files lie in or are built in (None: `same.data.prepare.data_root`).
        allow_missing: leave out rows whose picture is not there; how many is part of the run's settings.
        tasks: only the benchmark's first so many tasks (None: all).
        validation_items: keep so many of each task's training rows from training and score them instead of the test
            rows, to choose settings by (None: the test rows are scored).
    """

    benchmark: str
    method: str
    seed: int = 0
    processes: int = 1
    runs: str = "runs"
    backbone: str = "tiny"
    train_items: int | None = None
    test_items: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    strategy: str = "ddp"
    data_root: str | None = None
    allow_missing: bool = False
    tasks: int | None = None
    validation_items: int | None = None

    def __post_init__(self) -> None:
        for name in ("processes", "train_items", "test_items", "tasks", "validation_items"):
            value = getattr(self, name)
            if value is None and name != "processes":
                continue
            if not isinstance(value, int) or value < 1:
                instead = {"processes": "one", "validation_items": "the test rows"}.get(name, "all")
                raise InputError(
                    f"{name} must be a whole number of at least 1; got {value!r}. Leave it out for {instead}."
                )
        registry.choose("strategy", self.strategy, STRATEGIES)
        if not isinstance(self.seed, int) or not 0 <= self.seed < SEEDS:
            raise InputError(f"seed must be a whole number from 0 to {SEEDS - 1}; got {self.seed!r}. Try 0.")


@dataclass(frozen=True)
class TrainConfig:
    """How a task is trained and evaluated, whatever the method.

    Args:
        task_order: 0 trains the tasks as the manifest lists them; every other number draws an order of its own.
        learning_rate: peak of the cosine schedule.
        epochs: passes over a task's training rows.
        batch_size: rows an optimiser step sees, over all processes and accumulated parts.
        eval_batch_size: rows generated together on one process.
        gradient_accumulation: parts a process splits its share of the batch into.
        gradient_checkpointing: keep each block's input alone and run the block again in backward.
        compile: let torch compile what routed experts add to their layers (nothing gained on CPUs).
        optimizer: the 8-bit one keeps its moments in 8 bits and needs the extra `quantised`.
        warmup_ratio: share of a task's steps that the learning rate rises in.
        weight_decay: of the optimiser.
        clip: largest norm of the gradient of all adapters (0: no clipping).
        precision: of the products; adapters stay float32.
        evaluate_next: also score the task that comes next, which forward transfer needs.
        log_every: optimiser steps between two events.
        audit: measure, at each task's end, how far routing and experts drifted on earlier tasks' inputs.
        probe_rows: training rows of a task that the audit shows the model.
        probe_tokens: tokens of those whose layer inputs it keeps and compares.
        workers: processes that make batches ahead of training (0: none); of no effect on the result.
    """

    task_order: int = 0
    learning_rate: float = 2e-3
    epochs: int = 1
    batch_size: int = 16
    eval_batch_size: int = 64
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    compile: bool = False
    optimizer: OptimizerName = "adamw"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    clip: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    evaluate_next: bool = True
    log_every: int = 10
    audit: bool = True
    probe_rows: int = 8
    probe_tokens: int = 128
    workers: int = 0

    def __post_init__(self) -> None:
        batches = ("epochs", "batch_size", "eval_batch_size", "gradient_accumulation")
        for name in (*batches, "log_every", "probe_rows", "probe_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.task_order < 0:
            raise InputError(f"task_order must be at least 0 (the manifest's order); got {self.task_order}.")
        if self.workers < 0:
            raise InputError(f"workers must be at least 0; got {self.workers}.")
        for name in ("learning_rate", "weight_decay", "clip"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be a finite number ≥ 0; got {getattr(self, name)}.")
        if not 0 <= self.warmup_ratio <= 1:
            raise InputError(f"warmup_ratio must lie in [0, 1]; got {self.warmup_ratio}.")
        if self.optimizer not in OPTIMIZERS:
            raise InputError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {self.optimizer!r}.")

    def check_packages(self) -> None:
        """Raise InputError if a package that training needs is not installed; planning needs none."""
        if self.optimizer == "adamw_8bit":
            registry.require_extra("bitsandbytes", "quantised", "optimizer=adamw_8bit")


@dataclass(frozen=True)
class Job:
    """A request whose every name is known and whose every setting is of the right type.

    Args:
        source: the whole benchmark, which says where the files are.
        benchmark: the tasks of it that are run.
    """

    request: Request
    source: Benchmark
    benchmark: Benchmark
    method: type[Method]
    method_config: MethodConfig
    train: TrainConfig
    backbone: type[Backbone]
    backbone_config: Backbone.Config

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that determines the result; its hash is the run's fingerprint. No path is in it."""
        request = self.request
        backbone = dataclasses.asdict(self.backbone_config)
        digest = checkpoint_digest(self.backbone.checkpoint_of(self.backbone_config))
        del backbone["checkpoint"]
        train = dataclasses.asdict(self.train)
        del train["workers"]
        root = self.data_root
        missing = left_out(self.benchmark, benchmark_folder(self.source, root)) if self.partial else {}
        counts = {key: {split: len(rows) for split, rows in found.items()} for key, found in missing.items()}
        data = data_digest(self.source, root)
        return {
            "version": same.__version__,
            "benchmark": self.benchmark.name,
            "data": f"{data}-{fingerprint(missing)}" if missing else data,
            "tasks": [{name: getattr(task, name) for name in TASK_SETTINGS} for task in self.benchmark.tasks],
            "method": {"name": request.method, **self.method_config.described()},
            "train": train,
            "backbone": {"name": request.backbone, "digest": digest, **backbone},
            "seed": request.seed,
            "processes": request.processes,
            "strategy": request.strategy,
            "train_items": request.train_items,
            "test_items": request.test_items,
            **({"left_out": counts} if counts else {}),
            **({"validation_items": request.validation_items} if request.validation_items else {}),
        }

    @property
    def part_rows(self) -> int:
        """Rows of a part of a batch on one process, about."""
        return self.train.batch_size // (self.request.processes * self.train.gradient_accumulation)

    @property
    def partial(self) -> bool:
        """Whether pictures may be missing; what is drawn on this machine is complete."""
        return self.request.allow_missing and self.benchmark.builder is None

    @property
    def data_root(self) -> Path | None:
        """The data root asked for."""
        return None if self.request.data_root is None else Path(self.request.data_root)

    @cached_property
    def folder(self) -> RunFolder:
        """Where the run is recorded; nothing is made on disk by asking."""
        request = self.request
        return RunFolder.at(request.runs, self.benchmark.name, request.method, request.seed, self.settings)

    def create_folder(self) -> RunFolder:
        """Make the run folder, or take up the one that is there."""
        request = self.request
        about = {**environment(), "request": dataclasses.asdict(request)}
        return RunFolder.create(
            request.runs, self.benchmark.name, request.method, request.seed, self.settings, environment=about
        )


def resolve(request: Request) -> Job:
    """Look up every name and setting of a request.

    Raises:
        InputError: an unknown benchmark, method, backbone or setting, or a value of the wrong type; names the choices.
    """
    request = _anchored(request)
    source = load_benchmark(request.benchmark)
    benchmark = source.first(request.tasks)
    method = registry.load_class("same.methods", request.method, Method)
    backbone = registry.load_class("same.backbones", request.backbone, Backbone)
    owners: dict[str, type] = {"train": TrainConfig, "method": method.Config, "backbone": backbone.Config}
    given = place_settings(request.settings, owners)
    train, method_config, backbone_config = (make_config(owner, given[name]) for name, owner in owners.items())
    train.check_packages()
    backbone_config.check_packages()
    share = request.processes * train.gradient_accumulation
    if train.batch_size % share:
        raise InputError(
            f"batch_size must be a multiple of processes × gradient_accumulation = {share}; got {train.batch_size}. "
            f"Use --set batch_size={max(1, train.batch_size // share) * share}."
        )
    check_strategy(request, method, method_config)
    _check_cut(request, train)
    layout = backbone.layout(backbone_config)
    pictures = [name for name, group in layout.groups.items() if not group.padded]
    if method.weighs_rows and pictures:
        raise InputError(
            f"targets must read the rows of a batch for {request.method}, which weighs each row by its features; "
            f"{', '.join(pictures)} read its pictures. Leave these out of targets."
        )
    packed = layout.packed
    if packed and getattr(method_config, "routing", "token") == "sample":
        raise InputError(
            "routing=sample must have targets that read each sample by itself; backbone "
            f"{request.backbone} reads the pictures of a batch as one sequence in {', '.join(packed)}. Use "
            "--set routing=token, or leave these out of targets."
        )
    ordered = benchmark.reordered(train.task_order)
    return Job(request, source, ordered, method, method_config, train, backbone, backbone_config)


def check_strategy(request: Request, method: type[Method], config: MethodConfig) -> None:
    """Refuse what a method cannot do exactly when the model's state is cut over processes.

    Raises:
        InputError: the strategy and the method, or the number of processes, do not go together.
    """
    strategy = request.strategy
    if strategy == "ddp":
        return
    if request.processes == 1:
        raise InputError(f"strategy {strategy} must have at least 2 processes; got 1. Leave --strategy out.")
    if method.trains and not method.shardable:
        raise InputError(
            f"strategy {strategy} must have a method that works on cut parameters; {request.method} does not. "
            "Use --strategy ddp."
        )
    if strategy == "zero2" and (instead := config.gradient_only()):
        choice = " ".join(f"--set {name}={value}" for name, value in instead.items())
        raise InputError(
            "strategy zero2 must leave finished updates alone: DeepSpeed's optimiser holds them in flat pieces of many "
            f"parameters; {request.method} edits them after the step ({', '.join(instead)}). Use {choice}, or "
            "--strategy fsdp, which does all of it exactly."
        )


def _check_cut(request: Request, train: TrainConfig) -> None:
    """Refuse what was never seen to work on parameters that are cut over processes."""
    untested = {"compile": ("true", "false"), "optimizer": ("adamw_8bit", "adamw")}
    asked = [name for name, (value, _) in untested.items() if str(getattr(train, name)).lower() == value]
    if request.strategy == "fsdp" and asked:
        value, instead = untested[asked[0]]
        raise InputError(
            f"strategy fsdp must have {asked[0]}={instead}: parameters that are cut over processes were never seen to "
            f"work with {value}; got {asked[0]}={value}. Use --set {asked[0]}={instead}, or --strategy ddp."
        )


def _anchored(request: Request) -> Request:
    """The same request from any working directory: files it names by relative paths are named by absolute ones."""
    settings, benchmark = dict(request.settings), request.benchmark
    for name, value in settings.items():
        if name in FOLDERS and value and Path(str(value)).is_dir():  # else the name of one on the hub
            settings[name] = str(Path(str(value)).absolute())
    if Path(benchmark).suffix in (".yaml", ".yml") and Path(benchmark).is_file():
        benchmark = str(Path(benchmark).absolute())
    root = request.data_root and str(Path(request.data_root).expanduser().absolute())
    return dataclasses.replace(request, benchmark=benchmark, data_root=root, settings=settings)


def request_of(run: RunFolder) -> Request:
    """Read back the request that a run folder was made from."""
    return Request(**run.config()["environment"]["request"])


def place_settings(settings: Mapping[str, Any], owners: Mapping[str, type]) -> dict[str, dict[str, Any]]:
    """Sort settings by the dataclass that has a field of that name.

    Raises:
        InputError: no dataclass has it; names the choices.
    """
    placed: dict[str, dict[str, Any]] = {owner: {} for owner in owners}
    fields = {name: owner for owner, kind in owners.items() for name in typing.get_type_hints(kind)}
    for name, value in settings.items():
        registry.choose("setting", name, sorted(fields))
        owner = fields[name]
        placed[owner][name] = coerce(name, value, typing.get_type_hints(owners[owner])[name])
    return placed


def make_config(kind: type, values: Mapping[str, Any]) -> Any:
    """Build a Config; what its own check refuses is the user's input."""
    try:
        return kind(**values)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error


def coerce(name: str, value: Any, annotation: Any) -> Any:
    """Turn a text from the command line, or a plain value from a notebook, into what a field's annotation asks for."""
    origin, choices = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        if value is None or str(value).lower() == "none":
            return None
        annotation = next(choice for choice in choices if choice is not types.NoneType)
        return coerce(name, value, annotation)
    if origin is Literal:
        texts = {str(choice): choice for choice in choices}
        return texts[registry.choose(f"value of {name}", str(value), list(texts))]
    if origin is tuple:
        fixed = choices[-1] is not Ellipsis  # such as 4096x11008; any number of them stand between commas
        parts = value.split("x" if fixed else ",") if isinstance(value, str) else value
        if fixed and len(parts) != len(choices):
            raise InputError(f"{name} must have {len(choices)} numbers joined by x, as 4096x11008; got {value!r}.")
        return tuple(coerce(name, part, choices[0]) for part in parts)
    if annotation is bool:
        flags = {"true": True, "false": False}
        return flags[registry.choose(f"value of {name}", str(value).lower(), list(flags))]
    try:
        if annotation is int and float(value) != int(value):
            raise ValueError
        return annotation(value)
    except (TypeError, ValueError):
        kind = getattr(annotation, "__name__", str(annotation))
        raise InputError(f"{name} must be of type {kind}; got {value!r}.") from None


def environment() -> dict[str, Any]:
    """What is worth knowing about where a run was made, beside its settings."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    about = {"python": platform.python_version(), "platform": platform.platform(), "cpus": os.cpu_count()}
    hardware = {"memory_mb": psutil.virtual_memory().total // 2**20, "gpus": torch.cuda.device_count()}
    return {**about, **hardware, "packages": versions, "git_commit": _git_commit()}


def _git_commit() -> str | None:
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return found.stdout.strip() or None
