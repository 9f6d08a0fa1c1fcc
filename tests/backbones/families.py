"""Tiny random checkpoints of every family, written in Hugging Face layout with the family's own tokens and template."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPImageProcessorPil,
    GenerationConfig,
    LlamaTokenizer,
    LlavaProcessor,
    PreTrainedTokenizerBase,
    Qwen2Tokenizer,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

CORPUS = [
    "What colour is it? Which letter does the colour begin with? How many letters has it?",
    "red green blue white",
]
PARTS = (
    "{%% if message['content'] is string %%}{{ message['content'] }}{%% else %%}{%% for part in message['content'] %%}"
    "{%% if part['type'] == 'image' %%}{{ '%s' }}{%% else %%}{{ part['text'] }}{%% endif %%}{%% endfor %%}{%% endif %%}"
)
LLAVA_TEMPLATE = (  # no end of text, as the public checkpoint's
    "{% for message in messages %}{{ message['role'] | upper + ': ' }}"
    + PARTS % "<image>\\n"
    + "{{ ' ' }}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def _chat_template(picture: str, system: str = "") -> str:
    """The turns of the Qwen and InternVL families."""
    first = (
        "{%% if loop.first and message['role'] != 'system' %%}{{ '<|im_start|>system\\n%s<|im_end|>\\n' }}{%% endif %%}"
    )
    return (
        "{% for message in messages %}"
        + (first % system if system else "")
        + "{{ '<|im_start|>' + message['role'] + '\\n' }}"
        + PARTS % picture
        + "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )


def _qwen_tokenizer(*more: str) -> PreTrainedTokenizerBase:
    tokenizer = Qwen2Tokenizer().train_new_from_iterator(CORPUS, 400, show_progress=False)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *more]})
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    return tokenizer


def _llama_tokenizer() -> PreTrainedTokenizerBase:
    """Bytes, and the letters as single tokens; begins each text with <s>, as LLaVA's does."""
    letters = sorted({letter for text in CORPUS for letter in text if letter != " "} | set("UASERINT:"))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *letters]
    vocab = {token: index for index, token in enumerate(tokens)}
    tokenizer = LlamaTokenizer(vocab=vocab, merges=[], add_bos_token=True)
    tokenizer.add_special_tokens({"pad_token": "<pad>", "additional_special_tokens": ["<image>"]})
    return tokenizer


def _text(tokenizer: PreTrainedTokenizerBase, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 512,
        "initializer_range": 0.3,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **more,
    }


def _llava(folder: Path) -> dict[str, Any]:
    tokenizer = _llama_tokenizer()
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=LLAVA_TEMPLATE,
    ).save_pretrained(folder)
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {
        "text_config": {"model_type": "llama", **_text(tokenizer)},
        "vision_config": {"model_type": "clip_vision_model", **vision, "image_size": 64, "patch_size": 16},
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "image_seq_length": 16,
    }


def _qwen(folder: Path, patch: int, system: str, rotary: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    marks = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
    tokenizer = _qwen_tokenizer(*marks)
    tokenizer.save_pretrained(folder)
    cell = (2 * patch) ** 2
    Qwen2VLImageProcessorPil(
        patch_size=patch, size={"shortest_edge": 9 * cell, "longest_edge": 16 * cell}
    ).save_pretrained(folder)
    template = _chat_template("<|vision_start|><|image_pad|><|vision_end|>", system)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    start, end, image, video = tokenizer.convert_tokens_to_ids(marks)
    tower = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32}
    return {
        "text_config": _text(tokenizer, rope_parameters={"rope_type": "default", "rope_theta": 1e4, **rotary}),
        "vision_config": {**tower, "patch_size": patch, "initializer_range": 0.3, **vision},
        "image_token_id": image,
        "video_token_id": video,
        "vision_start_token_id": start,
        "vision_end_token_id": end,
    }


def _qwen2_5_vl(folder: Path) -> dict[str, Any]:
    vision = {"window_size": 56, "fullatt_block_indexes": [1]}
    return _qwen(folder, 14, "You are a helpful assistant.", {"mrope_section": [2, 3, 3]}, vision)


def _qwen3_vl(folder: Path) -> dict[str, Any]:
    rotary = {"mrope_section": [4, 2, 2], "mrope_interleaved": True}
    made = _qwen(folder, 16, "", rotary, {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]})
    made["text_config"]["head_dim"] = 16
    return made


def _internvl(folder: Path) -> dict[str, Any]:
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    tokenizer = _qwen_tokenizer(*named.values(), "<video>")
    tokenizer.save_pretrained(folder)
    named["video_token"] = "<video>"
    Qwen2Tokenizer.from_pretrained(folder, extra_special_tokens=named).save_pretrained(folder)
    GotOcr2ImageProcessorPil(
        size={"height": 32, "width": 32}, crop_to_patches=True, min_patches=1, max_patches=4
    ).save_pretrained(folder)
    (folder / "processor_config.json").write_text('{"image_seq_length": 4, "processor_class": "InternVLProcessor"}')
    (folder / "chat_template.jinja").write_text(_chat_template("<IMG_CONTEXT>\\n"), encoding="utf-8")
    vision = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    return {
        "text_config": {"model_type": "qwen2", **_text(tokenizer)},
        "vision_config": {**vision, "image_size": [32, 32], "patch_size": [8, 8], "initializer_range": 0.3},
        "image_token_id": tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        "image_seq_length": 4,
    }


WRITERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "llava": _llava,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "internvl": _internvl,
}
"""By transformers' name of the architecture."""

BACKBONES = {"llava": "llava", "qwen2_5_vl": "qwen_vl", "qwen3_vl": "qwen_vl", "internvl": "internvl"}
"""The plug-in that loads each architecture."""


def write_checkpoint(model_type: str, folder: Path) -> Path:
    """Write a random checkpoint of an architecture, the same every time, and give its folder."""
    torch.manual_seed(0)
    about = WRITERS[model_type](folder)
    config = AutoConfig.for_model(model_type, tie_word_embeddings=False, **about)
    model = AutoModelForImageTextToText.from_config(config)
    model.generation_config = GenerationConfig(
        eos_token_id=config.text_config.eos_token_id, pad_token_id=config.text_config.pad_token_id
    )
    model.save_pretrained(folder)
    return folder
