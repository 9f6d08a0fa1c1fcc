"""A saved adapter, or its routers or experts alone, into a model: checked in full before anything is changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import torch
from peft import PeftModel, get_peft_model
from peft.utils import CONFIG_NAME, SAFETENSORS_WEIGHTS_NAME
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from same.errors import InputError, SnapshotError
from same.tuner.config import TYPE, MoELoraConfig
from same.tuner.model import MoELoraModel
from same.tuner.observe import moe_layers

Part = Literal["all", "router", "experts"]
Shapes = dict[str, tuple[int, ...]]
_MARKS = {"all": ("lora_",), "router": ("lora_router",), "experts": ("lora_A", "lora_B")}


def load_adapter(model: nn.Module, folder: str | Path, part: Part = "all") -> PeftModel:
    """Put a saved MoE-LoRA adapter into a model; the routers of one and the experts of another make a mixture.

    Args:
        model: a fresh base model, which gets the adapter that the folder describes; or one that has a MoE-LoRA
            adapter, whose active one is overwritten.
        folder: what `save_pretrained` wrote, such as the `adapter` folder of a snapshot.
        part: "router" or "experts" loads these alone and leaves the others as they are (in a fresh model: new).

    Returns:
        The model with its adapter, which can be trained further.

    Raises:
        InputError: no such part, or a model whose adapter is of another kind.
        SnapshotError: the folder holds no such adapter; its tensors are missing, foreign or of another size; or its
            experts were trained at another scale or in another kind of layer than the model's.
    """
    if part not in get_args(Part):
        raise InputError(f"part must be one of {', '.join(get_args(Part))}; got {part!r}.")
    config, saved = _read(Path(folder))
    attached = isinstance(model, PeftModel)
    expected = _attached_shapes(model) if attached else _described_shapes(model, config)
    _check(Path(folder), saved, expected)
    if attached and part != "router":
        layer = next(iter(moe_layers(model).values()))
        _check_use(Path(folder), config, layer.settings[layer.adapter])
    adapted = model if isinstance(model, PeftModel) else get_peft_model(model, config)
    weights = _weights(adapted)
    with torch.no_grad():
        for name, weight in weights.items():
            if any(mark in name for mark in _MARKS[part]):
                weight.copy_(saved[name])
    return adapted


def _read(folder: Path) -> tuple[MoELoraConfig, dict[str, Tensor]]:
    """The configuration and the tensors of a saved adapter."""
    try:
        config = MoELoraConfig.from_pretrained(str(folder)) if (folder / CONFIG_NAME).is_file() else None
        saved = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise SnapshotError(
            f"{folder} must hold {CONFIG_NAME} and {SAFETENSORS_WEIGHTS_NAME} of a MoE-LoRA adapter; reading them "
            f"failed: {error}. Give the adapter folder of a snapshot."
        ) from error
    if config is None or config.peft_type != TYPE:
        found = "no configuration" if config is None else f"an adapter of type {config.peft_type}"
        raise SnapshotError(
            f"{folder} must hold a MoE-LoRA adapter ({TYPE}); found {found}. Give the adapter folder of a snapshot."
        )
    return dataclasses.replace(config, inference_mode=False), saved  # it is saved as frozen


def _names(layer: str, experts: int) -> Iterator[tuple[str, str]]:
    """Each tensor of a layer as PEFT saves it, with the part it belongs to."""
    prefix = f"base_model.model.{layer}"
    yield f"{prefix}.lora_router", "router"
    for part in ("lora_A", "lora_B"):
        for expert in range(experts):
            yield f"{prefix}.{part}.{expert}", part


def _described_shapes(model: nn.Module, config: MoELoraConfig) -> Shapes:
    """What an adapter of this configuration holds for a model that has none."""
    shapes: Shapes = {}
    for name, module in model.named_modules():
        if not MoELoraModel._check_target_module_exists(config, name):
            continue
        inputs, outputs = int(module.in_features), int(module.out_features)
        sizes = {"router": (config.num_experts, inputs), "lora_A": (config.r, inputs), "lora_B": (outputs, config.r)}
        shapes |= {key: sizes[part] for key, part in _names(name, config.num_experts)}
    if not shapes:
        raise SnapshotError(
            f"the adapter must fit the model; its target_modules {config.target_modules!r} match no layer of it. "
            "Load it into the family of models it was trained with."
        )
    return shapes


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the adapter in use, by the names PEFT saves them under."""
    weights: dict[str, Tensor] = {}
    for name, layer in moe_layers(model).items():
        values = [layer.router, *layer.experts_a, *layer.experts_b]
        weights |= {key: value for (key, _), value in zip(_names(name, layer.num_experts), values, strict=True)}
    return weights


def _attached_shapes(model: nn.Module) -> Shapes:
    shapes = {name: tuple(weight.shape) for name, weight in _weights(model).items()}
    if not shapes:
        raise InputError("model must be without adapters or have a MoE-LoRA adapter; its adapter is of another kind.")
    return shapes


def _check(folder: Path, saved: dict[str, Tensor], expected: Shapes) -> None:
    missing, foreign = sorted(expected.keys() - saved), sorted(saved.keys() - expected)
    wrong = [name for name, shape in expected.items() if name in saved and tuple(saved[name].shape) != shape]
    for names, fault in ((missing, "is missing"), (foreign, "is foreign to it"), (wrong, "is of another size")):
        if names:
            raise SnapshotError(
                f"{folder / SAFETENSORS_WEIGHTS_NAME} must fit the model's adapter; {names[0]} {fault} "
                f"({len(names)} such). Use a snapshot of a run with the same backbone, targets, experts and rank."
            )


def _check_use(folder: Path, saved: MoELoraConfig, attached: MoELoraConfig) -> None:
    """What experts do to a layer is more than their tensors; how they are chosen is the model's own affair."""
    for name in ("lora_alpha", "layer"):
        theirs, ours = getattr(saved, name), getattr(attached, name)
        if theirs != ours:
            raise SnapshotError(
                f"{folder / CONFIG_NAME} must have the {name} of the model's adapter, {ours!r}; got {theirs!r}. "
                "Load it into a fresh model, or into one whose adapter has the same."
            )
