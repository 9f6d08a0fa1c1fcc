"""Processors without their video part: it needs torchvision, and nothing here is ever trained on videos."""

from __future__ import annotations

from transformers import ProcessorMixin


def pictures_only(kind: type[ProcessorMixin], checkpoint: str) -> ProcessorMixin:
    """Load a family's processor from its parts: picture preparation (on Pillow), tokenizer, chat template.

    Args:
        kind: the family's own class, whose call and placeholders are kept.
        checkpoint: a folder or hub name; what it says of videos is not read.
    """
    parts = [name for name in kind.get_attributes() if name != "video_processor"]
    own: type[ProcessorMixin] = type(kind.__name__, (kind,), {"get_attributes": classmethod(lambda _cls: parts)})
    return own.from_pretrained(checkpoint, backend="pil")
