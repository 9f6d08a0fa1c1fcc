"""The optimisers a run can ask for; each calls the hooks that methods hang their rules on."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from same.engine.job import TrainConfig


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> Optimizer:
    """A new optimiser with empty moments: AdamW, SGD without momentum, or AdamW with moments in 8 bits.

    The last is bitsandbytes', run by us on a CPU and not on GPUs; it keeps moments of fewer than 4,096 numbers in
    float32.
    """
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit

        small: Optimizer = AdamW8bit(parameters, **settings)
        return small
    if config.optimizer == "sgd":
        return SGD(parameters, **settings)
    return AdamW(parameters, **settings)
