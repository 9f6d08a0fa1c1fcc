"""What a run will need, before it is started: the model is built without weights and its training step is traced."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from transformers import AttentionInterface, AutoConfig, AutoModelForImageTextToText, PreTrainedConfig, PreTrainedModel

from same import registry
from same.backbones._base import Backbone
from same.data.manifest import load_benchmark
from same.engine.job import Request, TrainConfig, check_strategy, make_config, place_settings
from same.errors import InputError
from same.methods._base import Method, MethodConfig, Needs
from same.tuner.observe import moe_layers

GIGABYTE = 1e9
ROOM = 0.9  # of a GPU's memory; the rest goes to fragments and the runtime
TEXT = 128  # tokens of a row beside its picture
ATTENTION = "planned"
Strategy = Literal["ddp", "fsdp", "zero2"]


@dataclass(frozen=True)
class Asked:
    """A run to plan.

    Args:
        backbone: a size that a family knows, such as "llava-1.5-7b", or a family whose checkpoint is in `settings`.
        benchmark: its manifest's name.
        method: its plug-in's name.
        gpus: as many processes as there are GPUs.
        strategy: what the GPUs share: "ddp" nothing, "zero2" gradients and optimiser state, "fsdp" weights as well.
        gpu_gigabytes: memory of one GPU (10⁹ bytes).
        teraflops: what one GPU sustains in training; the hours follow from it.
        length: tokens of a row, its picture's included (None: the picture's and 128 more).
        train_items: training rows of each task (None: all).
        settings: as for a run.
        tasks: only the benchmark's first so many (None: all).
    """

    backbone: str
    benchmark: str
    method: str
    gpus: int = 1
    strategy: Strategy = "ddp"
    gpu_gigabytes: float = 80.0
    teraflops: float = 100.0
    length: int | None = None
    train_items: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tasks: int | None = None

    def __post_init__(self) -> None:
        for name in ("gpus", "gpu_gigabytes", "teraflops", "length", "train_items"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} must be positive; got {value}.")


@dataclass(frozen=True)
class Plan:
    """What a run needs.

    Args:
        parameters: of the backbone.
        trainable: of the method's adapters.
        gigabytes_per_gpu: by part, at the peak of a training step.
        megabytes_sent_per_step: by each GPU.
        snapshot_megabytes: of all tasks' snapshots, without predictions.
        task_megabytes: of each task's snapshot.
        gigaflops_per_row: operations of a training row, forward and backward, in 10⁹.
        hours: of training, without evaluation; None where the manifest promises no rows and none are given.
        fits: the parts together leave a tenth of the GPU free.
        advice: what would fit where this does not.
        assumed: what the numbers stand on.
        refused: why training would not start as it is asked for, memory aside; "" where it would.
    """

    parameters: int
    trainable: int
    gigabytes_per_gpu: dict[str, float]
    megabytes_sent_per_step: float
    snapshot_megabytes: float
    task_megabytes: list[float]
    gigaflops_per_row: float
    hours: float | None
    fits: bool
    advice: str
    assumed: dict[str, Any]
    refused: str = ""


@dataclass(frozen=True)
class Traced:
    """Bytes and operations of one process's training step.

    Args:
        saved: bytes that the forward pass keeps for the backward, weights left out.
        logits: bytes of the logits, of their float32 copy and of its gradient, at the loss.
        flops: of forward and backward.
    """

    saved: int
    logits: int
    flops: int


class _Attention(torch.autograd.Function):
    """Keeps what a fused attention kernel keeps: queries, keys, values, the result and one number a row."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        result = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, result, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        query, key, value, _, _ = ctx.saved_tensors
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _attention(
    _module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: Tensor | None, **_kwargs: Any
) -> tuple[Tensor, None]:
    result: Tensor = _Attention.apply(query, key, value)  # type: ignore[no-untyped-call]
    return result.transpose(1, 2), None


AttentionInterface.register(ATTENTION, _attention)


def plan(asked: Asked, advise: bool = True) -> Plan:
    """Work out a run's needs; nothing is read but the backbone's configuration, and nothing is written.

    Args:
        advise: where it does not fit, look for settings that do.

    Raises:
        InputError: an unknown name or setting, a method that does not train, or a batch that the GPUs cannot share.
    """
    family, config = find_backbone(asked.backbone, asked.settings)
    kind = registry.load_class("same.methods", asked.method, Method)
    owners: dict[str, type] = {"train": TrainConfig, "method": kind.Config, "backbone": family.Config}
    if not kind.trains:
        raise InputError(f"a plan must be of a method that trains; {asked.method} only answers. Plan another.")
    given = place_settings(asked.settings, owners)
    train, method_config, backbone_config = (make_config(owner, given[name]) for name, owner in owners.items())
    share, rest = divmod(train.batch_size, asked.gpus * train.gradient_accumulation)
    if rest or not share:
        raise InputError(
            f"batch_size must be a multiple of gpus × gradient_accumulation = "
            f"{asked.gpus * train.gradient_accumulation}; got {train.batch_size}."
        )
    found = _Planner(asked, family, config, kind(method_config), train, backbone_config).plan(share)
    if not advise:
        return found
    advice = "" if found.fits else _advice(asked, train)
    return dataclasses.replace(found, advice=advice, refused=_refused(asked, kind, method_config))


