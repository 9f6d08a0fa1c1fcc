"""What experts at rest save over a whole task of the embedded backbone, in time and in memory."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any

import torch
from tqdm.auto import tqdm

from same.backbones import load_backbone
from same.engine.bench._pairs import clock, saved_bytes
from same.engine.bench._second_task import PLAIN, SecondTask, random_batch

RESTING = (0, 4, 7)  # of eight experts


@dataclass(frozen=True)
class Config:
    """What is measured: the second task, whose experts all train until the warm-up ends.

    Args:
        method: that freezes.
        steps: of the task.
        warmup: share of them before experts rest.
        rows: of a batch.
        length: tokens a row.
    """

    method: str = "same"
    steps: int = 60
    warmup: float = 0.1
    rows: int = 16
    length: int = 128


def run(config: Config | None = None) -> dict[str, Any]:
    """Measure tasks with 0, 4 and 7 of 8 experts at rest, and one whose scores decide, their steps interleaved.

    `over_none` is the time of the whole task over that of the task in which none rests; `adapter_over_none` the same
    for what a step takes beyond the frozen model's.
    """
    config = config or Config()
    torch.manual_seed(0)
    loaded = load_backbone("tiny")
    batch = random_batch(loaded.model, config.rows, config.length)
    settings = {"freeze_warmup": config.warmup, "freeze_every": config.steps}

    def task(**more: Any) -> SecondTask:
        steps = config.steps + 1  # the first is not timed
        return SecondTask(config.method, loaded.model, loaded.layout, batch, steps=steps, settings={**settings, **more})

    tasks = {f"{count} of 8": task(freeze_threshold=-1.0) for count in RESTING} | {"by score": task()}
    plain = SecondTask(PLAIN, loaded.model, loaded.layout, batch, steps=config.steps)
    frozen = _Frozen(plain)
    calls = {**{name: each.step for name, each in tasks.items()}, "frozen model": frozen.step}
    for call in calls.values():
        call()
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in tqdm(range(config.steps), desc="freezing", leave=False):
        if number == round(config.warmup * config.steps):
            for count in RESTING:
                _rest(tasks[f"{count} of 8"], count)
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            start = clock()
            calls[name]()
            seconds[name].append(clock() - start)
    return {"settings": asdict(config), "rows": [_row(name, tasks, seconds) for name in tasks]}


class _Frozen:
    """Forward and backward of the model without its experts, down to the first adapted layer's input."""

    def __init__(self, task: SecondTask) -> None:
        self.task = task
        model: Any = task.model
        self.embedding = model.get_input_embeddings().weight.detach()[task.batch["input_ids"]]

    def step(self) -> None:
        model: Any = self.task.model
        with model.disable_adapter():
            inputs = self.embedding.clone().requires_grad_()
            names = ("attention_mask", "labels")
            model(inputs_embeds=inputs, **{name: self.task.batch[name] for name in names}).loss.backward()


def _rest(task: SecondTask, count: int) -> None:
    """Let the first `count` experts of each layer rest."""
    mask = torch.arange(task.method.config.num_experts) >= count
    task.method.set_active(mask.expand(len(task.method.layers), -1).clone())
    task.method.park_moments(task.optimizer)


def _row(name: str, tasks: dict[str, SecondTask], seconds: dict[str, list[float]]) -> dict[str, Any]:
    task, none, frozen = tasks[name], sum(seconds["0 of 8"]), sum(seconds["frozen model"])
    took = sum(seconds[name])
    return {
        "resting": name,
        "active_experts": task.method.active.sum(-1).tolist(),
        "task_seconds": round(took, 3),
        "over_none": round(took / none, 4),
        "adapter_over_none": round((took - frozen) / (none - frozen), 4),
        "step_seconds_at_the_end": round(statistics.median(seconds[name][len(seconds[name]) // 2 :]), 5),
        "gradient_bytes": task.gradient_bytes(),
        "optimizer_bytes": task.optimizer_bytes(),
        "saved_activation_bytes": saved_bytes(task.forward, task.model),
    }
