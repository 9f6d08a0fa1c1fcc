"""A full training step of SAME beside that of plain routed experts, in a second task, where all rules are at work."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from same.backbones import load_backbone
from same.backbones._layout import Group, Layers
from same.engine.bench._pairs import clock, interleaved, median_ratio
from same.engine.bench._second_task import PLAIN, SecondTask, random_batch, stabilised

NOTHING_RESTS = {"freeze_threshold": -1.0}  # scores are computed, but no expert is left out


@dataclass(frozen=True)
class Config:
    """What is measured.

    Args:
        model: "tiny" the embedded backbone; "wide" two blocks of LLaMA-7B's width with random weights; or both.
        rows: of a batch of the embedded backbone.
        rounds: steps of each method on it, interleaved, fewer than `refresh_steps`; medians of their ratios are given.
        wide_rows: of a batch of the wide one.
        wide_rounds: steps of each method on it.
        length: tokens a row.
        width: hidden width of the wide one; its FFN is 2.6875 times as wide.
        precision: of the wide one's products; adapters are float32.
    """

    model: Literal["tiny", "wide", "both"] = "both"
    rows: int = 16
    rounds: int = 40
    wide_rows: int = 8
    wide_rounds: int = 5
    length: int = 128
    width: int = 4096
    precision: Literal["fp32", "bf16"] = "bf16"


WIDE = Layers({"ffn": Group(r".*layers\.\d+\.mlp\.(gate_proj|up_proj|down_proj)")})  # of a bare LLaMA


def run(config: Config | None = None) -> dict[str, Any]:
    """Measure; `same_over_moelora` and `same_plus_over_moelora` of each model, and the larger of each on top.

    What falls on few steps (a refresh of the running geometry, a score of the experts) is timed apart and counted by
    its share: once in `refresh_steps`, once in `freeze_every`.
    """
    config = config or Config()
    models = ("tiny", "wide") if config.model == "both" else (config.model,)
    found = {model: _measure(config, model) for model in models}
    ratios = [f"{name}_over_{PLAIN}" for name in stabilised()]
    return {
        "settings": asdict(config),
        "models": found,
        **{ratio: max(measured[ratio] for measured in found.values()) for ratio in ratios},
    }


def _measure(config: Config, model: str) -> dict[str, Any]:
    torch.manual_seed(0)
    wide = model == "wide"
    base, layout = _wide(config) if wide else _tiny()
    batch = random_batch(base, config.wide_rows if wide else config.rows, config.length)
    precision, rounds = (config.precision, config.wide_rounds) if wide else ("fp32", config.rounds)
    names = (PLAIN, *stabilised())
    trained = {}
    for name in names:
        settings = {} if name == PLAIN else NOTHING_RESTS
        # So long a task that scores fall outside the steps timed; they are added by their share.
        steps = 100 * (rounds + 2)
        trained[name] = SecondTask(name, base, layout, batch, steps=steps, settings=settings, precision=precision)
        trained[name].step()  # the first refresh
    times = interleaved({name: task.step for name, task in trained.items()}, rounds, note=f"steps, {model}")
    found: dict[str, Any] = {"seconds_a_step": {name: round(statistics.median(times[name]), 5) for name in names}}
    plain = statistics.median(times[PLAIN])
    for name in names[1:]:
        rare, kept = _rare(trained[name]), trained[name].kept_bytes()
        trained[name].end()
        ratio = median_ratio(times[name], times[PLAIN]) + sum(part["a_step"] for part in rare.values()) / plain
        found |= {
            f"{name}_over_{PLAIN}": round(ratio, 4),
            f"{name}_rare": rare,
            f"{name}_bytes_kept_after_tasks": {"1": kept, "2": trained[name].kept_bytes()},
        }
    return found


def _rare(task: SecondTask) -> dict[str, dict[str, float]]:
    """Seconds of what falls on few steps, and a step's share of them."""
    method = task.method
    found = {"score": (_seconds(lambda: method.score_experts(1)), method.config.freeze_every)}
    if method.config.router_geometry == "running":
        found["refresh"] = _seconds(method.refresh), method.config.refresh_steps
    return {
        name: {"seconds": round(took, 5), "a_step": round(took / every, 6)} for name, (took, every) in found.items()
    }


def _seconds(call: Callable[[], object], repeats: int = 3) -> float:
    took = []
    for _ in range(repeats):
        start = clock()
        call()
        took.append(clock() - start)
    return statistics.median(took)


def _tiny() -> tuple[Any, Any]:
    loaded = load_backbone("tiny")
    return loaded.model, loaded.layout


def _wide(config: Config) -> tuple[Any, Any]:
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    llama = LlamaConfig(
        vocab_size=1_000,
        hidden_size=config.width,
        intermediate_size=config.width * 43 // 16,
        num_hidden_layers=2,
        num_attention_heads=config.width // 128,
    )
    model = AutoModelForCausalLM.from_config(llama, dtype=dtype)
    return model.requires_grad_(False).eval(), WIDE
