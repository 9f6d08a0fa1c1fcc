"""Backbones: one file a family of multimodal language models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from same import registry

if TYPE_CHECKING:
    from same.backbones._base import Loaded


def load_backbone(name: str = "tiny", settings: Mapping[str, Any] | None = None) -> Loaded:
    """Load a backbone by its plug-in name.

    Raises:
        InputError: no backbone of that name, an unknown setting, or an unusable checkpoint.
    """
    from same.backbones._base import Backbone

    family = registry.load_class("same.backbones", name, Backbone)
    return family.load(family.Config(**(settings or {})))
