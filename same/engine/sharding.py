"""FSDP2: the blocks that hold adapters are cut by rows over the processes, and whole while a pass needs them.

The same code runs on GPUs and, for the tests, on CPUs. Everything outside of those blocks (embeddings, projector, a
vision tower without adapters) stays whole on every process: batches without images leave it out, and processes that
run different blocks would wait for each other for ever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import get_peft_model_state_dict
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from same.errors import RunFailed


def shard(model: nn.Module, device: torch.device) -> None:
    """Cut the blocks that hold adapters over all processes, in place; the optimiser is made afterwards.

    Args:
        model: with its adapters, equal on every process and on its device.
        device: of this process.

    Raises:
        RunFailed: something trains outside of the model's blocks.
    """
    root = base_of(model)
    blocks = adapted_blocks(root)
    inside = {parameter for block in blocks.values() for parameter in block.parameters()}
    outside = [
        name for name, parameter in root.named_parameters() if parameter.requires_grad and parameter not in inside
    ]
    if outside or not blocks:
        raise RunFailed(
            "With strategy fsdp, all that trains must lie in the model's repeated blocks; found "
            f"{(outside or ['nothing'])[0]} outside. Use --strategy ddp."
        )
    mesh = init_device_mesh(device.type, (distributed.get_world_size(),))
    for block in blocks.values():
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    whole = {parameter for parameter in root.parameters() if not isinstance(parameter, DTensor)}
    fully_shard(root, mesh=mesh, reshard_after_forward=True, ignored_params=whole)


def base_of(model: nn.Module) -> nn.Module:
    """The model whose forward pass both training and generation call: without PEFT's shell."""
    base: nn.Module = getattr(model, "get_base_model", lambda: model)()
    return base


def adapted_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The outermost entries of module lists that hold something that trains, by name."""
    lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    outermost = [name for name in lists if not any(name.startswith(f"{other}.") for other in lists)]
    blocks = {
        f"{name}.{entry}": block for name in outermost for entry, block in model.get_submodule(name).named_children()
    }
    return {
        name: block
        for name, block in blocks.items()
        if any(parameter.requires_grad for parameter in block.parameters())
    }


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Whole parameters on every process, to be read only: passes inside need not be equally many on each.

    Generation under shards would fetch every block again for each token.
    """
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(True, recurse=False)
            unit.reshard()


def cut_like(model: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A saved adapter's whole tensors, each cut as the attached adapter's parameter of that name is."""
    attached = get_peft_model_state_dict(model)
    return {name: _cut(whole, attached.get(name)) for name, whole in weights.items()}


def _cut(whole: Tensor, like: Tensor | None) -> Tensor:
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
