"""A full training step of SAME beside that of plain routed experts, in a second task, where all rules are at work."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from transformers import LlamaConfig, LlamaForCausalLM

from same import registry
from same.backbones import load_backbone
from same.backbones._layout import Group, Layers
from same.engine.bench._pairs import interleaved, median_ratio
from same.methods._base import Batch, Method, Step, TaskContext
from same.methods._stabilised import StabilisedMethod

PLAIN = "moelora"  # routed experts and nothing else
NOTHING_RESTS = {"freeze_threshold": -1.0}  # scores are computed, but no expert is left out


@dataclass(frozen=True)
class Config:
    """What is measured.

    Args:
        model: "tiny" the embedded backbone; "wide" two blocks of LLaMA-7B's width with random weights.
        rows: of a batch.
        length: tokens a row.
        steps: of the second task, so that refreshes and freezing decisions fall where they do in training.
        rounds: of those steps; medians of their ratios are given.
    """

    model: Literal["tiny", "wide"] = "tiny"
    rows: int = 16
    length: int = 128
    steps: int = 20
    rounds: int = 5


WIDE = Layers({"ffn": Group(r".*layers\.\d+\.mlp\.(gate_proj|up_proj|down_proj)")})  # of a bare LLaMA


def run(config: Config | None = None) -> dict[str, Any]:
    """Measure; `same_over_moelora` and `same_plus_over_moelora` are medians of paired ratios."""
    config = config or Config()
    torch.manual_seed(0)
    base, layout = _base(config)
    vocabulary = base.get_input_embeddings().num_embeddings
    ids = torch.randint(10, vocabulary, (config.rows, config.length))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids.clone()}
    kinds = {name: registry.load_class("same.methods", name, Method) for name in registry.names("same.methods")}
    compared = [PLAIN, *(name for name, kind in kinds.items() if issubclass(kind, StabilisedMethod))]
    calls = {name: _training(kinds[name], copy.deepcopy(base), layout, batch, config) for name in compared}
    times = interleaved(calls, config.rounds, note=f"{config.steps} steps, {config.model}")
    seconds = {name: round(statistics.median(found) / config.steps, 5) for name, found in times.items()}
    ratios = {f"{name}_over_{PLAIN}": round(median_ratio(times[name], times[PLAIN]), 3) for name in compared[1:]}
    return {"settings": asdict(config), "seconds_a_step": seconds, **ratios}


def _base(config: Config) -> tuple[Any, Layers]:
    if config.model == "tiny":
        loaded = load_backbone("tiny")
        return loaded.model, loaded.layout
    llama = LlamaConfig(
        vocab_size=1_000, hidden_size=4096, intermediate_size=11_008, num_hidden_layers=2, num_attention_heads=32
    )
    return LlamaForCausalLM(llama).eval(), WIDE


def _training(kind: type[Method], base: nn.Module, layout: Any, batch: Batch, config: Config) -> Callable[[], None]:
    """A call that trains some steps of the second task."""
    method = kind(kind.Config(**(NOTHING_RESTS if issubclass(kind, StabilisedMethod) else {})))
    model = method.attach(base, layout).train()
    method.begin_task(TaskContext(0, "first", 2, 1))
    _steps(method, model, batch, 1)
    method.end_task(TaskContext(0, "first", 2, 1))

    def once() -> None:
        task = TaskContext(1, "second", 2, config.steps)
        method.begin_task(task)
        _steps(method, model, batch, config.steps)

    return once


def _steps(method: Method, model: nn.Module, batch: Batch, count: int) -> None:
    """As the trainer does: forward, backward, clipping, the optimiser with the method's hooks."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = AdamW(parameters, 1e-4)
    numbers = iter(range(count)), iter(range(count))
    optimizer.register_step_pre_hook(lambda *_: method.before_step(Step(optimizer, next(numbers[0]), count)))
    optimizer.register_step_post_hook(lambda *_: method.after_step(Step(optimizer, next(numbers[1]), count)))
    for _ in range(count):
        optimizer.zero_grad(set_to_none=True)
        with method.forward_context(batch):
            loss: Tensor = method.loss(model(**batch).loss, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
