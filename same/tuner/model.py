"""Puts MoE-LoRA layers into a model, the way PEFT's own tuners do."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from peft.config import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from same.errors import InputError
from same.tuner.config import MoELoraConfig
from same.tuner.layer import MoELoraLinear
from same.tuner.routing import Passes


class MoELoraModel(BaseTuner):
    """The tuner behind `get_peft_model(model, MoELoraConfig(...))`."""

    prefix: str = "lora_"
    tuner_layer_cls = MoELoraLinear
    target_module_mapping: ClassVar[dict[str, list[str]]] = {}

    def _pre_injection_hook(self, model: nn.Module, config: PeftConfig, adapter_name: str) -> None:
        self.passes = Passes()
        model.register_forward_pre_hook(self.passes.see, with_kwargs=True)

    def _enable_peft_forward_hooks(self, *_args: Any, **_kwargs: Any) -> AbstractContextManager[None]:
        """Entered by PEFT around a forward pass or a generation."""
        return self.passes.call()

    def _prepare_adapter_config(self, peft_config: MoELoraConfig, model_config: dict[str, Any]) -> PeftConfig:
        if peft_config.target_modules is None:
            raise InputError("target_modules must name the layers to adapt; got None. Give the backbone's targets.")
        return peft_config

    def _create_and_replace(
        self,
        peft_config: MoELoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **kwargs: Any,
    ) -> None:
        if isinstance(target, MoELoraLinear):
            target.update_layer(adapter_name, peft_config)
            return
        base = target.get_base_layer() if isinstance(target, BaseTunerLayer) else target
        if not (hasattr(base, "in_features") and hasattr(base, "out_features")):
            raise InputError(f"target_modules must match linear layers only; {current_key} is {type(base).__name__}.")
        padded = peft_config.unpadded is None or re.fullmatch(peft_config.unpadded, current_key) is None
        layer = MoELoraLinear(target, adapter_name, peft_config, self.passes, padded)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)
