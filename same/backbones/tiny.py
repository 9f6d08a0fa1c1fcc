"""The embedded default: a LLaVA of 4 million parameters, shipped with the package and trained by ``same pretrain``."""

from __future__ import annotations

from pathlib import Path

from same.backbones._base import Backbone


class Tiny(Backbone):
    """CLIP vision tower, two-layer projector and Llama, for 64-pixel pictures of a small closed world."""

    name = "tiny"
    title = "tiny-llava (embedded)"
    SHIPPED = str(Path(__file__).parent / "tiny_llava")
