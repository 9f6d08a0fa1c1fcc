"""SAME: stabilised mixture-of-experts for multimodal continual instruction tuning."""

__version__ = "0.1.0"
