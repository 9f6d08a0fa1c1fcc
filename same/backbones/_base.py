"""What every backbone family answers: how it is loaded, which layers are adapted, which of them share an input."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    ProcessorMixin,
)

from same.backbones._layout import Group, Layers
from same.errors import InputError
from same.registry import require_extra

Target = Literal["ffn", "attention", "vision_ffn", "vision_attention"]
Weights = Literal["fp32", "bf16", "int8", "nf4"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}  # of what is not quantised: bf16 where the rest is


@dataclass(frozen=True)
class Loaded:
    """A backbone ready for use.

    Args:
        model: the pretrained network with frozen weights, in evaluation mode.
        processor: tokenizer, picture preparation and chat template.
        name: the backbone's plug-in name.
        digest: SHA-256 of the checkpoint's configuration and weight files (first 16 hexadecimal digits).
        backbone: the family.
        layout: the layers to adapt and what they read.
    """

    model: PreTrainedModel
    processor: ProcessorMixin
    name: str
    digest: str
    backbone: type[Backbone]
    layout: Layers


class Backbone:
    """One family of multimodal language models in Hugging Face layout."""

    name: ClassVar[str]
    title: ClassVar[str]
    SHIPPED: ClassVar[str] = ""  # the checkpoint used when none is named
    MODEL_TYPES: ClassVar[tuple[str, ...]] = ("llava",)  # what transformers calls the family's architectures
    SIZES: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # by name: what AutoConfig.for_model makes a public size of
    LANGUAGE: ClassVar[Mapping[Target, Group]] = {
        "ffn": Group(r".*language_model\.layers\.\d+\.mlp\.(gate_proj|up_proj|down_proj)"),
        "attention": Group(r".*language_model\.layers\.\d+\.self_attn\.(q_proj|k_proj|v_proj|o_proj)"),
    }
    GROUPS: ClassVar[Mapping[Target, Group]] = {
        **LANGUAGE,
        "vision_ffn": Group(r".*vision_tower\..*layers\.\d+\.mlp\.(fc1|fc2)", padded=False),
        "vision_attention": Group(
            r".*vision_tower\..*layers\.\d+\.self_attn\.(q_proj|k_proj|v_proj|out_proj)", padded=False
        ),
    }

    @dataclass(frozen=True)
    class Config:
        """How a backbone is loaded, and which of its layers are adapted.

        Args:
            checkpoint: a folder (or hub name) in Hugging Face layout.
            weights: ``fp32``, ``bf16``, or quantised by bitsandbytes (extra ``quantised``): ``int8``, or ``nf4`` with
                products in bf16. The quantised ones were not run on GPUs by us.
            targets: groups of linear layers to adapt, in the language model and in the vision tower. Of a tower whose
                last blocks the model does not use (LLaVA-1.5 leaves out one), these are adapted but never change.
        """

        checkpoint: str = ""
        weights: Weights = "fp32"
        targets: tuple[Target, ...] = ("ffn",)

        def __post_init__(self) -> None:
            if self.weights not in get_args(Weights):
                raise InputError(f"weights must be one of {', '.join(get_args(Weights))}; got {self.weights!r}.")
            choices = get_args(Target)
            if not self.targets or not set(self.targets) <= set(choices):
                raise InputError(
                    f"targets must be some of {', '.join(choices)}; got {', '.join(self.targets) or 'none'}."
                )
            object.__setattr__(self, "targets", tuple(name for name in choices if name in self.targets))

        def check_packages(self) -> None:
            """Raise InputError if a package that loading needs is not installed; planning needs none."""
            if self.weights not in DTYPES:
                require_extra("bitsandbytes", "quantised", f"weights={self.weights}")

    @classmethod
    def layout(cls, config: Config) -> Layers:
        """The layers that a configuration adapts.

        Raises:
            InputError: the family has no such group.
        """
        missing = [name for name in config.targets if name not in cls.GROUPS]
        if missing:
            raise InputError(
                f"targets of backbone {cls.name} must be some of {', '.join(cls.GROUPS)}; got {missing[0]}."
            )
        return Layers({name: cls.GROUPS[name] for name in config.targets})

    @classmethod
    def checkpoint_of(cls, config: Config) -> str:
        """The checkpoint a configuration stands for.

        Raises:
            InputError: none is named and the family ships none.
        """
        if not config.checkpoint and not cls.SHIPPED:
            raise InputError(
                f"backbone {cls.name} must be given a checkpoint folder; got none. Use --set checkpoint=DIR."
            )
        return config.checkpoint or cls.SHIPPED

    @classmethod
    def load(cls, config: Config) -> Loaded:
        """Load model and processor from the configuration's checkpoint.

        Raises:
            InputError: no such folder, or it does not hold a model and processor of this family.
        """
        config.check_packages()
        processor, checkpoint = cls.load_processor(config), cls.checkpoint_of(config)
        with _explained(checkpoint):
            model = AutoModelForImageTextToText.from_pretrained(
                checkpoint,
                dtype=DTYPES.get(config.weights, torch.bfloat16),
                quantization_config=quantisation(config.weights),
                use_safetensors=True,
            )
        model.requires_grad_(False).eval()
        return Loaded(model, processor, cls.name, checkpoint_digest(checkpoint), cls, cls.layout(config))

    @classmethod
    def load_config(cls, config: Config) -> PreTrainedConfig:
        """Read a checkpoint's architecture.

        Raises:
            InputError: no such folder, or another family.
        """
        checkpoint = cls.checkpoint_of(config)
        with _explained(checkpoint):
            found: PreTrainedConfig = AutoConfig.from_pretrained(checkpoint)
        if found.model_type not in cls.MODEL_TYPES:
            raise InputError(
                f"a checkpoint of backbone {cls.name} must be of type {' or '.join(cls.MODEL_TYPES)}; {checkpoint} is "
                f"of type {found.model_type}. Choose another backbone or checkpoint."
            )
        return found

    @classmethod
    def load_processor(cls, config: Config) -> ProcessorMixin:
        """Load the processor alone: all that can be known of a checkpoint without reading its weights.

        Raises:
            InputError: no such folder, another family, or a processor that cannot make training batches.
        """
        checkpoint, found = cls.checkpoint_of(config), cls.load_config(config).model_type
        with _explained(checkpoint):
            processor = cls.read_processor(config, checkpoint, found)
        if not processor.chat_template or not processor.tokenizer.is_fast:
            raise InputError(
                f"a processor must have a chat template and a fast tokenizer; that of {checkpoint} has not. "
                "Save them beside the weights (chat_template.jinja, tokenizer.json)."
            )
        if Path(checkpoint).is_dir() and not any(Path(checkpoint).glob("*.safetensors")):
            raise InputError(
                f"a checkpoint must hold its weights as safetensors; {checkpoint} has no such file. "
                "Save the model again with save_pretrained."
            )
        return processor

    @classmethod
    def read_processor(cls, config: Config, checkpoint: str, model_type: str) -> ProcessorMixin:
        """Read a checkpoint's processor, whatever it holds.

        Pictures are prepared with Pillow everywhere, so that results do not depend on torchvision being there.

        Args:
            config: may hold settings of the family's picture preparation.
            checkpoint: a folder or hub name.
            model_type: which of the family's architectures it is.
        """
        return AutoProcessor.from_pretrained(checkpoint, backend="pil")

    @classmethod
    def image_tokens(cls, config: PreTrainedConfig, side: int | None = None) -> int:
        """Tokens that one picture takes in the language model.

        Args:
            config: of the model.
            side: of a square picture, in pixels; by default what is usual for the family. Of no account where every
                picture is made equally large.
        """
        vision = config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        return int(patches + (config.vision_feature_select_strategy == "full"))


@contextmanager
def _explained(checkpoint: str) -> Iterator[None]:
    """Say of what transformers cannot read that it is the checkpoint's fault."""
    try:
        yield
    except (OSError, ValueError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
        reason = re.sub(r"\s+", " ", str(error))[:300]
        raise InputError(
            f"checkpoint must hold a model and a processor in Hugging Face layout; {checkpoint} does not: {reason} "
            "Give a folder that save_pretrained wrote, or a name on the Hugging Face hub."
        ) from error


def quantisation(weights: Weights) -> BitsAndBytesConfig | None:
    """How transformers has bitsandbytes store the weights; None for floating point."""
    if weights == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    if weights == "nf4":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )
    return None


def checkpoint_digest(checkpoint: str) -> str:
    """SHA-256 over a folder's configuration and weight files; a hub name stands for itself."""
    folder = Path(checkpoint)
    digest = hashlib.sha256()
    if not folder.is_dir():
        digest.update(checkpoint.encode())
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.safetensors")] if folder.is_dir() else []):
        digest.update(file.name.encode())
        about = file.stat()
        digest.update(_file_digest(file, about.st_size, about.st_mtime_ns))
    return digest.hexdigest()[:16]


@lru_cache(maxsize=256)
def _file_digest(file: Path, _size: int, _modified: int) -> bytes:
    """SHA-256 of a file as it was at that size and time: weights of many gigabytes are read once a process."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
