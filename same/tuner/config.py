"""Settings of the MoE-LoRA tuner, saved as adapter_config.json."""

from __future__ import annotations

from dataclasses import dataclass, field

from peft.config import PeftConfig

from same.errors import InputError
from same.tuner.routing import ROUTINGS

TYPE = "SAMEMOE"
LAYERS = ("experts", "mixed_factors")
INFERENCES = ("as_trained", "flat_top_2")


@dataclass
class MoELoraConfig(PeftConfig):
    """A router and `num_experts` low-rank experts beside each target layer.

    Source: SAME, h = W0 x + (alpha/r) Σ_i ω_i(x) B_i A_i x.

    Args:
        r: rank of each expert.
        lora_alpha: the experts' weighted sum is scaled by lora_alpha / r.
        num_experts: experts a layer.
        routing: "token" weighs the experts for each token by itself; "sample" by the mean of a sample's valid tokens,
            all of them in training (the answer's too) and the prompt's in generation, kept for its later steps;
            "batch" by the mean over the batch, so that an answer depends on its batch mates.
        top_k: experts kept for what is weighed together, renormalised; None keeps all.
        layer: "experts" is the equation above; "mixed_factors" (Σ ω_i B_i)(Σ ω_j A_j x), as in published code.
        inference: "as_trained", or "flat_top_2": outside of training ω = softmax(logits / n) of the two largest.
        target_modules: names, or one regular expression that must match in full, of the linear layers to adapt.
        exclude_modules: names, or one regular expression, of layers to leave out.
        layers_to_transform: block numbers to adapt when target_modules is a list.
        layers_pattern: name of the block list when layers_to_transform is given.
        unpadded: one regular expression of target layers whose input has not the rows and columns of the model's
            `attention_mask`, such as a vision tower's: all of its tokens count.
        bias: must be "none".
        modules_to_save: further modules to train and save in full.
    """

    r: int = 8
    lora_alpha: float = 16.0
    num_experts: int = 8
    routing: str = "token"
    top_k: int | None = None
    layer: str = "experts"
    inference: str = "as_trained"
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    unpadded: str | None = None
    bias: str = "none"
    modules_to_save: list[str] | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = TYPE
        for name in ("r", "num_experts", "lora_alpha"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be positive; got {getattr(self, name)}.")
        for name, choices in (("routing", ROUTINGS), ("layer", LAYERS), ("inference", INFERENCES)):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}; got {getattr(self, name)!r}.")
        if self.top_k is not None and not 1 <= self.top_k <= self.num_experts:
            raise InputError(f"top_k must lie in 1..num_experts = {self.num_experts}; got {self.top_k}.")
        if self.bias != "none":
            raise InputError(f"bias must be 'none' (the base layer's bias stays frozen); got {self.bias!r}.")
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]  # as PEFT's matcher wants it
