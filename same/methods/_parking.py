"""Optimiser state of experts that rest, kept on the host until they wake."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

PutBack = Callable[[], Any]


class Parking:
    """Takes the state of resting parameters out of an optimiser, and puts it back unchanged when they wake.

    It frees memory of the device that trains. A CPU is its own host: nothing is copied there, and nothing freed.
    """

    def __init__(self) -> None:
        self._away: dict[Tensor, dict[str, PutBack]] = {}

    def settle(self, optimizer: Optimizer, resting: Iterable[Tensor]) -> None:
        """Keep the state of `resting` here, and that of all others in the optimiser; waits for the device."""
        asleep = set(resting)
        for parameter in self._away.keys() - asleep:
            optimizer.state[parameter] = {name: put_back() for name, put_back in self._away.pop(parameter).items()}
        for parameter in (asleep & optimizer.state.keys()) - self._away.keys():
            state = optimizer.state.pop(parameter)
            self._away[parameter] = {name: _take_away(value) for name, value in state.items()}


def _take_away(value: object) -> PutBack:
    """Copy a tensor to the host, and say how to make it again where it was."""
    if not isinstance(value, Tensor):
        return lambda: value
    held = value.to_local() if isinstance(value, DTensor) else value
    host, device = held.cpu(), held.device
    if not isinstance(value, DTensor):
        return lambda: host.to(device)
    mesh, placements, shape, stride = value.device_mesh, value.placements, value.shape, value.stride()
    return lambda: DTensor.from_local(host.to(device), mesh, placements, run_check=False, shape=shape, stride=stride)
