"""Parameters that FSDP2 has cut by rows over the processes; plain ones pass through unchanged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor


def local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The rows of tensors that this process holds, which may be none; edits reach the tensors. Not for autograd."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def local_gradients(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The rows that this process holds of the gradients there are."""
    return local(parameter.grad for parameter in parameters if parameter.grad is not None)


def local_rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Those of some rows that this process holds, counted from its first; waits for the device.

    Every process but the last ones holds ⌈n / processes⌉ rows.
    """
    if not isinstance(tensor, DTensor):
        return rows
    mesh = tensor.device_mesh
    first = mesh.get_local_rank() * -(-len(tensor) // mesh.size())
    held = (rows >= first) & (rows < first + len(tensor.to_local()))
    return rows[held] - first


def whole(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Tensors of one shape with all their rows, fetched in one exchange; every process must call it alike."""
    first = tensors[0]
    if not isinstance(first, DTensor):
        return list(tensors)
    stacked = torch.stack(local(tensors), 1)
    rows, *rest = first.shape
    shape = torch.Size([rows, len(tensors), *rest])
    strides = torch.empty(shape, device="meta").stride()
    joined = DTensor.from_local(stacked, first.device_mesh, first.placements, shape=shape, stride=strides)
    return list(joined.full_tensor().unbind(1))
