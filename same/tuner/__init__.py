"""Mixture-of-experts LoRA as a PEFT tuner; importing this package makes PEFT know it (type `SAMEMOE`)."""

from same.tuner.config import MoELoraConfig
from same.tuner.layer import MoELoraLinear
from same.tuner.loading import load_adapter
from same.tuner.model import MoELoraModel
from same.tuner.observe import Observation
from same.tuner.plugin import register

register()

__all__ = ["MoELoraConfig", "MoELoraLinear", "MoELoraModel", "Observation", "load_adapter"]