def _refused(asked: Asked, kind: type[Method], config: MethodConfig) -> str:
    """Why training would refuse the strategy; "" where it would not."""
    request = Request(asked.benchmark, asked.method, processes=asked.gpus, strategy=asked.strategy)
    try:
        check_strategy(request, kind, config)
    except InputError as error:
        return str(error)
    return ""


def _advice(asked: Asked, train: TrainConfig) -> str:
    """The fewest changes, of those tried in turn, that make a run fit."""
    most = train.batch_size // asked.gpus
    changes: dict[str, Any] = {"gradient_checkpointing": True, "gradient_accumulation": most, "weights": "nf4"}
    settings = dict(asked.settings)
    for name, value in changes.items():
        settings[name] = value
        found = plan(dataclasses.replace(asked, settings=dict(settings)), advise=False)
        if found.fits:
            given = " ".join(f"--set {key}={settings[key]}" for key in changes if key in settings)
            return f"{given} would fit, with {found.gigabytes_per_gpu['total']:.1f} GB."
    if asked.strategy != "fsdp" and asked.gpus > 1:
        return _advice(dataclasses.replace(asked, strategy="fsdp"), train).replace("--set", "--strategy fsdp --set", 1)
    return f"No setting known here brings it below {ROOM * asked.gpu_gigabytes:.0f} GB: take GPUs with more memory."


def find_backbone(name: str, settings: Mapping[str, Any]) -> tuple[type[Backbone], PreTrainedConfig]:
    """The family and architecture of a named size, or of a family's checkpoint.

    Raises:
        InputError: neither is known.
    """
    families = {
        each: registry.load_class("same.backbones", each, Backbone) for each in registry.names("same.backbones")
    }
    sizes = {size: family for family in families.values() for size in family.SIZES}
    if name in sizes:
        return sizes[name], AutoConfig.for_model(**sizes[name].SIZES[name])
    family = families[registry.choose("backbone", name, sorted([*families, *sizes]))]
    return family, family.load_config(family.Config(checkpoint=str(settings.get("checkpoint") or "")))


