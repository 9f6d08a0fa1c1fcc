"""Fixtures shared by tests of tuner, methods and engine: a LLaVA small enough to build in every test."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="write the golden run's numbers again")


@pytest.fixture
def make_llava() -> Callable[..., Any]:
    """A factory of randomly initialised LLaVAs (two blocks, width 16, FFN 24), equal for equal seeds."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    def make(seed: int = 0) -> Any:
        torch.manual_seed(seed)
        vision = CLIPVisionConfig(
            hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
        )
        text = LlamaConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=2,
            initializer_range=0.2,
            pad_token_id=0,
            bos_token_id=None,
            eos_token_id=1,
        )
        config = LlavaConfig(vision_config=vision, text_config=text, image_token_id=39, vision_feature_layer=-1)
        return LlavaForConditionalGeneration(config).eval().requires_grad_(False)

    return make


@pytest.fixture
def make_batch() -> Callable[..., dict[str, torch.Tensor]]:
    """A factory of right-padded text batches (keys of a collator) with three rows of different lengths."""

    def make(seed: int = 0, rows: int = 3, length: int = 10) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        tokens = torch.randint(2, 39, (rows, length), generator=generator)
        mask = torch.arange(length)[None] < (length - 2 * torch.arange(rows))[:, None]
        return {
            "input_ids": tokens * mask,
            "attention_mask": mask.long(),
            "labels": torch.where(mask, tokens, -100),
        }

    return make


@pytest.fixture(scope="session")
def family_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a tiny random checkpoint of an architecture, such as "qwen3_vl"; not to be changed."""
    from tests.backbones.families import write_checkpoint

    @cache
    def folder(model_type: str) -> Path:
        return write_checkpoint(model_type, tmp_path_factory.mktemp(model_type))

    return folder
