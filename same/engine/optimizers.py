"""The optimisers a run can ask for; each calls the hooks that methods hang their rules on."""

from collections.abc import Collection, Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from same.engine.job import TrainConfig


def make_optimizer(
    parameters: Iterable[nn.Parameter], config: TrainConfig, routers: Collection[nn.Parameter] = ()
) -> Optimizer:
    """A new optimiser with empty moments: AdamW, SGD without momentum, or AdamW with moments in 8 bits.

    The last is bitsandbytes', run by us on a CPU and not on GPUs; it keeps moments of fewer than 4,096 numbers in
    float32.

    Args:
        parameters: to train.
        config: names the optimiser.
        routers: those among the parameters whose rows belong to different experts. Their moments stay in float32: 8-bit
            ones share a scale between the rows of experts that rest and of others, so that they could not rest exactly.
    """
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw_8bit":
        return _eight_bits(parameters, {id(router) for router in routers}, settings)
    if config.optimizer == "sgd":
        return SGD(parameters, **settings)
    return AdamW(parameters, **settings)


def _eight_bits(parameters: Iterable[nn.Parameter], exact: set[int], settings: dict[str, Any]) -> Optimizer:
    from bitsandbytes.optim import AdamW8bit

    class AdamW8bitButExact(AdamW8bit):
        """Its own way of choosing bits by parameter is kept for the whole process, under ids that others may get."""

        def get_config(self, gindex: int, pindex: int, group: dict[str, Any]) -> dict[str, Any]:
            found: dict[str, Any] = super().get_config(gindex, pindex, group)
            return found | ({"optim_bits": 32} if id(group["params"][pindex]) in exact else {})

    optimizer: Optimizer = AdamW8bitButExact(parameters, **settings)
    return optimizer
