"""How training's forward and backward passes are carried out: recomputed activations, compiled adapters."""

import os
import shutil
from typing import Any

import torch
import torch._dynamo
from peft import PeftModel
from torch import nn

from same.errors import InputError
from same.tuner.kernel import mix, project
from same.tuner.observe import moe_layers

VARIANTS_KEPT = 64  # compiled forms: widths × lengths × numbers of experts that take part × with or without gradient


def recompute_activations(model: nn.Module) -> None:
    """Keep each block's input alone and run the block again in backward; evaluation is not touched.

    The blocks are run again by torch's non-reentrant checkpoint. Statistics are counted once: they are switched on
    around the forward pass only.

    Raises:
        InputError: the model's blocks cannot be run again.
    """
    base: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    try:
        base.activation_checkpointing_enable({"use_reentrant": False})
    except ValueError as error:
        raise InputError(
            f"gradient_checkpointing must be false for this backbone; it cannot run its blocks again: {error}"
        ) from error


def compile_adapters(model: nn.Module, backend: str = "inductor") -> None:
    """Let torch compile what the MoE-LoRA layers add to their base layers, each form as one graph.

    On CPUs it gave nothing: the kernel is three matrix products already. It is offered for GPUs, where we have not
    measured it. The base layers, and the statistics, stay as they are; so does a form that there are too many of.

    Args:
        model: has MoE-LoRA layers; those of other kinds are left alone.
        backend: of torch.compile.

    Raises:
        InputError: the backend needs a C++ compiler for the device and there is none.
    """
    layers = moe_layers(model)
    on_cpu = any(layer.router.device.type == "cpu" for layer in layers.values())
    compilers = (os.environ.get("CXX", "g++"), "clang++")
    if on_cpu and backend == "inductor" and not any(map(shutil.which, compilers)):
        raise InputError(
            f"compile=true must find a C++ compiler on a CPU; none of {', '.join(compilers)} is on the PATH. "
            "Install one, or leave compile out."
        )
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, VARIANTS_KEPT)
    compiled = tuple(torch.compile(half, backend=backend) for half in (project, mix))
    for layer in layers.values():
        layer.kernel = compiled
