"""ZeRO-2 through DeepSpeed: gradients and optimiser state are cut over the processes. Not run on GPUs by us.

DeepSpeed keeps one flat piece of all gradients on each process. A whole gradient is fetched and written back by its
public calls between backward and step, so a method may edit gradients. The optimiser changes flat pieces too, which cut
across parameters, and moves every expert's, so nothing can be done exactly after the step.
"""

from __future__ import annotations

import importlib.util
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from same.engine.updates import Moment
from same.errors import InputError


def require_deepspeed() -> None:
    """Refuse where DeepSpeed or its GPUs are missing.

    Raises:
        InputError: it is not installed, or there is no GPU.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise InputError(
            "strategy zero2 needs DeepSpeed; it is not installed. Use pip install 'same-workbench[deepspeed]', or "
            "--strategy ddp or fsdp."
        )
    if not torch.cuda.is_available():
        raise InputError("strategy zero2 needs GPUs; none was found. Use --strategy ddp or fsdp.")


def engine_config(rows: int, precision: str) -> dict[str, Any]:
    """What DeepSpeed's engine is told; on GPUs it takes the products' precision from here, not from autocast around it.

    Args:
        rows: of a part of a batch, on one process.
        precision: "fp32" or "bf16".
    """
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": rows,
        "gradient_accumulation_steps": 1,  # the boundary is set by hand
        "zero_optimization": {"stage": 2},
        "gradient_clipping": 0.0,  # on by itself; `step` clips, before the method edits
        "zero_allow_untested_optimizer": True,
    }
    if precision == "bf16":
        # Gradients of the modules named would be summed in bf16.
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return config


class ZeroUpdates:
    """DeepSpeed's engine around the model, for one task; `config` as of `engine_config`, the rest of `updates_for`."""

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, before: Moment, after: Moment, config: dict[str, Any]
    ) -> None:
        import deepspeed
        from deepspeed.utils import safe_get_full_grad, safe_set_full_grad

        self._fetch: Any = safe_get_full_grad
        self._write_back: Any = safe_set_full_grad
        self.model, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._before, self._after = before, after

    def part(self, last: bool) -> AbstractContextManager[None]:
        self.model.set_gradient_accumulation_boundary(is_boundary=last)
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        self.model.backward(loss)

    def step(self, clip: float) -> None:
        for parameter in self._parameters:
            parameter.grad = self._fetch(parameter)
        if clip:
            torch.nn.utils.clip_grad_norm_(self._parameters, clip)
        self._before()
        for parameter in self._parameters:
            edited, parameter.grad = parameter.grad, None
            self._write_back(parameter, edited)
        self.model.step()
        self._after()

    def close(self) -> None:
        # What the engine leaves on the model would keep it, and the optimiser's state, to the end of the run.
        for hook in (self.model.module_forward_pre_hook, self.model.module_forward_post_hook):
            hook.remove()
        self.model.destroy()
