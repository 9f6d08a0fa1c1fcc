"""Answering many questions at once with cached keys, beside one at a time, on the embedded backbone."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from same import registry
from same.backbones import load_backbone
from same.data import mini
from same.engine.bench._pairs import interleaved, median_ratio
from same.methods._base import Method


@dataclass(frozen=True)
class Config:
    """What is measured.

    Args:
        task: the embedded task whose questions are asked.
        questions: how many.
        batch: of the batched run.
        max_new_tokens: of each answer.
        repeats: rounds; the median is given.
        lengths: of answers, in the table beside it: from the prompt alone to a caption.
        method: whose experts stand beside the backbone in the rows `with_experts`, as they do in an evaluation.
    """

    task: str = "vqav2"
    questions: int = 64
    batch: int = 64
    max_new_tokens: int = 8
    repeats: int = 3
    lengths: tuple[int, ...] = (1, 8, 16, 28)
    method: str = "same"


def run(config: Config | None = None) -> dict[str, Any]:
    """Measure samples a second of both, and their ratio `batched_over_single`: of the backbone alone.

    `rows` has that ratio for answers of several lengths, without and with experts beside the backbone.
    """
    config = config or Config()
    loaded = load_backbone("tiny")
    samples = [mini.sample(config.task, "test", index, 0) for index in range(config.questions)]
    asked = {size: _batches(loaded.processor, samples, size) for size in (config.batch, 1)}
    end = loaded.processor.tokenizer.pad_token_id
    rows = []
    for length in dict.fromkeys((config.max_new_tokens, *config.lengths)):
        rows.append({"with_experts": False, **_ratio(config, loaded.model, asked, length, end)})
    kind = registry.load_class("same.methods", config.method, Method)
    model = kind(kind.Config()).attach(loaded.model, loaded.layout).eval()
    for length in config.lengths:
        rows.append({"with_experts": True, **_ratio(config, model, asked, length, end)})
    return {
        "settings": asdict(config),
        "samples_per_second": rows[0]["samples_per_second"],
        "batched_over_single": rows[0]["batched_over_single"],
        "rows": rows,
    }


def _batches(processor: Any, samples: list[Any], size: int) -> list[Any]:
    texts = [f"USER: <image>\n{sample.question} ASSISTANT:" for sample in samples]
    return [
        processor(
            images=[sample.image for sample in samples[start : start + size]],
            text=texts[start : start + size],
            return_tensors="pt",
            padding=True,
            padding_side="left",
        )
        for start in range(0, len(samples), size)
    ]


def _ratio(config: Config, model: Any, asked: dict[int, list[Any]], length: int, end: int) -> dict[str, Any]:
    def answer(size: int) -> Callable[[], None]:
        @torch.no_grad()
        def once() -> None:
            for batch in asked[size]:
                # Every answer runs to its last token, so that both sides do the same work.
                model.generate(**batch, do_sample=False, min_new_tokens=length, max_new_tokens=length, pad_token_id=end)

        return once

    calls = {"batched": answer(config.batch), "single": answer(1)}
    times = interleaved(calls, config.repeats, note=f"generate {length}")
    per_second = {name: round(config.questions / statistics.median(found), 2) for name, found in times.items()}
    ratio = round(median_ratio(times["single"], times["batched"]), 2)
    return {"new_tokens": length, "samples_per_second": per_second, "batched_over_single": ratio}