class _Planner:
    """One plan in the making: the model without weights, and the settings that say what is done with it."""

    def __init__(
        self,
        asked: Asked,
        family: type[Backbone],
        config: PreTrainedConfig,
        method: Method,
        train: TrainConfig,
        backbone_config: Backbone.Config,
    ) -> None:
        self.asked, self.family, self.train = asked, family, train
        self.benchmark = load_benchmark(asked.benchmark).first(asked.tasks)
        with torch.device("meta"):
            self.base: PreTrainedModel = AutoModelForImageTextToText.from_config(config, attn_implementation=ATTENTION)
        dtype = torch.bfloat16 if "bf16" in (train.precision, backbone_config.weights) else torch.float32
        self.base.to(dtype).requires_grad_(False)
        self.parameters = sum(parameter.numel() for parameter in self.base.parameters())
        self.weights = stored_bytes(self.base, backbone_config.weights)
        self.method = method
        self.model = self.method.attach(self.base, family.layout(backbone_config))
        self.adapter = sum(p.nbytes for p in self.model.parameters() if p.requires_grad)
        self.trainable = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.length = asked.length or family.image_tokens(config) + TEXT

    def plan(self, rows: int) -> Plan:
        """Put the parts together for so many rows on each GPU at a time."""
        needs = self.method.needs()
        traced = trace(self.base, rows, self.length, self.train.gradient_checkpointing)
        parts = self._parts(traced, needs)
        total, room = sum(parts.values()), ROOM * self.asked.gpu_gigabytes
        items = [self.asked.train_items or task.train_items for task in self.benchmark.tasks]
        known = [count for count in items if count]
        guessed = f"; {len(items) - len(known)} taken to have as many on average" if 0 < len(known) < len(items) else ""
        seen = self.family.image_tokens(self.base.config)
        towers = sum(p.numel() for name, p in self.base.named_parameters() if "vision" in name or "visual" in name)
        row = traced.flops / rows + 2 * seen * towers
        operations = row * sum(known) * len(items) / max(1, len(known)) * self.train.epochs
        seconds = operations / (self.asked.gpus * self.asked.teraflops * 1e12)
        one = self._adapter_file() + needs.snapshot
        snapshots = [(one + needs.snapshot_per_task * count) / 1e6 for count in range(1, len(items) + 1)]
        return Plan(
            parameters=self.parameters,
            trainable=self.trainable,
            gigabytes_per_gpu={**{name: round(value, 4) for name, value in parts.items()}, "total": round(total, 4)},
            megabytes_sent_per_step=round(self._sent() / 1e6, 1),
            snapshot_megabytes=round(sum(snapshots), 1),
            task_megabytes=[round(size, 3) for size in snapshots],
            gigaflops_per_row=row / 1e9,
            hours=round(seconds / 3600, 2) if known else None,
            fits=total <= room,
            advice="",
            assumed={
                "rows_per_gpu": rows,
                "tokens_per_row": self.length,
                "training_rows": f"{sum(known):,} in {len(known)} of {len(items)} tasks{guessed}",
                "teraflops_per_gpu": self.asked.teraflops,
                "architecture": self._architecture(),
                "free": "a tenth of each GPU for fragments and the runtime",
            },
        )

    def _architecture(self) -> str:
        if self.asked.backbone in self.family.SIZES:
            return "unverified: written down here, not read from the checkpoint; it has the published parameters"
        return "read from the checkpoint"

    def _parts(self, traced: Traced, needs: Needs) -> dict[str, float]:
        gpus, strategy = self.asked.gpus, self.asked.strategy
        weights = self.weights / gpus if strategy == "fsdp" else self.weights
        if strategy == "fsdp":  # two blocks are whole at a time: the one at work and the next
            weights += 2 * self.weights / max(1, self._blocks())
        adapter = self.adapter / gpus if strategy == "fsdp" else self.adapter
        shared = 1 if strategy == "ddp" else gpus
        moments = {"adamw": 2.0, "sgd": 0.0, "adamw_8bit": 0.5}[self.train.optimizer] * self.adapter
        if self.train.optimizer == "adamw_8bit":  # but 32 bits for routers
            moments += 1.5 * sum(layer.router.nbytes for layer in moe_layers(self.model).values())
        sizes = {
            "weights": weights,
            "adapter": adapter,
            "gradients": self.adapter / shared,
            "optimiser": moments / shared,
            "statistics": needs.device + needs.device_per_task * len(self.benchmark.tasks),
            "activations": traced.saved,
            "logits": traced.logits,
            "buckets": self.adapter if gpus > 1 and strategy == "ddp" else 0,
        }
        return {name: size / GIGABYTE for name, size in sizes.items()}

    def _blocks(self) -> int:
        return sum(len(module) for module in self.base.modules() if isinstance(module, nn.ModuleList))

    def _sent(self) -> float:
        """Bytes one GPU sends in a step, with ring algorithms."""
        gpus = self.asked.gpus
        ring = (gpus - 1) / gpus
        if self.asked.strategy == "fsdp":  # weights gathered twice, gradients scattered
            return ring * (2 * (self.weights + self.adapter) + self.adapter)
        return 2 * ring * self.adapter

    def _adapter_file(self) -> int:
        if not isinstance(self.model, PeftModel):
            return 0
        return sum(tensor.nbytes for tensor in get_peft_model_state_dict(self.model).values())


def stored_bytes(model: nn.Module, weights: str) -> int:
    """Bytes of the backbone's weights as they are stored: quantised ones are those of linear layers but the last."""
    each = {"fp32": 4.0, "bf16": 2.0, "int8": 1.0, "nf4": 0.5 + 4 / 64}[weights]  # nf4: a float32 scale for each 64
    last = getattr(model, "get_output_embeddings", lambda: None)()
    wide = [m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear) and m is not last]
    rest = sum(parameter.numel() for parameter in model.parameters()) - sum(wide)
    return round(sum(wide) * each + rest * max(each, 2.0))


class Saved(torch.autograd.graph.saved_tensors_hooks):
    """Counts bytes that forward passes inside keep for their backward, each storage once, the model's own left out."""

    def __init__(self, model: nn.Module) -> None:
        self._weights = {_storage(parameter) for parameter in model.parameters()}
        self._kept: dict[int, Tensor] = {}
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        if _storage(tensor) not in self._weights:
            self._kept[_storage(tensor)] = tensor  # held, so that no other storage takes its place
        return tensor

    @property
    def bytes(self) -> int:
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def trace(model: PreTrainedModel, rows: int, length: int, checkpointing: bool) -> Traced:
    """Run the language model's training step on shapes alone.

    Args:
        model: on the meta device, with its adapters.
        checkpointing: blocks keep their inputs only and are run again.
    """
    language: Any = model.model.language_model
    width = language.config.hidden_size
    inputs = torch.empty(rows, length, width, dtype=model.dtype, device="meta", requires_grad=True)
    mask = torch.empty(rows, 1, length, length, dtype=torch.bool, device="meta")
    if checkpointing:
        language.activation_checkpointing_enable({"use_reentrant": False})
    language.train()
    saved = Saved(model)
    with FlopCounterMode(display=False) as counter:
        with saved:
            hidden = language(inputs_embeds=inputs, attention_mask=mask, use_cache=False).last_hidden_state
            logits = model.get_output_embeddings()(hidden)
        loss = functional.cross_entropy(
            logits.float().flatten(0, 1), torch.empty(rows * length, dtype=torch.long, device="meta")
        )
        loss.backward()
    return Traced(saved.bytes, logits.nbytes + 2 * 4 * logits.numel(), counter.get_total_flops())
