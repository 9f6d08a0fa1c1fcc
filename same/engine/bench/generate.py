"""Answering many questions at once with cached keys, beside one at a time, on the embedded backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from same.backbones import load_backbone
from same.data import mini
from same.engine.bench._pairs import interleaved, median_ratio


@dataclass(frozen=True)
class Config:
    """What is measured.

    Args:
        task: the embedded task whose questions are asked.
        questions: how many.
        batch: of the batched run.
        max_new_tokens: of each answer.
        repeats: rounds; the median is given.
    """

    task: str = "vqav2"
    questions: int = 64
    batch: int = 64
    max_new_tokens: int = 8
    repeats: int = 3


def run(config: Config | None = None) -> dict[str, Any]:
    """Measure samples a second of both, and their ratio `batched_over_single`."""
    config = config or Config()
    loaded = load_backbone("tiny")
    processor: Any = loaded.processor
    samples = [mini.sample(config.task, "test", index, 0) for index in range(config.questions)]
    texts = [f"USER: <image>\n{sample.question} ASSISTANT:" for sample in samples]

    def answer(size: int) -> Callable[[], None]:
        model: Any = loaded.model
        batches = [
            processor(
                images=[sample.image for sample in samples[start : start + size]],
                text=texts[start : start + size],
                return_tensors="pt",
                padding=True,
                padding_side="left",
            )
            for start in range(0, len(samples), size)
        ]

        @torch.no_grad()
        def once() -> None:
            for batch in batches:
                # Every answer runs to its last token, so that both sides do the same work.
                model.generate(
                    **batch,
                    do_sample=False,
                    min_new_tokens=config.max_new_tokens,
                    max_new_tokens=config.max_new_tokens,
                    pad_token_id=processor.tokenizer.pad_token_id,
                )

        return once

    times = interleaved({"batched": answer(config.batch), "single": answer(1)}, config.repeats, note="generate")
    per_second = {name: round(config.questions / sorted(found)[len(found) // 2], 2) for name, found in times.items()}
    ratio = round(median_ratio(times["single"], times["batched"]), 2)
    return {"settings": asdict(config), "samples_per_second": per_second, "batched_over_single": ratio}
